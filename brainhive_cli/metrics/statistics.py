"""A metric with all that it must travel with, and its bootstrap confidence interval."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.errors import BrainhiveError

Values = NDArray[np.floating[Any]]
Statistic = Callable[..., Any]
"""Reduces values along `axis`, as numpy's mean and median do."""

DRAWS = 2000
"""Resamples of an interval: the ends of a 95 % interval then vary by about 2 % of its width."""
BLOCK = 2**22
"""Values that are resampled at once, to bound memory."""


@dataclass(frozen=True)
class Metric:
    """A value and its circumstances.

    Args:
        name: What was measured.
        value: The measurement.
        n: Items that it was measured on, over all subjects and seeds.
        pool: Candidates that each item was compared with; None if there are none.
        chance: Value expected of guessing; None if the metric has none.
        low: Lower end of the confidence interval.
        high: Upper end of the confidence interval.
        seeds: Seeds of the trainings that were measured.
        protocol: Name of the way it was measured.
        split: Part of the data set that it was measured on.
    """

    name: str
    value: float
    n: int
    pool: int | None
    chance: float | None
    low: float
    high: float
    seeds: tuple[int, ...]
    protocol: str
    split: str

    def as_dict(self) -> dict[str, Any]:
        """Give the fields as plain values, for JSON."""
        return {**asdict(self), "seeds": list(self.seeds)}


def measure(
    name: str,
    groups: Sequence[Values],
    *,
    protocol: str,
    split: str,
    statistic: Statistic = np.mean,
    pool: int | None = None,
    chance: float | None = None,
    seeds: Sequence[int] = (),
) -> Metric:
    """Make a metric of items' values: the mean over subjects of their statistic, with a 95 % interval.

    Args:
        name: What was measured.
        groups: Values of the items [N], one array a subject.
        protocol: Name of the way it was measured.
        split: Part of the data set that it was measured on.
        statistic: How a group's values become one.
        pool: Candidates that each item was compared with.
        chance: Value expected of guessing.
        seeds: Seeds of the trainings that were measured.

    Raises:
        BrainhiveError: if there is no value, or one is not a number.
    """
    low, high = interval(groups, statistic=statistic)
    value = float(np.mean([statistic(group, axis=-1) for group in groups]))
    n = sum(len(group) for group in groups)
    return Metric(name, value, n, pool, chance, low, high, tuple(seeds), protocol, split)


def interval(
    groups: Sequence[Values],
    *,
    statistic: Statistic = np.mean,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap a percentile interval, over items and, if there are several groups, over groups too.

    Each draw takes as many groups as there are, with replacement, and for each of them as many of its items
    as it has, with replacement; the statistics are averaged over the groups drawn.

    Args:
        groups: Values of the items [N], one array a subject.
        statistic: How a group's values become one.
        level: Share of the draws that lie in the interval.
        draws: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        Both ends of the interval.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapters 8 and 13.
    """
    _check(groups)
    random = np.random.default_rng(seed)
    drawn = random.integers(len(groups), size=(draws, len(groups)))  # [draws, subjects]
    statistics = np.empty(drawn.shape)
    for index, group in enumerate(groups):
        places = drawn == index
        blocks = list(_resampled(group, int(places.sum()), statistic, random))
        statistics[places] = np.concatenate(blocks) if blocks else []
    tail = 50 * (1 - level)
    low, high = np.percentile(statistics.mean(1), [tail, 100 - tail])
    return float(low), float(high)


def _resampled(
    values: Values, count: int, statistic: Statistic, random: np.random.Generator
) -> Iterator[Values]:
    rows = max(1, BLOCK // len(values))
    for start in range(0, count, rows):
        index = random.integers(len(values), size=(min(rows, count - start), len(values)))
        yield statistic(values[index], axis=-1)


def _check(groups: Sequence[Values]) -> None:
    if not groups or any(np.ndim(group) != 1 or len(group) == 0 for group in groups):
        raise BrainhiveError(
            "nothing to measure: a subject has no items", "check the split that is evaluated"
        )
    if not all(np.isfinite(group).all() for group in groups):
        raise BrainhiveError(
            "a value to be measured is not a finite number", "look for NaN in the model's output"
        )
