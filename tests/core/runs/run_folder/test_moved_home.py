"""Homes can be moved: runs are found again, and every command goes on with them."""

import shutil

import pytest

pytestmark = pytest.mark.nightly


COLOURS = "python:brainhive_cli.models.encoders.python:example"
QUICK = ("subjects=1", "train.epochs=1")


@pytest.fixture
def moving(
    tmp_path,
    monkeypatch,
    align_overrides,
    generator,
    prior,
):
    """A home with a prior, a generator and pictures of its own; and its commands, run
    wherever it lies.
    """
    old_home = tmp_path / "old"
    for source, name in ((prior, "models/prior"), (generator, "models/generator")):
        shutil.copytree(source, old_home / name)
    monkeypatch.chdir(tmp_path)  # home is not where commands are run

    def commands(home):
        monkeypatch.setenv("BRAINHIVE_HOME", str(home))
        drawing = (
            f"generator={{kind: sdxl, source: {home}/models/generator}}",
            "items=2",
            "repeats=1",
        )
        drawing += (
            "resolution_px=32",
            "steps=1",
            "metrics=pixcorr",
            "sheet_rows=0",
            "sources=brain,nearest",
        )
        return {
            "embed": (align_overrides[0], f"encoders=[{COLOURS!r}]"),
            "train-align": align_overrides
            + tuple(QUICK)
            + (f"prior={home}/models/prior",),
            "eval-retrieval": ("sheet_rows=0",),
            "reconstruct": (f"prior={home}/models/prior",) + tuple(drawing),
        }

    return old_home, commands


def test_a_moved_home_has_finished_what_it_had_finished(run_command, moving, tmp_path):
    old_home, commands = moving
    run_folders_by_name = {
        command: run_command(command, *given_command).folder
        for command, given_command in commands(old_home).items()
    }

    new_home = old_home.rename(tmp_path / "new")
    second_run_folders_by_name = {
        command: run_command(command, *given_command).folder
        for command, given_command in commands(new_home).items()
    }

    for command, folder in run_folders_by_name.items():
        assert second_run_folders_by_name[command] == new_home / folder.relative_to(
            old_home
        )
        if command != "embed":
            assert len(list((new_home / "runs" / command).iterdir())) == 1
    documents = list(new_home.glob("runs/**/*.yaml")) + list(
        new_home.glob("runs/**/*.json")
    )
    stored = [file for file in documents if file.name != "environment.json"]
    assert stored
    assert not [file for file in stored if str(old_home) in file.read_text()]
