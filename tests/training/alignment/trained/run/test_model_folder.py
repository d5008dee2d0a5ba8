"""Model folders, which are the model of a single cell."""

import json

import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.training.alignment.trained.run import (
    ModelFolder,
    TrainedRun,
    open_models,
)
from brainhive_cli.training.alignment.trained.test_set import open_test_set
from tests.worlds.run_copies import copy_run


@pytest.fixture
def folder(trained_run, tmp_path):
    """Copy of the model of person 1, beside the recipe of its run."""
    return next(copy_run(trained_run, tmp_path).glob("cells/sub-01*/model"))


@pytest.fixture
def run(trained_run):
    """Run that trained the model."""
    return TrainedRun.read(RunFolder(trained_run))


def test_a_folder_reads_the_trials_of_its_run(folder, run):
    model = open_models(RunFolder(folder), dataset=run.dataset_config, subjects=[1])

    assert isinstance(model, ModelFolder)
    assert model.origin is None
    (cell,) = model.cells
    assert (cell.name, cell.trained_on, cell.tested_on) == ("model", (1,), (1,))
    assert model.mode.startswith("model folder (")
    assert model.recipe is None
    assert model.open(cell).path == folder
    assert model.read_validation() == {}
    by_folder = open_test_set(model, "test")
    by_run = open_test_set(run, "test")
    trials = by_folder.open_person(model.open_first(), 1).trials
    expected = by_run.open_person(run.open_first(), 1).trials
    assert (trials.averages == expected.averages).all()
    assert by_folder.set_up["window_ms"] == by_run.set_up["window_ms"]


def test_a_folder_is_known_by_the_digest_of_its_files(folder, run):
    def find_digest():
        model = ModelFolder.read(
            RunFolder(folder), dataset=run.dataset_config, subjects=[1]
        )
        return next(model.list_inputs(["test"])).digest

    first_digest = find_digest()
    (folder / "more.safetensors").write_text("more")
    assert first_digest
    assert find_digest() not in ("", first_digest)
    assert next(run.list_inputs(["test"])).digest == ""


@pytest.mark.parametrize("has_dataset", [True, False])
def test_a_folder_needs_a_data_set_and_subjects(folder, run, has_dataset):
    options = {"dataset": run.dataset_config} if has_dataset else {"subjects": [1]}
    with pytest.raises(MissingData) as caught:
        ModelFolder.read(RunFolder(folder), **options)
    assert "no data set and subjects" in caught.value.message
    assert f"--run {folder}" in caught.value.hint


def test_a_folder_does_not_know_its_fold(folder, pictures):
    holdout = {"by": "runs", "folds": 2}
    fields = {"kind": "image-folder", "root": str(pictures), "holdout": holdout}
    config = parts.resolve("datasets", fields)
    with pytest.raises(RecipeError) as caught:
        ModelFolder.read(RunFolder(folder), Paths(), config, [1])
    assert "fold" in caught.value.message


def test_encoders_that_nothing_names_are_refused(folder, run):
    config = json.loads((folder / "config.json").read_text())
    config["encoders"] = {"strange": "strange"}
    config["dims"] = {"strange": 12}
    lone = folder.rename(folder.parents[4] / "lone")
    (lone / "config.json").write_text(json.dumps(config))
    with pytest.raises(BrainhiveError) as caught:
        ModelFolder.read(RunFolder(lone), dataset=run.dataset_config, subjects=[1])
    assert "strange" in caught.value.message
