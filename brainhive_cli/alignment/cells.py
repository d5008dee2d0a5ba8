"""The cells of a run: subjects trained on, subjects tested on, seed, and variant of a sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from brainhive_cli.alignment.recipe import Recipe
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signal_stores import chosen_subjects
from brainhive_cli.datasets import Dataset


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        name: Its folder below `cells/`; in a sweep it begins with the variant.
        trained_on: The subjects whose signals it learns from.
        tested_on: The subjects on whom it is evaluated.
        seed: Decides initial weights, dropout and the order of trials.
        variant: Which values of a sweep it has; empty without one.
    """

    name: str
    trained_on: tuple[int, ...]
    tested_on: tuple[int, ...]
    seed: int
    variant: str = ""


def cells_of(variants: Mapping[str, Recipe], dataset: Dataset) -> list[Cell]:
    """List the cells of every variant of a recipe, by label.

    Raises:
        MissingData: if the data set has not the subjects.
        BrainhiveError: if `inter` is left with nobody to train on.
    """
    found = []
    for label, each in variants.items():
        subjects = tuple(chosen_subjects(dataset, each.subjects))
        found += _cells_of_one(each.mode, subjects, each.seeds, label)
    return found


def _cells_of_one(mode: str, subjects: tuple[int, ...], seeds: Sequence[int], label: str) -> list[Cell]:
    below = f"{label}/" if label else ""
    if mode == "joint":
        return [Cell(f"{below}all_seed-{seed}", subjects, subjects, seed, label) for seed in seeds]
    if mode == "inter" and len(subjects) < 2:
        raise BrainhiveError(
            "mode inter leaves one subject out, so it needs at least two", "name more subjects"
        )
    cells = []
    for subject in subjects:
        others = tuple(s for s in subjects if s != subject)
        trained_on = others if mode == "inter" else (subject,)
        cells += [
            Cell(f"{below}sub-{subject:02d}_seed-{seed}", trained_on, (subject,), seed, label)
            for seed in seeds
        ]
    return cells
