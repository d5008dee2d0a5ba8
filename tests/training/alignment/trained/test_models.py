"""Trained models of a run, and sweeps that are no run of a single model."""

from pathlib import Path

import pytest

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.trained.models import refuse_sweep
from brainhive_cli.training.alignment.trained.run import TrainedRun


@pytest.fixture
def sweep(home: Path) -> TrainedRun:
    """Sweep of two learning rates, without its models."""
    words = ("dataset=demo", "sweep.train.lr=1e-3,2e-3")
    recipe = Recipe.resolve("train-align", None, {}, words)
    folder = RunFolder(home / "runs/train-align/sweep")
    folder.write_text("recipe.yaml", recipe.to_yaml())
    return TrainedRun.read(folder)


def test_a_sweep_is_no_run_of_one_model(sweep: TrainedRun) -> None:
    with pytest.raises(RecipeError) as caught:
        refuse_sweep(sweep)
    assert "sweep:lr=1e-3" in caught.value.hint
    refuse_sweep(TrainedRun.read(sweep.folder, "lr=2e-3"))


def test_models_of_a_cell_know_their_variant(sweep: TrainedRun) -> None:
    assert sweep.variants == ["lr=1e-3", "lr=2e-3"]
    for cell in sweep.cells:
        model = sweep.open(cell, head="token")
        assert model.cell == cell and model.head == "token"
        assert model.path == sweep.folder.path / "cells" / cell.name / "model"
        assert model.run_name == sweep.name
    assert sweep.open_first().cell == sweep.cells[0]
