"""Cells of a run: one training for each group of subjects, fold and seed."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from brainhive_cli.core.base import BrainhiveError, RecipeError
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.signals import Holdout
from brainhive_cli.data.stores import Recordings
from brainhive_cli.training.alignment.recipe import Recipe

SubjectTuple = tuple[int, ...]
"""Subject numbers."""
FOLD_PATTERN = re.compile(r"_fold-\d+(?=_seed-)")
"""Fold in the name of a cell."""


@dataclass(frozen=True)
class Cell:
    """One training of a run.

    Attributes:
        name: Name of its folder below `cells/`.
        trained_on: Subjects of the training.
        tested_on: Subjects of the test.
        seed: Seed of the training.
        fold: Fold that it holds out, from 1. 1 without folds.
    """

    name: str
    trained_on: SubjectTuple
    tested_on: SubjectTuple
    seed: int
    fold: int = 1

    @property
    def name_without_fold(self) -> str:
        """Name without the fold, shared by all folds of a training."""
        return FOLD_PATTERN.sub("", self.name)


def list_cells(recipe: Recipe, dataset: Dataset) -> list[Cell]:
    """List the cells (trainings) of a run, with or without signals on disk.

    Args:
        recipe: Recipe of the run.
        dataset: Data set of the recipe.

    Raises:
        MissingData: if the data set does not have the subjects.
        BrainhiveError: if a cell of mode `inter` has no training subjects.
    """
    recordings = Recordings(dataset, recipe.paths, recipe.signal)
    subjects = tuple(recordings.list_subjects(recipe.subjects))
    groups = _group_subjects(recipe, dataset, recordings, subjects)
    if dataset.holdout.divides_train:
        _check_holdout(recipe, dataset.holdout)
    folds = dataset.holdout.fold_numbers

    cells = []
    for name, trained_on, tested_on in groups:
        for fold in folds:
            # subjects with few runs or sessions do not have all folds
            fold_recordings = replace(recordings, fold=fold)
            absent = {
                subject
                for subject in trained_on
                if not fold_recordings.can_fill_fold(subject)
            }
            training = tuple(s for s in trained_on if s not in absent)
            test = tuple(s for s in tested_on if s not in absent)
            if not training:
                continue
            suffix = f"_fold-{fold:02d}" if len(folds) > 1 else ""
            for seed in recipe.seeds:
                cells.append(
                    Cell(
                        name=f"{name}{suffix}_seed-{seed}",
                        trained_on=training,
                        tested_on=test,
                        seed=seed,
                        fold=fold,
                    )
                )
    if not cells:
        # the error says why the holdout leaves no trials
        recordings.open_recordings(subjects, "test")
    return cells


def describe_division(cells: Sequence[Cell], mode: str) -> str:
    """Describe how the models of a run differ, as in "one per person and seed".

    Args:
        cells: Cells of the run.
        mode: Mode of the training, such as `intra`.

    Returns:
        The phrase. Empty for a single model of one person.
    """
    person = "left-out person" if mode == "inter" else "person"
    values: dict[str, set[object]] = {
        person: {cell.tested_on for cell in cells},
        "fold": {cell.fold for cell in cells},
        "seed": {cell.seed for cell in cells},
    }
    # a joint model is of all people, although folds may leave some out
    if mode == "joint":
        del values[person]

    nouns = [noun for noun, choices in values.items() if len(choices) > 1]
    phrases = []
    if nouns:
        listing = " and ".join(filter(None, [", ".join(nouns[:-1]), nouns[-1]]))
        phrases.append(f"one per {listing}")
    if mode == "joint":
        phrases.append("for all people together")
    return ", ".join(phrases)


def _group_subjects(
    recipe: Recipe, dataset: Dataset, recordings: Recordings, subjects: SubjectTuple
) -> list[tuple[str, SubjectTuple, SubjectTuple]]:
    """List the name, the training subjects and the test subjects of each training.

    Mode `joint` trains on all subjects, `inter` on others than the tested subject, and
    other modes on each subject alone.

    Raises:
        BrainhiveError: if a training of mode `inter` has no training subjects.
    """
    if recipe.mode == "joint":
        return [("all", subjects, subjects)]
    if recipe.mode != "inter":
        return [(f"sub-{subject:02d}", (subject,), (subject,)) for subject in subjects]

    groups: list[tuple[str, SubjectTuple, SubjectTuple]] = []
    candidates = recordings.list_subjects(recipe.trained_on)
    for subject in subjects:
        trained_on = dataset.choose_training_subjects(candidates, subject)
        groups.append((f"sub-{subject:02d}", trained_on, (subject,)))

    # without a choice of subjects, only those recorded by another study are tested
    if dataset.crosses_studies and not recipe.subjects:
        groups = [group for group in groups if group[1]] or groups
    for name, trained_on, _ in groups:
        if not trained_on:
            raise BrainhiveError(
                f"mode inter trains on other subjects, and there are none for {name}",
                "name more subjects in trained_on",
            )
    return groups


def list_subjects(cells: Iterable[Cell], with_tested: bool = True) -> list[int]:
    """List the training subjects, and the test subjects if `with_tested`."""
    subjects: set[int] = set()
    for cell in cells:
        subjects.update(cell.trained_on)
        if with_tested:
            subjects.update(cell.tested_on)
    return sorted(subjects)


def list_test_subjects(cells: Iterable[Cell]) -> list[int]:
    """List the subjects that cells are tested on, ascending."""
    return sorted(set(chain.from_iterable(cell.tested_on for cell in cells)))


def _check_holdout(recipe: Recipe, holdout: Holdout) -> None:
    """Refuse recipes that contradict a holdout of trials, runs, sessions or pictures.

    Raises:
        RecipeError: naming the key.
    """
    # held-out trials belong to the training subjects
    if recipe.mode not in ("intra", "joint"):
        raise RecipeError(
            f"mode {recipe.mode} tests subjects who are left out, but dataset.holdout "
            f"holds out {holdout.by} of the training subjects",
            "set mode=intra or joint, or leave out dataset.holdout",
        )

    # a classifier knows only the labels of its training
    if recipe.backbone.is_classifier and not holdout.has_seen_pictures:
        raise RecipeError(
            f"{recipe.backbone.kind} recognises only what it was trained on, but "
            "dataset.holdout holds out pictures",
            "set dataset.holdout.by=trials, runs or sessions",
        )

    # a model that has seen the pictures has no zero-shot results
    if holdout.has_seen_pictures and recipe.published is not None:
        raise RecipeError(
            f"published results are zero-shot, but with {holdout.by} held out a "
            "model has seen all pictures",
            "set published=null, or dataset.holdout.by=pictures",
        )
    if holdout.has_seen_pictures and any(recipe.train.starts):
        raise RecipeError(
            "the weights of train.start_from may have been trained on the "
            f"{holdout.by} that are held out",
            "leave train.start_from out",
        )
    if recipe.train.selection == "test":
        raise RecipeError(
            "train.selection=test cannot be used with dataset.holdout",
            "set train.selection=last",
        )
