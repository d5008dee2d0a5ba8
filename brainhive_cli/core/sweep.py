"""The variants of a sweep: every combination of its values, or named ablations, laid over the recipe."""

import copy
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from brainhive_cli.core import home
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.files import below
from brainhive_cli.core.recipe import Recipe, split, validate

OF_THE_RUN = ("dataset", "paths", "run", "published", "sweep", "ablations")
"""Sections that all cells of a run share."""
FULL = "full"
"""The variant of a recipe with ablations that lacks nothing."""


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


def flattened(fields: Any) -> Any:
    """Read `{generator: {text_share: 0}}`, as overrides nest it, as `{generator.text_share: 0}`."""
    if not isinstance(fields, Mapping):
        return fields
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        inner = flattened(value) if isinstance(value, Mapping) else None
        flat |= {f"{key}.{below}": each for below, each in inner.items()} if inner else {str(key): value}
    return flat


Listed = Annotated[list[Any], Field(min_length=1)]
Changes = Annotated[dict[str, Any], BeforeValidator(flattened), Field(min_length=1)]


class SweptRecipe(Recipe):
    """A recipe some of whose keys have several values."""

    sweep: Annotated[dict[str, Listed], BeforeValidator(read_sweep)] = Field(
        {}, description="dotted recipe key to the values to compare; cells for each combination"
    )
    ablations: dict[str, Changes] = Field(
        {}, description=f"name: the dotted keys in which it differs from the recipe as it is (`{FULL}`)"
    )

    @model_validator(mode="after")
    def _varies_in_one_way(self) -> Self:
        if self.sweep and self.ablations:
            raise RecipeError("sweep and ablations go not together", "make a run of each")
        return self

    @property
    def is_swept(self) -> bool:
        """Whether there are several variants."""
        return bool(self.sweep or self.ablations)


R = TypeVar("R", bound=SweptRecipe)


def variants(recipe: R) -> dict[str, R]:
    """Lay each combination, or ablation, over the recipe; without a sweep there is one variant, labelled "".

    Raises:
        RecipeError: if a key is unknown or the whole run's, or a value does not fit or is there twice.
    """
    if not recipe.is_swept:
        return {"": recipe}
    base = {**recipe.model_dump(mode="json"), "sweep": {}, "ablations": {}}
    found: dict[str, R] = {}
    for label, changes in _changes(recipe):
        fields = copy.deepcopy(base)
        for key, value in changes.items():
            if key.split(".")[0] in OF_THE_RUN:
                raise RecipeError(f"sweep: {key} is one for all cells of a run", "make a run of each")
            recipe.put(fields, key, copy.deepcopy(value))
        below(Path(), label, source="sweep: the variant", error=RecipeError)
        if label in found:
            raise RecipeError(f"sweep: {label} is there twice", "leave one out")
        found[label] = validate(type(recipe), fields)
    return found


def _changes(recipe: SweptRecipe) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """List the label of each variant, and the keys in which it differs."""
    if recipe.ablations:
        yield FULL, {}
        yield from recipe.ablations.items()
        return
    for values in itertools.product(*recipe.sweep.values()):
        chosen = dict(zip(recipe.sweep, values, strict=True))
        yield ",".join(_label(key, value) for key, value in chosen.items()), chosen


def of_variant(reference: str | None) -> tuple[str | None, str]:
    """Split `SWEEP:VARIANT`, as a command line names a run; a folder of that name is taken as it is."""
    if reference is None or ":" not in reference or home.located(reference).is_dir():
        return reference, ""
    run, _, variant = reference.rpartition(":")
    return run, variant


def variant_of(known: Mapping[str, R], variant: str, run: str) -> R:
    """Take one variant of a run; all of it where it is no sweep.

    Raises:
        RecipeError: if a sweep has no such variant, or none is named; the hint lists them.
    """
    if variant not in known:
        message = f"{run} has no {variant!r}" if variant else f"{run} is a sweep: name one of its variants"
        listed = " or ".join(f"{run}:{each}" for each in known if each) or f"{run}, which is no sweep"
        raise RecipeError(message, listed)
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
