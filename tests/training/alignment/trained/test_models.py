"""Trained models of a run."""

from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.trained.run import TrainedRun


def test_models_know_their_cell_and_their_run(home):
    recipe = Recipe.resolve("train-align", None, {}, ("dataset=demo",))
    folder = RunFolder(home / "runs/train-align/made")
    folder.write_text("recipe.yaml", recipe.to_yaml())
    trained_run = TrainedRun.read(folder)

    for cell in trained_run.cells:
        model = trained_run.open(cell, head="token")
        assert model.cell == cell
        assert model.head == "token"
        assert model.path == folder.path / "cells" / cell.name / "model"
        assert model.run_name == trained_run.name
    assert trained_run.open_first().cell == trained_run.cells[0]
