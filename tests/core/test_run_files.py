"""Every file of a run is read: what is damaged, changed, missing or new is named."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from brainhive_cli.core import run_files, weights
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.recipe import Recipe
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.weights import Checkpoint

CONFIG, MODEL = "cells/a/model/config.json", "cells/a/model/model.safetensors"


@pytest.fixture
def run(home: Path) -> RunFolder:
    made = RunFolder.open("train-align", "tiny", Recipe(), Launch(0, 1, torch.device("cpu")))
    made.write_text(CONFIG, '{"scale": 1.0}\n')
    weights.save(made.path / MODEL, {"weight": torch.arange(64.0)})
    Checkpoint(made.checkpoint_path("a")).save({"step": 3, "weight": torch.arange(64.0)})
    Image.effect_noise((16, 16), 50).save(made.path / "seen.png")
    made.finish(Measurements())
    return made


def test_a_sound_run_has_no_problems(run: RunFolder) -> None:
    run.write_text("wandb/run/config.yaml", "- of: a tracker")
    found = run_files.check(run.path)
    assert found == run_files.RunFiles(
        {"documents": 4, "weights": 1, "checkpoints": 1, "pictures": 1}, (), has_digests=True
    )


@pytest.mark.parametrize(
    "name",
    ["metrics.json", "recipe.yaml", "cells/a/model/config.json", MODEL, "checkpoints/a.pt", "seen.png"],
)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_file_that_is_damaged_cut_or_missing_is_named(run: RunFolder, name: str, damage: str) -> None:
    path = run.path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "remove":
        path.unlink()
        is_listed = path.suffix in (".json", ".yaml")
        assert [name in each for each in run_files.check(run.path).problems] == [True] * is_listed
        return
    path.write_bytes(content if damage == "flip" else content[:-20])
    problems = run_files.check(run.path).problems
    assert len(problems) == 1 and name in problems[0]


def test_a_document_that_is_not_listed_is_named(run: RunFolder) -> None:
    run.write_text("cells/b/config.json", "{")
    assert [each.split(str(run.path))[1] for each in run_files.check(run.path).problems] == [
        "/cells/b/config.json is not in SHA256SUMS",
        "/cells/b/config.json is not valid JSON: EOF while parsing an object at line 1 column 1",
    ]


def test_a_run_of_an_older_version_without_digests_is_sound(run: RunFolder) -> None:
    (run.path / "SHA256SUMS").unlink()
    found = run_files.check(run.path)
    assert not found.problems and not found.has_digests


@pytest.mark.parametrize("name", ["values.csv", "index.html"])
def test_a_listed_file_that_no_reader_knows_is_compared_with_its_digest(run: RunFolder, name: str) -> None:
    run.write_text(name, "a,1")
    run.finish(Measurements())
    assert not run_files.check(run.path).problems
    (run.path / name).write_text("a,9")
    assert run_files.check(run.path).problems == (
        f"{run.path / name} was changed or damaged: SHA256SUMS has another digest of it",
    )


@pytest.mark.parametrize("name", ["swan_01b", "run-1", "wandb"])
def test_stimuli_called_like_the_folders_of_trackers_are_checked(run: RunFolder, name: str) -> None:
    picture = run.path / "samples" / name / "00.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"no picture")
    (run.path / "wandb/run-1").mkdir(parents=True)
    (run.path / "wandb/run-1/shown.png").write_bytes(b"of a tracker")
    problems = run_files.check(run.path).problems
    assert len(problems) == 1 and f"{picture} is no whole picture" in problems[0]
