"""Fine-tuning: models of an align run go on with a share of the data of subjects that they never saw."""

from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from brainhive_cli import runs
from brainhive_cli.errors import BrainhiveError
from brainhive_cli.pipelines._cells import Cell, cells_of
from brainhive_cli.pipelines._data import Trials, chosen_subjects
from brainhive_cli.recipe import Section
from brainhive_cli.runs import RunFolder

if TYPE_CHECKING:
    from brainhive_cli.pipelines.train_align import Recipe

INHERITED = (
    *("dataset", "encoders", "dim", "backbone", "fuser", "prior"),
    *("subject_layer", "similarity", "signal"),
)
"""Recipe keys that say what a model is made of."""


class Finetune(Section):
    """Which models are fitted to new subjects, and with how much of their data."""

    run: str | None = Field(
        None, description="align run, by folder or name; default: the newest that is not fine-tuned itself"
    )
    share: float = Field(
        1.0, ge=0.01, le=1, description="share of a new subject's training pictures, 0.01 to 1"
    )
    seed: int = Field(0, description="chooses these pictures; a smaller share is part of a larger one")


def inherit(what: "Recipe") -> "Recipe":
    """Name the run that is fine-tuned and its new subjects, and take over what its models are made of.

    Raises:
        MissingData: if there is no such run.
        BrainhiveError: if the run is a sweep, or knows all subjects.
    """
    if what.mode != "finetune":
        return what
    run = _source(what)
    made = type(what).model_validate(run.recipe())
    if made.sweep:
        raise BrainhiveError(f"{run.path.name} is a sweep", "fine-tune a run of its best variant")
    seen = [_subjects(run, cell) for cell in cells_of(made)]
    asked = chosen_subjects(made.dataset.build(what.paths), what.subjects)
    new = [subject for subject in asked if any(subject not in subjects for subjects in seen)]
    if not new or (what.subjects and new != asked):
        known = ", ".join(str(subject) for subject in asked if subject not in new)
        raise BrainhiveError(
            f"no model of {run.path.name} has yet to see subject {known}",
            "fine-tune to others, or a run that was trained without them",
        )
    name = runs.reference(run, what.paths.under_home("runs") / "train-align")
    taken = {key: getattr(made, key) for key in INHERITED}
    finetune = what.finetune.model_copy(update={"run": name})
    return what.model_copy(update={**taken, "subjects": new, "finetune": finetune})


def model_for(what: "Recipe", cell: Cell) -> Path:
    """Find the model that a cell starts from, which never saw its subject; of its own seed if there is one.

    Raises:
        BrainhiveError: if several models could be meant.
    """
    run = _source(what)
    made = type(what).model_validate(run.recipe())
    new = [each for each in cells_of(made) if not _subjects(run, each) & set(cell.trained_on)]
    seed = cell.seed if any(each.seed == cell.seed for each in new) else new[0].seed
    names = [each.name for each in new if each.seed == seed]
    if len(names) > 1:
        raise BrainhiveError(
            f"{cell.name} could start from any of {', '.join(names)} of {run.path.name}",
            "fine-tune a joint run, or one that leaves a subject out",
        )
    return run.path / "cells" / names[0] / "model"


def share_of(trials: Trials, held_out: NDArray[np.bool_], finetune: Finetune) -> Trials:
    """Keep the trials of a share of the pictures, alike among those learned from and those held out.

    Args:
        trials: Of one subject.
        held_out: [M] whether a picture is kept for validation.
        finetune: The share, and the seed that decides which.
    """
    random = np.random.default_rng(finetune.seed)
    kept = []
    for is_held_out in (False, True):
        pictures = np.unique(trials.picture[held_out[trials.picture] == is_held_out])
        count = max(1, round(finetune.share * len(pictures)))
        kept.append(random.permutation(pictures)[:count])
    rows = np.flatnonzero(np.isin(trials.picture, np.concatenate(kept)))
    return _of_rows(trials, rows)


def _of_rows(value: Any, rows: NDArray[np.int64]) -> Any:
    """Take rows of every array [N, …] of a dataclass."""
    if isinstance(value, np.ndarray):
        return value[rows]
    if not is_dataclass(value):
        return value
    fields = {name: _of_rows(inner, rows) for name, inner in vars(value).items()}
    return replace(value, **fields)  # type: ignore[type-var]


def _source(what: "Recipe") -> RunFolder:
    base = what.paths.under_home("runs")
    if what.finetune.run is None:
        newest = runs.newest(base, "train-align", lambda run: run.metrics()["mode"] != "finetune")
        if newest is not None:
            return newest
    return runs.find(base, "train-align", what.finetune.run)


def _subjects(run: RunFolder, cell: Cell) -> set[int]:
    return set(run.read_json(f"cells/{cell.name}/model/config.json")["subjects"])
