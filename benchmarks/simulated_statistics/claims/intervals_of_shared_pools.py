"""The interval of top-1 holds where items are each other's candidates."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.hits import ITEMS
from brainhive_cli.measurement.ranks import rank_targets, summarise_ranks

FEATURES = 60
AXES: Mapping[str, Sequence[Any]] = {
    "items": (50, ITEMS),
    "slope": (0.5, 2.0),
    "spread": (0.0, 0.7),
    "sd": (0.4, 0.8, 1.5, 3.0),
}
COLUMNS = "mean top-1 | coverage | width"


def intervals_of_shared_pools(
    random: Random, items: int, slope: float, spread: float, sd: float
) -> Any:
    """The interval of top-1 where the items of a subject are each other's pool, around
    the mean of all.

    Features have a flat or a steep spectrum, as independent and as strongly correlated
    channels have, and items are equally strong or differ (log-normal).
    """
    pattern = (
        random.normal(size=(items, FEATURES)) * np.arange(1, FEATURES + 1) ** -slope
    )
    pattern *= sd * np.exp(spread * random.normal(size=(items, 1)))
    noise = (
        random.normal(size=(2, items, FEATURES)) * np.arange(1, FEATURES + 1) ** -0.5
    )
    halves = torch.from_numpy(pattern + noise).float()
    halves = halves - halves.mean(1, keepdim=True)
    first, second = halves - halves.mean(2, keepdim=True)
    return summarise_ranks(
        [rank_targets(first, second, torch.arange(items))],
        items,
        split="test",
        metric_names=("top1",),
    )
