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
    """Few items: coverage of the mean of all simulations, and width, of one subject.

    Items are each other's candidates: guesses at strength 0, nearly all found at 1.
    """
    features = random.normal(size=(items, 20))
    own = rank_all(
        strength * features + random.normal(size=(items, 20)), features
    ).diagonal()
    values = {
        "two-way": 1 - (own - 1) / (items - 1),
        "MRR": 1 / own,
        "top-1": (own == 1) * 1.0,
    }[metric]
    how: Any = {"protocol": "simulated", "split": "test", "limits": (0.0, 1.0)}
    return [measure(metric, [values], **how)]
