"""How a run differs from what a paper reports."""

from collections.abc import Mapping, Sequence
from typing import Any

from brainhive_cli.core.caveats import SIMULATED
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.set_up import SetUp, differences, flatten
from brainhive_cli.core.sweep import variants
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.stores.recordings import Recording
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.set_ups import describe_recipe, describe_signals, select
from brainhive_cli.training.alignment.settings import Published

STATED = ("dataset", "mode", "encoders", "epochs", "selection", "pool", "rate_hz", "repetitions", "unit")
"""Keys of `published` that have the same name in a set-up."""


def compared_with_published(
    published: Published | None,
    here: SetUp,
    dataset: Dataset,
    recordings: Mapping[int, Recording],
    caveats: Sequence[str],
    pool: int | None = None,
) -> dict[str, Any]:
    """Return what was published, and all in which a run differs; empty if its recipe names nothing.

    Args:
        published: What the recipe says of it.
        here: The set-up of the run, or of one variant of a sweep.
        dataset: Whose signals it is tested on.
        recordings: These signals, by subject.
        caveats: Of these signals.
        pool: Number of candidates of retrieval; None before an evaluation.
    """
    if published is None:
        return {}
    stated, not_stated = _stated(published)
    if pool is None:
        stated.pop("pool", None)
        not_stated = [key for key in not_stated if key != "pool"]
    else:
        here = {**here, "pool": pool}
    # what a store does not say of its preparation, as one of files that others prepared, cannot be compared
    steps = {key for key in {*here} ^ {*stated} if key.startswith("preparation.")}
    here, stated = ({key: one[key] for key in one if key not in steps} for one in (here, stated))
    # signals of one sample have no rate
    said = [f"{key} not stated" for key in not_stated if key != "rate_hz" or key in here or not recordings]
    said += [] if recordings else ["signals of the test not known"]
    bases: list[SetUp] = [{}]
    if published.recipe is None:
        said.append("all other settings not stated")
    else:
        try:
            bases = _of_recipe(published.recipe, dataset, recordings)
        except BrainhiveError as error:
            said.append(f"{published.recipe}: {error.message}")
    by_base = [differences(here, _overridden(base, stated)) for base in bases]
    listed = [
        *said,
        *min(by_base, key=len),  # of a sweep, by its nearest variant
        _difference_of_subjects(here["subjects"], published.subjects),
        *(caveat for caveat in caveats if not (caveat == SIMULATED and dataset.is_simulated)),
        *(f"without {part}" for part in published.lacking),
    ]
    numbers = published.model_dump(include={"top1", "top5", "source"}, exclude_none=True)
    return {**numbers, "differs": [*filter(None, listed)]}


def _stated(published: Published) -> tuple[dict[str, Any], list[str]]:
    """Give what is stated of the set-up, and the keys of which neither it nor its recipe says anything."""
    fields = published.model_dump(mode="json", include={*STATED, "backbone"}, exclude_none=True)
    if published.encoders is not None:
        fields["encoders"] = sorted(config.name for config in published.encoders)
    if published.repetitions is not None:
        fields["repetitions"] = [published.repetitions] * 2
    of_recipe = () if published.recipe is None else ("dataset", "mode", "encoders", "epochs", "selection")
    required = (*STATED, *(["backbone"] if published.recipe is None else []))
    not_stated = [key for key in required if key not in fields and key not in of_recipe]
    return flatten(fields) | flatten(published.preparation, "preparation"), not_stated


def _of_recipe(name: str, dataset: Dataset, recordings: Mapping[int, Recording]) -> list[SetUp]:
    """Describe the set-up that a paper's recipe would have on these recordings, variant by variant.

    Raises:
        BrainhiveError: if there is no such recipe, or the recordings lack its channels or window.
    """
    recipe = Recipe.resolve("train-align", name, {}, ())
    set_ups: list[SetUp] = []
    for variant in variants(recipe).values():
        signals = describe_signals(select(dataset, variant.signal, recordings))
        name = variant.dataset.build(variant.paths).recorded_as
        set_up: dict[str, Any] = {"dataset": name, **describe_recipe(variant)}
        set_up |= {key: signals[key] for key in ("channels", "window_ms") if key in signals}
        set_ups.append(set_up)
    return set_ups


def _overridden(base: SetUp, stated: SetUp) -> dict[str, Any]:
    """Lay what is stated over the set-up of a recipe; a backbone replaces the other one's knobs."""
    is_replaced = "backbone.kind" in stated
    settings = {
        key: value for key, value in base.items() if not (is_replaced and key.startswith("backbone."))
    }
    return {**settings, **stated}


def _difference_of_subjects(here: Sequence[int], there: Sequence[int] | None) -> str:
    if there is None:
        return "subjects not stated"
    if sorted(here) == sorted(there):
        return ""
    named = f"subject{'s' if len(here) > 1 else ''} {', '.join(map(str, here))}"
    return (
        f"{named} of {len(there)}" if set(here) < set(there) else f"{named}, not {', '.join(map(str, there))}"
    )
