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
    """Test the interval of top-1 around the mean of all simulations.

    Features have a flat or a steep spectrum, like independent or strongly correlated
    channels. The strength of items is log-normal.
    """
    frequency = np.arange(1, FEATURES + 1)
    pattern = random.normal(size=(items, FEATURES)) * frequency**-slope
    pattern *= sd * np.exp(spread * random.normal(size=(items, 1)))
    noise = random.normal(size=(2, items, FEATURES)) * frequency**-0.5
    halves = torch.from_numpy(pattern + noise).float()
    halves = halves - halves.mean(1, keepdim=True)
    signals, candidates = halves - halves.mean(2, keepdim=True)
    return summarise_ranks(
        [rank_targets(signals, candidates, torch.arange(items))],
        items,
        split="test",
        metric_names=("top1",),
    )
