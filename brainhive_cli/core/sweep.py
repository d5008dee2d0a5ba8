"""The variants of a sweep, laid over the recipe: combinations of values, or ablations;
what they measured.
"""

import copy
import itertools
import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from brainhive_cli.core import console
from brainhive_cli.core.command import Result
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.facts import Variant, flatten, merge_set_ups
from brainhive_cli.core.files import resolve_below
from brainhive_cli.core.key_types import split
from brainhive_cli.core.measurements import Measurements, merge_caveats, scope
from brainhive_cli.core.recipe import Recipe, validate
from brainhive_cli.core.runs import RunFolder

OF_THE_RUN = ("dataset", "paths", "run", "published", "sweep", "ablations")
"""Sections that all cells of a run share."""
MAX_VARIANTS = 1000
"""Variants of one sweep: each is a training, and has columns of its own in tables."""
FULL = "full"
"""The variant of a recipe with ablations that lacks nothing."""


def read_sweep(value: Any) -> Any:
    """Read `{train: {lr: 1e-3,1e-4}}`, as overrides nest it, as `{train.lr: [1e-3,
    1e-4]}`.
    """
    if not isinstance(value, Mapping):
        return value
    # an empty section sets no key
    return {
        key: split(values) for key, values in flatten(value).items() if values != {}
    }


def flattened(fields: Any) -> Any:
    """Read `{generator: {text_share: 0}}`, as overrides nest it, as
    `{generator.text_share: 0}`.
    """
    return flatten(fields) if isinstance(fields, Mapping) else fields


Listed = Annotated[list[Any], Field(min_length=1)]
Changes = Annotated[dict[str, Any], BeforeValidator(flattened), Field(min_length=1)]


class SweptRecipe(Recipe):
    """A recipe some of whose keys have several values."""

    sweep: Annotated[dict[str, Listed], BeforeValidator(read_sweep)] = Field(
        {},
        description=(
            "dotted recipe key to the values to compare; cells for each combination"
        ),
    )
    ablations: dict[str, Changes] = Field(
        {},
        max_length=MAX_VARIANTS,
        description=(
            "name: the dotted keys in which it differs from the recipe as it is "
            f"(`{FULL}`)"
        ),
    )

    @model_validator(mode="after")
    def _varies_in_one_way(self) -> Self:
        if self.sweep and self.ablations:
            raise RecipeError(
                "sweep and ablations go not together", "make a run of each"
            )
        # counted before any combination is listed
        if (count := prod(map(len, self.sweep.values()))) > MAX_VARIANTS:
            raise RecipeError(
                f"sweep: {count:,} combinations", f"at most {MAX_VARIANTS:,} in one run"
            )
        return self

    @property
    def is_swept(self) -> bool:
        """Whether there are several variants."""
        return bool(self.sweep or self.ablations)


R = TypeVar("R", bound=SweptRecipe)


def variants(recipe: R) -> dict[str, R]:
    """Lay each combination, or ablation, over the recipe; without a sweep there is one
    variant, labelled "".

    Raises:
        RecipeError: if a key is unknown or the whole run's, or a value does not fit or
            is there twice.
    """
    if not recipe.is_swept:
        return {"": recipe}

    # the label of each variant, and the keys in which it differs
    listed = [(FULL, {}), *recipe.ablations.items()]
    if not recipe.ablations:
        combinations = itertools.product(*recipe.sweep.values())
        chosen = [
            dict(zip(recipe.sweep, values, strict=True)) for values in combinations
        ]
        listed = [
            (",".join(_label(key, value) for key, value in keys.items()), keys)
            for keys in chosen
        ]

    # the changes of each variant are laid over the recipe without its sweep
    base = {**recipe.model_dump(mode="json"), "sweep": {}, "ablations": {}}
    recipes = {}
    for label, changes in listed:
        fields = copy.deepcopy(base)
        for key, value in changes.items():
            if key.split(".")[0] in OF_THE_RUN:
                raise RecipeError(
                    f"sweep: {key} is one for all cells of a run", "make a run of each"
                )
            recipe.put(fields, key, copy.deepcopy(value))

        # the label names a folder, and one variant
        resolve_below(Path(), label, source="sweep: the variant", error=RecipeError)
        if label in recipes:
            raise RecipeError(f"sweep: {label} is there twice", "leave one out")
        recipes[label] = validate(type(recipe), fields)
    return recipes


def variant_of(known: Mapping[str, R], variant: str, run: str) -> R:
    """Take one variant of a run; all of it where it is no sweep.

    Raises:
        RecipeError: if a sweep has no such variant, or none is named; the hint lists
            them.
    """
    if variant not in known:
        raise RecipeError(
            f"{run} has no {variant!r}"
            if variant
            else f"{run} is a sweep: name one of its variants",
            " or ".join(f"{run}:{label}" for label in known if label)
            or f"{run}, which is no sweep",
        )
    return known[variant]


def collect_variants(results: Mapping[str, Result]) -> Measurements:
    """Collect what the runs of variants measured, each scope after its variant's label;
    nothing is pooled.
    """
    # scopes get the label of their variant; caveats and set-up are of all
    measured = {label: result.metrics for label, result in results.items()}
    facts = [measurements.facts for measurements in measured.values()]
    scopes = {
        scope(label, name): metrics
        for label, measurements in measured.items()
        for name, metrics in measurements.scopes.items()
    }
    missing = {
        name: way
        for measurements in measured.values()
        for name, way in measurements.missing.items()
    }

    # facts of all variants, and the run of each
    shared = type(facts[0])(
        caveats=merge_caveats(*(one.caveats for one in facts)),
        scope=", ".join(dict.fromkeys(one.scope for one in facts if one.scope)),
        set_up=merge_set_ups([one.set_up for one in facts]),
        variants={
            label: Variant(
                run=result.folder.name, validation=one.validation, sources=one.sources
            )
            for (label, result), one in zip(results.items(), facts, strict=True)
        },
    )
    return Measurements(scopes, missing, shared)


def read_sweep_run(folder: RunFolder) -> Measurements:
    """Read what a sweep measured, and warn of variants that were not compared."""
    measurements = folder.measurements()
    for reason in measurements.facts.not_compared:
        console.warn(f"not compared: {reason}")
    return measurements


def _label(key: str, value: Any) -> str:
    """Name a value for a folder: a word speaks for itself, a number needs its key."""
    text = _text(value)
    # true, false and none say nothing without their key
    is_word = re.match(r"[A-Za-z]", text) and not isinstance(value, bool | None)
    return text if is_word else f"{key.split('.')[-1]}={text}"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        # a part by its kind, then its knobs
        knobs = [f"{key}={_text(knob)}" for key, knob in value.items() if key != "kind"]
        return ",".join([*([_text(value["kind"])] if "kind" in value else []), *knobs])
    if isinstance(value, list | tuple):
        return "+".join(map(_text, value))
    if isinstance(value, bool | None):
        return str(value).lower()

    # the text is part of a folder's name
    return re.sub(r"[^\w.+-]+", "-", str(value)).strip("-.") or "none"
