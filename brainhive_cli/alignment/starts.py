"""The model folders that stages of a training start from."""

from collections.abc import Sequence
from pathlib import Path

from brainhive_cli.alignment.cells import Cell
from brainhive_cli.alignment.sweep import of_variant
from brainhive_cli.core import home, runs
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.runs import FINISHED


def starts_of(references: Sequence[str | None], cell: Cell, root: Path) -> dict[int, Path]:
    """Find the model folder that each stage of a cell's training starts from, by the stage's number.

    Args:
        references: Of each stage: a model folder, an align run, or None.
        cell: The training.
        root: Folder of all runs.

    Raises:
        MissingData: if there is no such run.
        RecipeError: if several models of a run could be meant.
    """
    named = enumerate(references)
    return {number: _model(reference, cell, root) for number, reference in named if reference is not None}


def _model(reference: str, cell: Cell, root: Path) -> Path:
    """Take a model folder as it is; of a run the only model, or that of the cell with the same name."""
    folder = home.located(reference)
    if (folder / "config.json").is_file() and not (folder / FINISHED).is_file():
        return folder
    name, variant = of_variant(reference)
    run = runs.find(root, "train-align", name)
    cells = run.path / "cells" / variant
    models = {path.parent.name: path for path in sorted(cells.glob("*/model"))}
    own = cell.name.rpartition("/")[2]
    if own not in models and len(models) != 1:
        raise RecipeError(
            f"{cell.name} could start from {' or '.join(models) or 'no model'} of {run.path.name}",
            f"train.stages start_from={cells / next(iter(models), 'CELL') / 'model'}",
        )
    return models.get(own) or next(iter(models.values()))
