"""How a run differs from what a paper reports."""

from collections.abc import Sequence
from typing import Any

from brainhive_cli.alignment.recipe import Recipe


def compared_with_published(
    recipe: Recipe, dataset: str, subjects: Sequence[int], pool: int | None = None
) -> dict[str, Any]:
    """Return what was published, and all in which a run differs; empty if its recipe names nothing.

    Args:
        recipe: The recipe of the run, or of one variant of a sweep.
        dataset: The name that the tested signals are kept under.
        subjects: Those tested.
        pool: Number of candidates of retrieval; None before an evaluation.
    """
    published, train = recipe.published, recipe.train
    if published is None:
        return {}
    is_unselected = train.selection == "best" and not train.validation
    pairs = {
        "dataset": (dataset, published.dataset),
        "mode": (recipe.mode, published.mode),
        "encoders": (_joined(recipe.encoders), _joined(published.encoders)),
        "epochs": (train.epochs, published.epochs),
        "selection": ("last" if is_unselected else train.selection, published.selection),
        **({} if pool is None else {"pool": (pool, published.pool)}),
    }
    found = [
        *(_difference(key, *pair) for key, pair in pairs.items()),
        _difference_of_subjects(subjects, published.subjects),
        *_differences_of_backbone(recipe.backbone, published.backbone),
        *(f"without {each}" for each in published.lacking),
    ]
    numbers = published.model_dump(include={"top1", "top5", "source"}, exclude_none=True)
    return {**numbers, "differs": [*filter(None, found)]}


def _joined(encoders: Any) -> str | None:
    return None if encoders is None else "+".join(sorted(config.name for config in encoders))


def _difference(key: str, here: Any, there: Any) -> str:
    if there is None:
        return f"{key} not stated"
    return "" if here == there else f"{key} {here}, not {there}"


def _difference_of_subjects(here: Sequence[int], there: Sequence[int] | None) -> str:
    if there is None:
        return "subjects not stated"
    if sorted(here) == sorted(there):
        return ""
    named = f"subject{'s' if len(here) > 1 else ''} {', '.join(map(str, here))}"
    return (
        f"{named} of {len(there)}" if set(here) < set(there) else f"{named}, not {', '.join(map(str, there))}"
    )


def _differences_of_backbone(here: Any, there: Any) -> list[str]:
    """Compare brain encoders by kind, or else key by key."""
    if there is None or here.kind != there.kind:
        return [_difference("backbone", here.kind, there and there.kind)]
    pairs = ((key, value, getattr(there, key)) for key, value in here)
    return [_difference(f"backbone.{key}", *pair) for key, *pair in pairs if pair[0] != pair[1]]
