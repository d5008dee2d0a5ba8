"""Fine-tuning: models of an align run continue on a share of the data of subjects that they never saw."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from brainhive_cli.core import console, runs
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.sweep import variants
from brainhive_cli.data.responses import Responses
from brainhive_cli.data.signal_stores import SignalSource
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.matching_run import INHERITED, RunNeeds, inherited
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.settings import Finetune
from brainhive_cli.training.alignment.trained import AlignRun, refuse_sweep


def find_source(recipe: Recipe) -> AlignRun:
    """Find the run that a recipe fine-tunes, or the newest that is not fine-tuned itself and fits it.

    Raises:
        MissingData: if there is no such run.
        RecipeError: if it is a sweep and no variant is named, or does not fit `finetune.trained_by`.
        BrainhiveError: if the run is fine-tuned itself.
    """
    usual = type(recipe)().dataset
    needs = RunNeeds(
        recipe.paths,
        None if recipe.dataset == usual or recipe.finetune.trained_by else recipe.dataset,
        recipe.finetune.trained_by,
        may_be_finetuned=False,
        choose="finetune.run=",
    )
    source = AlignRun.open(*needs.find(recipe.finetune.run), recipe.paths)
    refuse_sweep(source)
    if source.mode == "finetune":
        raise BrainhiveError(
            f"{source.folder.path.name} is fine-tuned itself", "name another: finetune.run=NAME"
        )
    return source


def _cells_without(source: AlignRun, *subjects: int) -> list[Cell]:
    """List the cells that never saw any of the subjects."""
    return [cell for cell in source.cells if not set(cell.trained_on) & set(subjects)]


def model_for(source: AlignRun, cell: Cell) -> Path:
    """Find the model that a cell starts from: it never saw its subject, and has its seed if one has.

    Raises:
        BrainhiveError: if there is none, or several could be meant.
    """
    new = _cells_without(source, *cell.trained_on)
    of_its_seed = [each for each in new if each.seed == cell.seed] or new
    chosen = [each for each in of_its_seed if each.seed == of_its_seed[0].seed]
    if len(chosen) != 1:
        names = " or ".join(each.name for each in chosen) or "no model"
        raise BrainhiveError(
            f"{cell.name} could start from {names} of {source.folder.path.name}",
            "fine-tune a joint run without the subject, or one that leaves a subject out",
        )
    return source.model_path(chosen[0])


def inherit(recipe: Recipe, source: AlignRun) -> Recipe:
    """Name the run that is fine-tuned and its new subjects, and take over the keys that its models keep.

    Raises:
        BrainhiveError: if the run knows the subjects.
        RecipeError: if the recipe sets dropout of a prior, and the run has none, or terms do not go with the
            heads or the epochs.
    """
    training, run = source.recipe, source.folder
    assert training is not None  # which a run has
    chosen = SignalSource(source.dataset, recipe.paths, training.signal).choose_subjects(recipe.subjects)
    new = [subject for subject in chosen if _cells_without(source, subject)]
    if not new or (recipe.subjects and new != chosen):
        known = ", ".join(str(subject) for subject in chosen if subject not in new)
        raise BrainhiveError(
            f"no model of {run.path.name} has yet to see subject {known}",
            "fine-tune to others, or a run that was trained without them",
        )
    is_of_sessions = any(each.finetune.sessions for each in variants(recipe).values())
    if is_of_sessions and (how := training.signal.normalise) != "none":
        raise RecipeError(
            f"finetune.sessions: signal.normalise={how} of {run.path.name} takes statistics of all sessions",
            "a run without signal.normalise, of signals that are z-scored by session; or finetune.share",
        )
    recipe.train.check_prior(training.prior)
    name = runs.reference(run, recipe.paths.under_home("runs") / "train-align", source.variant)
    _warn_of_others(recipe, {key: getattr(training, key) for key in INHERITED}, run.path.name)
    finetune = recipe.finetune.model_copy(update={"run": name})
    of_run = inherited(recipe, training).model_copy(update={"subjects": new, "finetune": finetune})
    of_run.check_terms()
    return of_run


def _warn_of_others(recipe: Recipe, taken: Mapping[str, Any], run: str) -> None:
    """Warn of keys that were set without effect."""
    usual = type(recipe)()
    for key, value in taken.items():
        chosen = getattr(recipe, key)
        if chosen not in (value, getattr(usual, key)):
            shown = chosen.model_dump(mode="json") if isinstance(chosen, BaseModel) else chosen
            console.warn(f"{key}={shown} has no effect: a fine-tuned model keeps that of {run}")


def share_of(responses: Responses, held_out: NDArray[np.bool_], finetune: Finetune) -> Responses:
    """Keep the trials of the first sessions, and of a share of their stimuli.

    It is an equal share of the stimuli that are held out ([M]) and the others.
    """
    if finetune.sessions is not None:
        responses = responses.of_first_sessions(finetune.sessions)
    random = np.random.default_rng(finetune.seed)
    shares = []
    for is_held_out in (False, True):
        pictures = np.unique(responses.stimulus[held_out[responses.stimulus] == is_held_out])
        count = max(1, round(finetune.share * len(pictures)))
        shares.append(random.permutation(pictures)[:count])
    rows = np.flatnonzero(np.isin(responses.stimulus, np.concatenate(shares)))
    return responses.take(rows)
