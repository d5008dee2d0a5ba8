"""Variants of a swept recipe, and their collected results.

A sweep compares all combinations of several values. Ablations compare the recipe with
named changes of it. Each combination or change is a variant.
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
from brainhive_cli.core.key_types import split_commas
from brainhive_cli.core.measurements import Measurements, merge_caveats, scope
from brainhive_cli.core.recipe import Recipe, validate
from brainhive_cli.core.runs import RunFolder

SHARED_SECTIONS = ("dataset", "paths", "run", "published", "sweep", "ablations")
"""Sections that are the same for all variants of a run."""
MAX_VARIANTS = 1000
"""Largest number of variants of a run, each of which is trained separately."""
FULL_VARIANT = "full"
"""Label of the variant without changes, which ablations are compared with."""


def read_sweep(value: Any) -> Any:
    """Flatten the sections of a sweep to dotted keys, and split texts at commas.

    For example, `{train: {lr: "1e-3,1e-4"}}` becomes `{train.lr: [1e-3, 1e-4]}`.
    """
    if not isinstance(value, Mapping):
        return value
    # an empty section sets no key
    flat_values = flatten(value).items()
    return {key: split_commas(values) for key, values in flat_values if values != {}}


def flatten_changes(fields: Any) -> Any:
    """Flatten the sections of an ablation to dotted keys.

    For example, `{generator: {text_share: 0}}` becomes `{generator.text_share: 0}`.
    """
    return flatten(fields) if isinstance(fields, Mapping) else fields


SweptValues = Annotated[list[Any], Field(min_length=1)]
"""Values of a key that a sweep compares."""
Changes = Annotated[
    dict[str, Any], BeforeValidator(flatten_changes), Field(min_length=1)
]
"""Changed values of an ablation by dotted recipe key."""


class SweptRecipe(Recipe):
    """Base class of recipes that may have several variants."""

    sweep: Annotated[dict[str, SweptValues], BeforeValidator(read_sweep)] = Field(
        {},
        description=(
            "values to compare, by dotted recipe key; every combination is a variant"
        ),
    )
    ablations: dict[str, Changes] = Field(
        {},
        max_length=MAX_VARIANTS,
        description=(
            "changed values by dotted recipe key, for each named variant; the variant "
            f"`{FULL_VARIANT}` is the recipe without changes"
        ),
    )

    @model_validator(mode="after")
    def _check_variants(self) -> Self:
        """Raise an error for too many variants, or for both sweep and ablations."""
        if self.sweep and self.ablations:
            raise RecipeError(
                "the recipe has both sweep and ablations", "make a run of each"
            )
        # the combinations themselves may be too many for the memory
        n_combinations = prod(map(len, self.sweep.values()))
        if n_combinations > MAX_VARIANTS:
            raise RecipeError(
                f"sweep has {n_combinations:,} combinations, and a run takes at most "
                f"{MAX_VARIANTS:,}",
                "remove values from the sweep, or split it into several runs",
            )
        return self

    @property
    def is_swept(self) -> bool:
        """True if the recipe has a sweep or ablations."""
        return bool(self.sweep or self.ablations)


R = TypeVar("R", bound=SweptRecipe)


def make_variants(recipe: R) -> dict[str, R]:
    """Make the recipe of each variant.

    Args:
        recipe: Recipe, with or without a sweep or ablations.

    Returns:
        Recipes by the label of the variant. A recipe without sweep and ablations is
        returned itself, with the label "".

    Raises:
        RecipeError: if a key is unknown or belongs to `SHARED_SECTIONS`, a value is
            invalid, or two variants have the same label.
    """
    if not recipe.is_swept:
        return {"": recipe}

    changes_by_label: list[tuple[str, Mapping[str, Any]]] = []
    if recipe.ablations:
        changes_by_label.append((FULL_VARIANT, {}))
        changes_by_label += recipe.ablations.items()
    else:
        for values in itertools.product(*recipe.sweep.values()):
            combination = dict(zip(recipe.sweep, values, strict=True))
            texts = [_write_label(key, value) for key, value in combination.items()]
            changes_by_label.append((",".join(texts), combination))

    # apply the changes to the recipe without its sweep
    base = {**recipe.model_dump(mode="json"), "sweep": {}, "ablations": {}}
    recipes = {}
    for label, changes in changes_by_label:
        fields = copy.deepcopy(base)
        for key, value in changes.items():
            if key.split(".")[0] in SHARED_SECTIONS:
                raise RecipeError(
                    f"sweep: {key} must be the same for all variants of a run",
                    "make a run for each value",
                )
            recipe.set_key(fields, key, copy.deepcopy(value))

        # the label names a folder, so it must be a valid name and unique
        resolve_below(Path(), label, source="sweep: the variant", error=RecipeError)
        if label in recipes:
            raise RecipeError(
                f"sweep: two variants are called {label}", "leave one of them out"
            )
        recipes[label] = validate(type(recipe), fields)
    return recipes


def select_variant(recipes: Mapping[str, R], variant: str, run: str) -> R:
    """Return the recipe of one variant of a run.

    Args:
        recipes: Recipes by the label of the variant, from `make_variants`.
        variant: Label of the variant. Empty for a run that is not a sweep.
        run: Name of the run, for the error message.

    Raises:
        RecipeError: if the run has no such variant, with a hint that
            lists the variants.
    """
    if variant in recipes:
        return recipes[variant]
    message = f"{run} is a sweep: name one of its variants"
    if variant:
        message = f"{run} has no variant {variant!r}"
    references = [f"{run}:{label}" for label in recipes if label]
    hint = " or ".join(references) or f"{run} (this run is not a sweep)"
    raise RecipeError(message, hint)


def collect_variants(results: Mapping[str, Result]) -> Measurements:
    """Collect the results of all variants in a single object, without averaging them.

    Args:
        results: Result of each variant, keyed by the label of the variant.

    Returns:
        Metrics of all variants, keyed by variant and group of subjects. Other values,
        such as caveats, are merged.
    """
    scopes = {}
    missing: dict[str, str] = {}
    for label, result in results.items():
        for name, metrics in result.metrics.scopes.items():
            scopes[scope(label, name)] = metrics
        missing |= result.metrics.missing

    # collect the facts of each variant
    variants = {}
    for label, result in results.items():
        facts = result.metrics.facts
        variants[label] = Variant(
            run=result.folder.name, validation=facts.validation, sources=facts.sources
        )

    # merge the other facts of the variants
    all_facts = [result.metrics.facts for result in results.values()]
    caveat_lists = [facts.caveats for facts in all_facts]
    claim_limits = [facts.scope for facts in all_facts if facts.scope]
    facts_class = type(all_facts[0])
    shared_facts = facts_class(
        caveats=merge_caveats(*caveat_lists),
        scope=", ".join(dict.fromkeys(claim_limits)),
        set_up=merge_set_ups([facts.set_up for facts in all_facts]),
        variants=variants,
    )
    return Measurements(scopes, missing, shared_facts)


def read_sweep_run(folder: RunFolder) -> Measurements:
    """Read the results of a sweep, and warn if variants were not compared."""
    measurements = folder.measurements()
    for reason in measurements.facts.not_compared:
        console.warn(f"not compared: {reason}")
    return measurements


def _write_label(key: str, value: Any) -> str:
    """Write the label of a swept value, which becomes part of the name of a folder.

    A word is its own label, such as `nice`. Other values have the key too,
    as in `lr=0.1`.

    Args:
        key: Dotted recipe key. The label contains only its last step.
        value: Value of the key.
    """
    text = _write_text(value)
    is_word = re.match(r"[A-Za-z]", text) and not isinstance(value, bool | None)
    return text if is_word else f"{key.split('.')[-1]}={text}"


def _write_text(value: Any) -> str:
    """Write a value as a text that the name of a folder may contain."""
    # write the kind of a part first, then its settings
    if isinstance(value, Mapping):
        texts = [_write_text(value["kind"])] if "kind" in value else []
        for key, setting in value.items():
            if key != "kind":
                texts.append(f"{key}={_write_text(setting)}")
        return ",".join(texts)
    if isinstance(value, list | tuple):
        return "+".join(map(_write_text, value))
    if isinstance(value, bool | None):
        return str(value).lower()
    return re.sub(r"[^\w.+-]+", "-", str(value)).strip("-.") or "none"
