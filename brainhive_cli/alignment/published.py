"""How what is run differs from what a paper reports."""

from collections.abc import Sequence
from typing import Any

from brainhive_cli.alignment.recipe import Recipe
from brainhive_cli.alignment.settings import Published


def compared_with_published(
    recipe: Recipe, dataset: str, subjects: Sequence[int], pool: int | None = None
) -> dict[str, Any]:
    """Return what was published, and all in which a run differs; empty if its recipe names nothing.

    Args:
        recipe: The recipe of the run, or of one variant of a sweep.
        dataset: The name that the signals are kept under which were tested.
        subjects: Who was tested.
        pool: Pictures searched; None where none were yet.

    Returns:
        `top1`, `top5` where they are known, `source`, and `differs`: empty if nothing does.
    """
    if recipe.published is None:
        return {}
    numbers = recipe.published.model_dump(include={"top1", "top5", "source"}, exclude_none=True)
    return {**numbers, "differs": _differences(recipe, recipe.published, dataset, subjects, pool)}


def _differences(
    recipe: Recipe, published: Published, dataset: str, subjects: Sequence[int], pool: int | None
) -> list[str]:
    is_unselected = recipe.train.selection == "best" and not recipe.train.validation
    found = {
        "dataset": (dataset, published.dataset),
        "mode": (recipe.mode, published.mode),
        "encoders": (_joined(recipe.encoders), _joined(published.encoders)),
        "epochs": (recipe.train.epochs, published.epochs),
        "selection": ("last" if is_unselected else recipe.train.selection, published.selection),
        "pool": (pool, published.pool),
    }
    differences = [
        _difference(key, *pair) for key, pair in found.items() if key != "pool" or pool is not None
    ]
    differences += [_subjects(subjects, published.subjects), *_knobs(recipe.backbone, published.backbone)]
    return [*filter(None, differences), *(f"without {each}" for each in published.lacking)]


def _joined(encoders: Any) -> str | None:
    return None if encoders is None else "+".join(sorted(config.name for config in encoders))


def _difference(key: str, here: Any, there: Any) -> str:
    """Say how one key differs; empty if it does not."""
    if there is None:
        return f"{key} not stated"
    return "" if here == there else f"{key} {here}, not {there}"


def _subjects(here: Sequence[int], there: Sequence[int] | None) -> str:
    """Say of whom of those tested there something is measured; empty if of all."""
    if there is None or sorted(here) == sorted(there):
        return _difference("subjects", 0, None if there is None else 0)
    named = f"subject{'s' if len(here) > 1 else ''} {', '.join(map(str, here))}"
    is_share = set(here) < set(there)
    return f"{named} of {len(there)}" if is_share else f"{named}, not {', '.join(map(str, there))}"


def _knobs(here: Any, there: Any) -> list[str]:
    """Say how one brain encoder differs from another, by kind or else by its knobs."""
    if there is None or here.kind != there.kind:
        return [_difference("backbone", here.kind, there and there.kind)]
    pairs = ((key, value, getattr(there, key)) for key, value in here)
    return [
        _difference(f"backbone.{key}", ours, published_value)
        for key, ours, published_value in pairs
        if ours != published_value
    ]
