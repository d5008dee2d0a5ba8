"""The cells of a run: subjects trained on, subjects tested on, seed, and variant of a sweep."""

from collections.abc import Mapping
from dataclasses import dataclass

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.signal_stores import SignalSource
from brainhive_cli.training.alignment.recipe import Recipe


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        name: Its folder below `cells/`; in a sweep it starts with the variant.
        trained_on: Subjects.
        tested_on: Subjects.
        variant: Label of the sweep's values that it has; empty without a sweep.
    """

    name: str
    trained_on: tuple[int, ...]
    tested_on: tuple[int, ...]
    seed: int
    variant: str = ""


def cells_of(variants: Mapping[str, Recipe], dataset: Dataset, is_expected: bool = False) -> list[Cell]:
    """List the cells of every variant of a recipe, by label; of signals that may be made later if expected.

    Raises:
        MissingData: if the data set does not have the subjects.
        BrainhiveError: if a cell of `inter` has nobody to train on.
    """
    cells = []
    for label, recipe in variants.items():
        source = SignalSource(dataset, recipe.paths, recipe.signal)
        subjects = tuple(source.choose_subjects(recipe.subjects, is_expected))
        groups: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = [
            (f"sub-{subject:02d}", (subject,), (subject,)) for subject in subjects
        ]
        if recipe.mode == "joint":
            groups = [("all", subjects, subjects)]
        elif recipe.mode == "inter":
            among = source.choose_subjects(recipe.trained_on, is_expected)
            groups = [
                (name, tuple(other for other in among if other not in tested), tested)
                for name, _, tested in groups
            ]
            if alone := [name for name, trained, _ in groups if not trained]:
                raise BrainhiveError(
                    f"mode inter trains on others, and there are none for {alone[0]}",
                    "name more in trained_on",
                )
        below = f"{label}/" if label else ""
        cells += [
            Cell(f"{below}{name}_seed-{seed}", trained, tested, seed, label)
            for name, trained, tested in groups
            for seed in recipe.seeds
        ]
    return cells
