"""Intervals of bounded metrics hold with few items."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.judging import rank_all
from brainhive_cli.measurement.statistics import measure

AXES: Mapping[str, Sequence[Any]] = {
    "items": (6, 8, 9, 10, 15, 40),
    "strength": (0.0, 0.3, 0.6, 1.0),
    "metric": ("two-way", "MRR", "top-1"),
}
COLUMNS = "mean | coverage | width"


def small_and_bounded(random: Random, items: int, strength: float, metric: str) -> Any:
    """Test the interval of a single subject around the mean of all simulations.

    Items are each other's candidates. Ranks are guesses at strength 0, and nearly all
    right at 1.
    """
    features = random.normal(size=(items, 20))
    signals = strength * features + random.normal(size=(items, 20))
    ranks = rank_all(signals, features).diagonal()
    values = {
        "two-way": 1 - (ranks - 1) / (items - 1),
        "MRR": 1 / ranks,
        "top-1": (ranks == 1) * 1.0,
    }[metric]
    options: Any = {"protocol": "simulated", "split": "test", "limits": (0.0, 1.0)}
    return [measure(metric, [values], **options)]
