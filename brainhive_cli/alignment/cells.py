"""The cells of a run: subjects trained on, subjects tested on, seed, and variant of a sweep."""

from dataclasses import dataclass

from brainhive_cli.alignment.recipe import Recipe
from brainhive_cli.alignment.sweep import variants
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signal_stores import chosen_subjects


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


def cells_of(what: Recipe) -> list[Cell]:
    """List the cells of every variant of a recipe.

    Raises:
        MissingData: if the data set has not the subjects.
        BrainhiveError: if `inter` is left with nobody to train on.
    """
    return [cell for label, variant in variants(what).items() for cell in _cells_of_one(variant, label)]


def _cells_of_one(what: Recipe, label: str) -> list[Cell]:
    subjects = tuple(chosen_subjects(what.dataset.build(what.paths), what.subjects))
    below = f"{label}/" if label else ""
    if what.mode == "joint":
        return [Cell(f"{below}all_seed-{seed}", subjects, subjects, seed, label) for seed in what.seeds]
    if what.mode == "inter" and len(subjects) < 2:
        raise BrainhiveError(
            "mode inter leaves one subject out, so it needs at least two", "name more subjects"
        )
    cells = []
    for subject in subjects:
        others = tuple(s for s in subjects if s != subject)
        trained_on = others if what.mode == "inter" else (subject,)
        cells += [
            Cell(f"{below}sub-{subject:02d}_seed-{seed}", trained_on, (subject,), seed, label)
            for seed in what.seeds
        ]
    return cells
