"""Code that a recipe or a file names: it runs where it is allowed, in a check by `--allow-code` alone."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from brainhive_cli.app import app
from brainhive_cli.core import parts
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.foreign_code import ALLOW

CODE = """
from pathlib import Path
Path("executed").touch()
from brainhive_cli.models.encoders.python import example as make
"""
ENCODER = "python:not_ours.network:make"
WITH_ENCODERS = ("embed", "train-align", "train-prior", "import-embeddings")
SHELVES = {
    "train-align": ("dataset", "backbone", "fuser", "loss"),
    "embed": ("dataset", "encoders"),
    "train-prior": ("dataset", "encoders", "generator"),
    "reconstruct": ("generator",),
}


def brainhive(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def executed() -> bool:
    return Path("executed").exists()


@pytest.fixture(autouse=True)
def code(home: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module in the working directory, as an archive from elsewhere could bring one along."""
    (home / "not_ours").mkdir()
    (home / "not_ours/network.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(home))
    yield
    for name in [name for name in sys.modules if name.startswith("not_ours")]:
        del sys.modules[name]


def recipe(home: Path, **fields: Any) -> str:
    (home / "recipe.yaml").write_text(yaml.safe_dump(fields))
    return str(home / "recipe.yaml")


@pytest.fixture
def embedding(home: Path, pictures: Path) -> str:
    """A recipe file of embed that names code."""
    return recipe(home, dataset={"kind": "image-folder", "root": str(pictures)}, encoders=[ENCODER])


def test_code_of_a_recipe_file_is_refused_with_the_flag_that_allows_it(embedding: str) -> None:
    shown = brainhive("embed", "--recipe", embedding)
    assert shown.exit_code == 2 and not executed()
    assert f"{ENCODER} is code, named by a file" in shown.stderr and "try: --allow-code" in shown.stderr
    assert brainhive("embed", "--recipe", embedding, "--allow-code").exit_code == 0
    assert executed()


def test_code_named_on_the_command_line_itself_needs_no_flag(embedding: str) -> None:
    assert brainhive("embed", "--recipe", embedding, "--encoders", ENCODER).exit_code == 0
    assert executed()


@pytest.mark.parametrize("part", [f"['{ENCODER}']", f"[{{kind: python, source: '{ENCODER}'}}]"])
def test_an_override_in_a_workflow_or_demo_file_is_a_files_word(
    home: Path, pictures: Path, part: str
) -> None:
    overrides = [f"dataset={{kind: image-folder, root: {pictures}}}", f"encoders={part}"]
    steps = recipe(home, steps={"embed": {"overrides": overrides}})
    for words in ((), ("--check",)):
        shown = brainhive("workflow", "--recipe", steps, *words)
        assert shown.exit_code in (2, 3) and "named by a file" in shown.stderr and not executed()
    demo = {"quick": True, "overrides": {"embed": overrides[1:]}}
    shown = brainhive("demo", "--recipe", recipe(home, **demo))
    assert shown.exit_code == 2 and "named by a file" in shown.stderr and not executed()

    steps = recipe(home, steps={"embed": {"overrides": overrides}})
    assert brainhive("workflow", "--recipe", steps, "--allow-code").exit_code == 0 and executed()


def test_an_override_of_a_step_that_is_typed_is_the_users_word(home: Path, pictures: Path) -> None:
    folder = f"dataset={{kind: image-folder, root: {pictures}}}"
    steps = recipe(home, steps={"embed": {"overrides": [folder]}})
    typed = json.dumps([folder, f"encoders=[{{kind: python, source: '{ENCODER}'}}]"])
    assert brainhive("workflow", "--recipe", steps, f"steps.embed.overrides={typed}").exit_code == 0
    assert executed()


def test_a_training_that_a_recipe_names_is_found_without_its_code(home: Path) -> None:
    (home / "train.yaml").write_text("extends: demo\nbackbone: {kind: not_ours.network}\n")
    file = recipe(home, align_run=str(home / "train.yaml"))
    shown = brainhive("eval-retrieval", "--recipe", file, "--check")
    assert shown.exit_code == 3 and "no finished train-align run" in shown.stderr and not executed()


def test_one_command_that_allows_code_does_not_allow_it_to_the_next(embedding: str) -> None:
    assert brainhive("embed", "--recipe", embedding, "--allow-code", "--check").exit_code == 0
    assert executed()
    Path("executed").unlink()
    assert brainhive("embed", "--recipe", embedding).exit_code == 2 and not executed()


@pytest.mark.parametrize("command", WITH_ENCODERS)
@pytest.mark.parametrize("words", [(), ("--allow-code",), ("--encoders", ENCODER)])
def test_check_runs_the_code_of_an_encoder_only_with_the_flag(
    home: Path, pictures: Path, command: str, words: tuple[str, ...]
) -> None:
    file = recipe(home, dataset={"kind": "image-folder", "root": str(pictures)}, encoders=[ENCODER])
    shown = brainhive(command, "--recipe", file, "--check", *words)
    assert "Traceback" not in shown.stderr
    if words == ("--allow-code",):
        assert "which --check does not run" not in shown.stdout + shown.stderr
        assert command != "embed" or (shown.exit_code == 0 and executed())
        return
    assert not executed()
    if command == "embed":
        assert shown.exit_code == (0 if words else 3)
        told = shown.stdout if words else shown.stderr
        assert ("which --check does not run" if words else "--allow-code") in " ".join(told.split())


@pytest.mark.parametrize(("command", "key"), [(name, key) for name, keys in SHELVES.items() for key in keys])
def test_a_part_that_is_a_module_is_imported_only_if_it_is_allowed(
    home: Path, command: str, key: str
) -> None:
    part: Any = {"kind": "not_ours.network"}
    file = recipe(home, **{key: [part] if key == "encoders" else part})
    for words in ((), ("--check",), ("--json", "--check")):
        shown = brainhive(command, "--recipe", file, *words)
        assert shown.exit_code == 2 and "not_ours.network is code" in shown.stderr and not executed()
    for words in (("--allow-code",), ("--check", "--allow-code")):
        shown = brainhive(command, "--recipe", file, *words)
        assert shown.exit_code == 2 and "the module 'not_ours.network' is no" in shown.stderr and executed()


@pytest.mark.parametrize("shelf", parts.SHELVES)
def test_a_file_that_names_a_module_as_its_kind_does_not_import_it(
    shelf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match=r"not_ours\.network is code, named by a file"):
        parts.load(shelf, "not_ours.network")
    assert not executed()
    monkeypatch.setenv(ALLOW, "1")
    with pytest.raises(RecipeError, match=r"the module 'not_ours\.network' is no"):
        parts.load(shelf, "not_ours.network")
    assert executed()


def test_a_prior_that_names_a_module_does_not_import_it(home: Path) -> None:
    (home / "not_ours/config.json").write_text(json.dumps({"kind": "not_ours.network"}))
    (home / "not_ours.network").mkdir()
    (home / "not_ours.network/config.json").write_text(json.dumps({"kind": "not_ours.network"}))
    for folder in ("not_ours", "not_ours.network"):  # the second is typed, but as a folder
        shown = brainhive("reconstruct", "--prior", folder)
        assert "not_ours.network is code, named by a file" in shown.stderr and not executed()


@pytest.mark.parametrize("kind", ["..", ".a", "a.", "a b.c", "os.path;x.y", "a.\0"])
def test_a_kind_that_is_no_import_path_is_refused(kind: str, code_allowed: None) -> None:
    with pytest.raises(RecipeError, match="is no import path"):
        parts.load("backbones", kind)


@pytest.mark.parametrize(
    ("text", "told"),
    [("import nowhere_at_all", "No module named"), ("1 +", "SyntaxError"), ("1 / 0", "ZeroDivisionError")],
)
def test_a_module_that_does_not_import_is_named_with_its_reason(
    home: Path, embedding: str, text: str, told: str
) -> None:
    (home / "not_ours/network.py").write_text(text)
    shown = brainhive("embed", "--recipe", embedding, "--allow-code")
    assert shown.exit_code in (2, 4) and told in shown.stderr and "a bug" not in shown.stderr
