"""Homes can be moved: runs are found again, and every command goes on with them."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from brainhive_cli.commands import reconstruct, train_align
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.files import locate, portable
from brainhive_cli.models.priors.fusion_prior import digest
from brainhive_cli.training.alignment.model import load

COLOURS = "python:brainhive_cli.models.encoders.python:example"
QUICK = ("subjects=1", "train.epochs=1")


def files_of(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.suffix in {".yaml", ".json"}]


@pytest.fixture
def moving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small, generator: Path, prior: Path):
    """A home with a prior, a generator and pictures of its own; and its commands, run wherever it lies."""
    old = tmp_path / "old"
    for source, name in ((prior, "models/prior"), (generator, "models/generator")):
        shutil.copytree(source, old / name)
    monkeypatch.chdir(tmp_path)  # home is not where commands are run

    def commands(home: Path) -> dict[str, tuple[str, ...]]:
        monkeypatch.setenv("BRAINHIVE_HOME", str(home))
        drawing = (f"generator={{kind: sdxl, source: {home}/models/generator}}", "items=2", "repeats=1")
        drawing += ("resolution_px=32", "steps=1", "metrics=pixcorr", "sheet_rows=0", "sources=brain,nearest")
        return {
            "embed": (small[0], f"encoders=[{COLOURS!r}]"),
            "train-align": (*small, *QUICK, f"prior={home}/models/prior"),
            "eval-retrieval": ("sheet_rows=0",),
            "reconstruct": (f"prior={home}/models/prior", *drawing),
        }

    return old, commands


def test_a_moved_home_has_finished_what_it_had_finished(go, moving, tmp_path: Path):
    old, commands = moving
    made = {command: go(command, *given).folder for command, given in commands(old).items()}

    new = old.rename(tmp_path / "new")
    again = {command: go(command, *given).folder for command, given in commands(new).items()}

    for command, folder in made.items():
        assert again[command] == new / folder.relative_to(old)
        if command != "embed":
            assert len(list((new / "runs" / command).iterdir())) == 1
    stored = [file for file in files_of(new / "runs") if file.name != "environment.json"]
    assert stored and not [file for file in stored if str(old) in file.read_text()]


def test_what_follows_works_in_a_moved_home(go, moving, tmp_path: Path, small):
    old, commands = moving
    for command in ("embed", "train-align"):
        given = commands(old)[command]
        run = go(command, *given).folder
    new = old.rename(tmp_path / "new")
    later = commands(new)

    evaluated = go("eval-retrieval", f"align_run=runs/train-align/{run.name}", "sheet_rows=0")
    assert evaluated.metrics.facts.run == str(new / "runs/train-align" / run.name)
    assert "models/prior" in evaluated.hint
    assert go("reconstruct", *later["reconstruct"]).metrics.overall["pixcorr"].n == 2
    assert go("train-align", *small, "mode=finetune", "train.epochs=1").metrics.facts.cells


def test_a_prior_that_was_trained_again_at_its_place_is_another(go, moving):
    old, commands = moving
    given = commands(old)
    go("embed", *given["embed"])
    first, drawn = (go(command, *given[command]).folder for command in ("train-align", "reconstruct"))
    file = old / "models/prior/attn_adapter/diffusion_pytorch_model.safetensors"
    save_file({key: 2 * value for key, value in load_file(file).items()}, file)

    second = go("train-align", *given["train-align"]).folder
    again = go("reconstruct", *given["reconstruct"], f"align_run={first.name}").folder

    assert first != second and drawn != again
    model = load(next(second.glob("cells/*/model")))
    assert model.layout.prior_digest == digest(str(old / "models/prior"))


def test_a_prior_is_the_same_wherever_it_lies(moving):
    old, commands = moving
    commands(old)
    shutil.copytree(old / "models/prior", old / "elsewhere")
    given = {str(old / "models/prior"), "models/prior", "elsewhere"}
    made = [
        train_align.Recipe(prior=name, encoders=[COLOURS], digests={name: digest(name)}) for name in given
    ]
    assert len({each.fingerprint() for each in made}) == 1


def test_a_run_is_matched_with_its_prior_by_digest(go, moving, capsys):
    old, commands = moving
    given = commands(old)
    go("embed", *given["embed"])
    go("train-align", *given["train-align"])
    file = old / "models/prior/fusion_encoder/diffusion_pytorch_model.safetensors"
    save_file({key: value + 0.1 for key, value in load_file(file).items()}, file)
    with pytest.raises(MissingData, match="was trained against another fusion encoder"):
        go("reconstruct", *given["reconstruct"])


def test_the_same_pictures_elsewhere_are_the_same_and_others_at_their_place_are_not(home, tmp_path):
    for folder, content in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (home / folder).mkdir()
        (home / folder / "1.png").write_bytes(content)
    from brainhive_cli.evaluation.reconstruction.folders import digest_media, list_media

    def fingerprint(folder: str) -> str:
        digests = {folder: digest_media(list_media(folder))}
        return reconstruct.Recipe(score=folder, digests=digests).fingerprint()

    assert fingerprint("a") == fingerprint("b") == fingerprint(str(home / "a")) != fingerprint("c")


def test_a_path_below_home_is_stored_relative_to_it(home, tmp_path):
    within, outside = str(home / "data" / "pictures"), "/elsewhere/pictures"
    assert portable({"a": [within, outside, "demo:prior"]}) == {"a": ["data/pictures", outside, "demo:prior"]}
    Path(within).mkdir(parents=True)
    assert locate("data/pictures").samefile(within) and locate("none") == Path("none")


def test_folders_of_pictures_below_home_have_one_fingerprint_wherever_home_lies(tmp_path, monkeypatch):
    found = set()
    for name in ("one", "two"):
        monkeypatch.setenv("BRAINHIVE_HOME", str(tmp_path / name))
        root = tmp_path / name / "pictures"
        found.add(
            train_align.Recipe(
                dataset={"kind": "image-folder", "root": str(root)}, paths={"data": str(tmp_path / name)}
            ).fingerprint()
        )
    assert len(found) == 1
