"""Code that a recipe, a file or a command line names: it runs by `--allow-code`
alone.
"""

import json
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from brainhive_cli.app import app

CODE = """
from pathlib import Path
Path("executed").touch()
from brainhive_cli.models.encoders.python import example as make
"""
ENCODER = "python:not_ours.network:make"


def brainhive(*arguments):
    return CliRunner().invoke(app, list(arguments))


def executed():
    return Path("executed").exists()


@pytest.fixture(autouse=True)
def code(home, pictures, monkeypatch):
    """A module in the working directory, as an archive from elsewhere could bring one
    along.
    """
    (home / "not_ours").mkdir()
    (home / "not_ours/network.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(home))
    yield
    for name in [name for name in sys.modules if name.startswith("not_ours")]:
        del sys.modules[name]


def recipe(home, **fields):
    (home / "recipe.yaml").write_text(yaml.safe_dump(fields))
    return str(home / "recipe.yaml")


@pytest.fixture
def embedding(home, pictures):
    """A recipe file of embed that names code."""
    return recipe(
        home,
        dataset={"kind": "image-folder", "root": str(pictures)},
        encoders=[ENCODER],
    )


def test_refused_code_is_reported_with_the_flag_that_allows_it(
    embedding,
):
    for arguments in ((), ("--encoders", ENCODER)):
        process = brainhive("embed", "--recipe", embedding, *arguments)
        assert process.exit_code == 2
        assert not executed()
        assert f"{ENCODER} is code, which runs only" in process.stderr
        assert "--allow-code" in process.stderr
    assert brainhive("embed", "--recipe", embedding, "--allow-code").exit_code == 0
    assert executed()


def test_code_in_overrides_of_workflow_and_demo_needs_the_flag(home, pictures):
    folder = f"dataset={{kind: image-folder, root: {pictures}}}"
    encoders = f"encoders=[{{kind: python, source: '{ENCODER}'}}]"
    steps = recipe(home, steps={"embed": {"overrides": [folder, encoders]}})
    for arguments in ((), ("--check",)):
        process = brainhive("workflow", "--recipe", steps, *arguments)
        assert process.exit_code in (2, 3)
        assert "is code, which runs only" in process.stderr
        assert not executed()
    process = brainhive(
        "demo", "--recipe", recipe(home, quick=True, overrides={"embed": [encoders]})
    )
    assert process.exit_code == 2
    assert "is code, which runs only" in process.stderr
    assert not executed()

    steps, typed = (
        recipe(home, steps={"embed": {"overrides": [folder]}}),
        json.dumps([folder, encoders]),
    )
    assert (
        brainhive(
            "workflow",
            "--recipe",
            steps,
            f"steps.embed.overrides={typed}",
            "--allow-code",
        ).exit_code
        == 0
    )
    assert executed()


def test_check_runs_the_code_of_an_encoder_only_with_the_flag(embedding):
    for arguments in ((), ("--encoders", ENCODER)):
        process = brainhive("embed", "--recipe", embedding, "--check", *arguments)
        assert process.exit_code == 3
        assert not executed()
        assert "--allow-code" in " ".join((process.stdout + process.stderr).split())
    process = brainhive("embed", "--recipe", embedding, "--check", "--allow-code")
    assert process.exit_code == 0
    assert executed()


def test_a_module_is_imported_as_a_part_only_if_allowed(home):
    file = recipe(home, backbone={"kind": "not_ours.network"})
    for arguments in ((), ("--check",)):
        process = brainhive("train-align", "--recipe", file, *arguments)
        assert process.exit_code == 2
        assert "not_ours.network is code" in process.stderr
        assert not executed()
    process = brainhive("train-align", "--recipe", file, "--allow-code")
    assert process.exit_code == 2
    assert "not_ours.network" in process.stderr
    assert executed()


def test_a_module_that_does_not_import_is_named_with_its_reason(home, embedding):
    (home / "not_ours/network.py").write_text("1 / 0")
    process = brainhive("embed", "--recipe", embedding, "--allow-code")
    assert process.exit_code in (2, 4)
    assert "ZeroDivisionError" in process.stderr
    assert "a bug" not in process.stderr
