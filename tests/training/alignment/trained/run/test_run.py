"""Runs without their weights: subjects and other data sets."""

import pytest

from brainhive_cli.core.base.errors import MissingData, RecipeError
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.trained.run import TrainedRun

DEMO = {"kind": "demo", "subjects": 2, "concepts": 40}


def write_run(home, *arguments):
    """Write the recipe of a run on two people, without its models."""
    dataset = "dataset={kind: demo, subjects: 2, concepts: 40}"
    recipe = Recipe.resolve(
        "train-align", None, {}, (dataset, "seeds=1,2") + tuple(arguments)
    )
    folder = RunFolder(home / "runs/train-align/made")
    folder.write_text("recipe.yaml", recipe.to_yaml())
    return folder


def list_tests(trained_run):
    return [(cell.seed, cell.tested_on) for cell in trained_run.cells]


def test_each_cell_is_tested_on_its_own_subjects(home):
    folder = write_run(home)
    everybody = TrainedRun.read(folder)
    assert list_tests(everybody) == [(1, (1,)), (2, (1,)), (1, (2,)), (2, (2,))]
    assert everybody.origin is None
    assert not everybody.tests_new_subjects
    single_trained_run = TrainedRun.read(folder, subjects=[2])
    assert list_tests(single_trained_run) == [(1, (2,)), (2, (2,))]


def test_subjects_that_no_cell_is_tested_on_are_named(home):
    folder = write_run(home, "subjects=1")
    with pytest.raises(MissingData) as caught:
        TrainedRun.read(folder, subjects=[2])
    assert "tested on subject 2" in caught.value.message
    assert caught.value.hint.endswith("subjects: 1")


def test_people_of_another_data_set_are_tested_by_every_cell(home):
    folder = write_run(home)
    other_recipe = parts.resolve("datasets", {**DEMO, "subjects": 3, "noise": 0.5})
    everybody = TrainedRun.read(folder, dataset=other_recipe)
    assert {tested_on for _, tested_on in list_tests(everybody)} == {(1, 2, 3)}
    assert everybody.tests_new_subjects
    assert everybody.trained_on is not None
    assert everybody.origin == everybody.trained_on.name != everybody.dataset.name
    trained_run = TrainedRun.read(folder, dataset=other_recipe, subjects=[3])
    assert {tested_on for _, tested_on in list_tests(trained_run)} == {(3,)}


def test_another_holdout_would_test_training_trials(home, pictures):
    folder = write_run(home)
    holdout = {"by": "pictures", "folds": 2}
    fields = {"kind": "image-folder", "root": str(pictures), "holdout": holdout}
    other_recipe = parts.resolve("datasets", fields)
    with pytest.raises(RecipeError) as caught:
        TrainedRun.read(folder, dataset=other_recipe)
    assert "another dataset.holdout" in caught.value.message
