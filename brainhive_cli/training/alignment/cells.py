"""Cells of a run: the trainings of a recipe, by tested subjects, fold and seed."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.signals.holdout import Holdout
from brainhive_cli.data.stores.recordings import Recordings
from brainhive_cli.training.alignment.recipe import Recipe

People = tuple[int, ...]
"""Numbers of subjects."""

FOLD = re.compile(r"_fold-\d+(?=_seed-)")
"""In the name of a cell."""


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        name: Its folder below `cells/`; in a sweep it starts with the variant.
        trained_on: Subjects.
        tested_on: Subjects.
        variant: Label of the sweep's values that it has; empty without a sweep.
        fold: Which trials it holds out, from 1, where the data set holds out any.
    """

    name: str
    trained_on: People
    tested_on: People
    seed: int
    variant: str = ""
    fold: int = 1

    @property
    def name_over_folds(self) -> str:
        """The name without its fold: that of all folds of one training."""
        return FOLD.sub("", self.name)


def cells_of(variants: Mapping[str, Recipe], dataset: Dataset) -> list[Cell]:
    """List the cells of every variant of a recipe, by label; signals of published
    subjects may be absent.

    Raises:
        MissingData: if the data set does not have the subjects.
        BrainhiveError: if a cell of `inter` has nobody to train on.
    """
    cells = []
    for label, recipe in variants.items():
        # one group of a name, trained and tested subjects for each training
        source = Recordings(dataset, recipe.paths, recipe.signal)
        subjects = tuple(source.list_subjects(recipe.subjects))
        groups: list[tuple[str, People, People]]
        groups = [
            (f"sub-{subject:02d}", (subject,), (subject,)) for subject in subjects
        ]
        if recipe.mode == "joint":
            groups = [("all", subjects, subjects)]
        elif recipe.mode == "inter":
            among = source.list_subjects(recipe.trained_on)
            groups = [
                (name, dataset.choose_training_subjects(among, *tested), tested)
                for name, _, tested in groups
            ]
            # without a choice, only those whom another study recorded are tested
            if dataset.crosses_studies and not recipe.subjects:
                groups = [group for group in groups if group[1]] or groups
            if alone := [name for name, trained, _ in groups if not trained]:
                raise BrainhiveError(
                    f"mode inter trains on others, and there are none for {alone[0]}",
                    "name more in trained_on",
                )

        # names of variant, fold and seed make up the name of the cell
        below, numbers = f"{label}/" if label else "", dataset.holdout.fold_numbers
        if dataset.holdout.divides_train:
            _check_holdout(recipe, dataset.holdout)
        folds = {
            number: f"_fold-{number:02d}" if len(numbers) > 1 else ""
            for number in numbers
        }
        listed = []
        for name, trained, tested in groups:
            for fold, of_fold in folds.items():
                # a subject with fewer runs or sessions takes no part in further folds
                here = replace(source, fold=fold)
                absent = {one for one in trained if not here.can_fill_fold(one)}
                people = tuple(one for one in trained if one not in absent)
                of_test = tuple(one for one in tested if one not in absent)
                listed += [
                    Cell(
                        f"{below}{name}{of_fold}_seed-{seed}",
                        people,
                        of_test,
                        seed,
                        label,
                        fold,
                    )
                    for seed in recipe.seeds
                    if people
                ]
        if not listed:  # the holdout itself says why
            source.open_recordings(subjects, "test")
        cells += listed
    return cells


def list_subjects(cells: Iterable[Cell], with_tested: bool = True) -> list[int]:
    """List the subjects that some cell is trained on, or tested on."""
    people = [
        cell.trained_on + (cell.tested_on if with_tested else ()) for cell in cells
    ]
    return sorted({*chain(*people)})


def _check_holdout(recipe: Recipe, holdout: Holdout) -> None:
    """Refuse what would test seen trials, or claim what seen pictures cannot show.

    Raises:
        RecipeError: naming the key.
    """
    # seen trials: only their own subjects can be tested
    if recipe.mode not in ("intra", "joint"):
        raise RecipeError(
            f"mode {recipe.mode} tests subjects who are left out, and dataset.holdout "
            f"holds out {holdout.by} of those trained on",
            "mode=intra or joint, or no dataset.holdout",
        )

    # labels are known from training
    if recipe.backbone.is_classifier and not holdout.has_seen_pictures:
        raise RecipeError(
            f"{recipe.backbone.kind} tells apart what it was trained on, and pictures "
            "are held out",
            "dataset.holdout.by=trials, runs or sessions",
        )

    # seen pictures: neither zero-shot results nor other starts
    if holdout.has_seen_pictures and recipe.published is not None:
        raise RecipeError(
            f"published results are zero-shot, and with {holdout.by} held out a "
            "model has seen all pictures",
            "published=null, or dataset.holdout.by=pictures",
        )
    if holdout.has_seen_pictures and any(recipe.train.starts):
        raise RecipeError(
            f"train.start_from names what may have learned from the {holdout.by} "
            "that are held out",
            "leave it out: each fold begins anew",
        )
    if recipe.train.selection == "test":
        raise RecipeError(
            "train.selection=test goes with no dataset.holdout", "train.selection=last"
        )
