"""The cells of a run: who is trained on, who is tested on, with which seed, in which variant of a sweep."""

import copy
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from brainhive_cli.core import home
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.recipe import put, split, validate
from brainhive_cli.data.trials import chosen_subjects

if TYPE_CHECKING:
    from brainhive_cli.pipelines.train_align import Recipe

OF_THE_RUN = ("dataset", "paths", "run", "published", "sweep")
"""Sections that all cells of a run share."""


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


def cells_of(what: "Recipe") -> list[Cell]:
    """List the cells of every variant of a recipe.

    Raises:
        MissingData: if the data set has not the subjects.
        BrainhiveError: if `inter` is left with nobody to train on.
    """
    return [cell for label, variant in variants(what).items() for cell in _cells_of_one(variant, label)]


def _cells_of_one(what: "Recipe", label: str) -> list[Cell]:
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


def variants(what: "Recipe") -> dict[str, "Recipe"]:
    """Lay each combination of a sweep's values over the recipe; without a sweep there is one, labelled "".

    Raises:
        RecipeError: if a key is unknown or the whole run's, or a value does not fit or is there twice.
    """
    if not what.sweep:
        return {"": what}
    for key in what.sweep:
        if key.split(".")[0] in OF_THE_RUN:
            raise RecipeError(f"sweep: {key} is one for all cells of a run", "make a run of each")
    base = {**what.model_dump(mode="json"), "sweep": {}}
    found: dict[str, Recipe] = {}
    for values in itertools.product(*what.sweep.values()):
        fields, chosen = copy.deepcopy(base), dict(zip(what.sweep, values, strict=True))
        for key, value in chosen.items():
            put(fields, key, copy.deepcopy(value))
        label = ",".join(_label(key, value) for key, value in chosen.items())
        if label in found:
            raise RecipeError(f"sweep: {label} is there twice", "leave one out")
        found[label] = validate(type(what), fields)
        if {found[label].mode, what.mode} > {"finetune"}:
            raise RecipeError("sweep: finetune goes with no other mode", "make a run of each")
    return found


def of_variant(reference: str | None) -> tuple[str | None, str]:
    """Split `SWEEP:VARIANT`, as a command line names a run; a folder of that name is taken as it is."""
    if reference is None or ":" not in reference or home.located(reference).is_dir():
        return reference, ""
    run, _, variant = reference.rpartition(":")
    return run, variant


def variant_of(made: "Recipe", variant: str, run: str) -> "Recipe":
    """Take one variant of a run; all of it where it is no sweep.

    Raises:
        RecipeError: if a sweep has no such variant, or none is named; the hint lists them.
    """
    known = variants(made)
    if variant not in known:
        said = f"{run} is a sweep: name one of its variants" if not variant else f"{run} has no {variant!r}"
        listed = " or ".join(f"{run}:{each}" for each in known if each) or f"{run}, which is no sweep"
        raise RecipeError(said, listed)
    return known[variant]


def _label(key: str, value: Any) -> str:
    """Name a value for a folder: a word speaks for itself, a number needs its key."""
    text = _text(value)
    is_word = re.match(r"[A-Za-z]", text) and not isinstance(value, bool | None)
    return text if is_word else f"{key.split('.')[-1]}={text}"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        knobs = [f"{key}={_text(knob)}" for key, knob in value.items() if key != "kind"]
        return ",".join([*([_text(value["kind"])] if "kind" in value else []), *knobs])
    if isinstance(value, list | tuple):
        return "+".join(map(_text, value))
    if isinstance(value, bool | None):
        return str(value).lower()
    return re.sub(r"[^\w.+-]+", "-", str(value)).strip("-.") or "none"


def read_sweep(value: Any) -> Any:
    """Read `{train: {lr: 1e-3,1e-4}}`, as overrides nest it, as `{train.lr: [1e-3, 1e-4]}`."""
    if not isinstance(value, Mapping):
        return value
    flat: dict[str, Any] = {}
    for key, values in value.items():
        if isinstance(values, Mapping):
            flat |= {f"{key}.{below}": listed for below, listed in read_sweep(values).items()}
        else:
            flat[str(key)] = split(values)
    return flat
