"""Fine-tuning: models of an align run go on with a share of the data of subjects that they never saw."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from brainhive_cli.alignment.cells import Cell, cells_of
from brainhive_cli.alignment.recipe import Recipe
from brainhive_cli.alignment.settings import Finetune
from brainhive_cli.alignment.sweep import of_variant, variant_of
from brainhive_cli.core import console, runs
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.signal_stores import chosen_subjects
from brainhive_cli.data.trials import Trials

INHERITED = (
    *("dataset", "encoders", "dim", "backbone", "fuser", "prior"),
    *("subject_layer", "similarity", "signal"),
)
"""Recipe keys of a model's architecture and data, which a fine-tuned model keeps."""


def inherit(recipe: Recipe) -> Recipe:
    """Name the run that is fine-tuned and its new subjects, and take over the keys that its models keep.

    Raises:
        MissingData: if there is no such run.
        BrainhiveError: if the run is fine-tuned itself, or knows the subjects.
        RecipeError: if the recipe asks for dropout in a prior, and the run has none.
    """
    if recipe.mode != "finetune":
        return recipe
    run, made, variant = _source(recipe)
    chosen = chosen_subjects(made.dataset.build(recipe.paths), recipe.subjects)
    new = [subject for subject in chosen if _new_to(made, subject)]
    if not new or (recipe.subjects and new != chosen):
        known = ", ".join(str(subject) for subject in chosen if subject not in new)
        raise BrainhiveError(
            f"no model of {run.path.name} has yet to see subject {known}",
            "fine-tune to others, or a run that was trained without them",
        )
    recipe.train.check_prior(made.prior)
    name = runs.reference(run, recipe.paths.under_home("runs") / "train-align", variant)
    taken = {key: getattr(made, key) for key in INHERITED}
    _warn_of_others(recipe, taken, run.path.name)
    finetune = recipe.finetune.model_copy(update={"run": name})
    return recipe.model_copy(update={**taken, "subjects": new, "finetune": finetune})


def _warn_of_others(recipe: Recipe, taken: Mapping[str, Any], run: str) -> None:
    """Warn of keys that were set, and that a fine-tuned model keeps from its run."""
    usual = type(recipe)()
    for key, value in taken.items():
        chosen = getattr(recipe, key)
        if chosen not in (value, getattr(usual, key)):
            shown = chosen.model_dump(mode="json") if isinstance(chosen, BaseModel) else chosen
            console.warn(f"{key}={shown} has no effect: a fine-tuned model keeps that of {run}")


def model_for(recipe: Recipe, cell: Cell) -> Path:
    """Find the model that a cell starts from, which never saw its subject; of its own seed if there is one.

    Raises:
        BrainhiveError: if there is none, or several could be meant.
    """
    run, made, variant = _source(recipe)
    new = _new_to(made, *cell.trained_on)
    of_its_seed = [each for each in new if each.seed == cell.seed]
    names = [each.name for each in of_its_seed or new if each.seed == (of_its_seed or new)[0].seed]
    if len(names) != 1:
        raise BrainhiveError(
            f"{cell.name} could start from {' or '.join(names) or 'no model'} of {run.path.name}",
            "fine-tune a joint run without the subject, or one that leaves a subject out",
        )
    return run.path / "cells" / variant / names[0] / "model"


def share_of(trials: Trials, held_out: NDArray[np.bool_], finetune: Finetune) -> Trials:
    """Keep the trials of a share of the pictures, the same share of those learned from and of those held out.

    Args:
        trials: Of one subject.
        held_out: [M] whether a picture is kept for validation.
        finetune: The share, and the seed that decides which.
    """
    random = np.random.default_rng(finetune.seed)
    kept = []
    for is_held_out in (False, True):
        pictures = np.unique(trials.stimulus[held_out[trials.stimulus] == is_held_out])
        count = max(1, round(finetune.share * len(pictures)))
        kept.append(random.permutation(pictures)[:count])
    rows = np.flatnonzero(np.isin(trials.stimulus, np.concatenate(kept)))
    return trials.take(rows)


def _source(recipe: Recipe) -> tuple[RunFolder, Recipe, str]:
    """Find the run that is fine-tuned, its recipe, and which variant of a sweep it is."""
    base, run = recipe.paths.under_home("runs"), None
    chosen, variant = of_variant(recipe.finetune.run)
    if chosen is None:
        run = runs.newest(
            base, "train-align", lambda run: run.recipe().get("mode") != "finetune", "finetune.run="
        )
    run = run or runs.find(base, "train-align", chosen)
    made = variant_of(type(recipe).model_validate(run.recipe()), variant, run.path.name)
    if made.mode == "finetune":
        raise BrainhiveError(f"{run.path.name} is fine-tuned itself", "name another: finetune.run=NAME")
    return run, made, variant


def _new_to(made: Recipe, *subjects: int) -> list[Cell]:
    """List the cells that never saw any of the subjects."""
    return [cell for cell in _cells(made) if not set(cell.trained_on) & set(subjects)]


def _cells(made: Recipe) -> list[Cell]:
    return cells_of({"": made}, made.dataset.build(made.paths))
