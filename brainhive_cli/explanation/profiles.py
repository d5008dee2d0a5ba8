"""A course of values over times, sensors, bands, regions or levels, with the control of shuffled labels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.seeds import derive_seed

Values = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Profile:
    """What was measured of one subject at P places.

    Attributes:
        metric: Name of what was measured.
        axis: What the places are.
        at: [P] times in milliseconds, or names.
        values: [P, N] of the items.
        null: [K, P] means over items with labels permuted, K times; K is 0 where that was not measured.
        shuffled: [P, N] of a control that was measured once, as with a model trained on shuffled labels;
            [0, 0] where there is none.
        chance: Value expected without any effect.
        pool: Candidates that each item was compared with, if any.
    """

    metric: str
    axis: str
    at: tuple[Any, ...]
    values: Values
    null: Values
    shuffled: Values
    chance: float = 0.0
    pool: int | None = None

    @classmethod
    def of(
        cls,
        metric: str,
        axis: str,
        at: Sequence[Any],
        matrices: Iterable[Values],
        labels: "Labels",
        chance: float = 0.0,
        pool: int | None = None,
    ) -> Self:
        """Look up the value of each item with its own label, and with those of others.

        Args:
            metric: See the class, as those that follow.
            axis: See the class.
            at: [P].
            matrices: For each place, the values [N, M] of each item with each label.
            labels: Right and permuted ones.
            chance: See the class.
            pool: See the class.
        """
        items, values, null = np.arange(len(labels.right)), [], []
        for matrix in matrices:
            values.append(matrix[items, labels.right])
            null.append(matrix[items, labels.permuted].mean(1))
        places = len(values)
        stacked = np.array(values, np.float64), np.array(null, np.float64).reshape(places, -1).T
        return cls(metric, axis, tuple(at), *stacked, np.empty((0, 0)), chance, pool)

    @classmethod
    def of_ranks(
        cls, axis: str, at: Sequence[Any], ranks: Iterable[Places], labels: "Labels"
    ) -> dict[str, Self]:
        """Describe ranks [N, M] of each candidate by each item, at each place, as shares by name."""
        own, drawn, pool = [], [], 1
        items = np.arange(len(labels.right))
        for found in ranks:
            pool = found.shape[1]
            own.append(found[items, labels.right])
            drawn.append(found[items, labels.permuted])
        chances = {"top1": 1 / pool, "top5": min(1, 5 / pool), "two_way": 0.5}
        profiles = {}
        for metric, chance in chances.items():
            values = np.array([_share(metric, each, pool) for each in own])
            null = np.array([_share(metric, each, pool).mean(1) for each in drawn]).reshape(len(own), -1)
            profiles[metric] = cls(metric, axis, tuple(at), values, null.T, np.empty((0, 0)), chance, pool)
        return profiles

    def with_shuffled(self, shuffled: Values) -> Self:
        """Add a control that was measured once: [P, N]."""
        return replace(self, shuffled=shuffled)

    def as_arrays(self) -> dict[str, NDArray[Any]]:
        """Give plain arrays, for a file."""
        plain = {name: np.array(getattr(self, name)) for name in ("metric", "axis", "at", "chance")}
        plain["pool"] = np.array(0 if self.pool is None else self.pool)
        return {**plain, "values": self.values, "null": self.null, "shuffled": self.shuffled}

    @classmethod
    def from_arrays(cls, found: Mapping[str, NDArray[Any]]) -> Self:
        """Read back `as_arrays`."""
        words = str(found["metric"]), str(found["axis"]), tuple(found["at"].tolist())
        arrays = found["values"], found["null"], found["shuffled"]
        return cls(*words, *arrays, float(found["chance"]), int(found["pool"]) or None)


def _share(metric: str, ranks: Places, pool: int) -> Values:
    """Turn ranks into hits, or into the share of the other candidates that rank below."""
    if metric == "two_way":
        return np.asarray(1 - (ranks - 1) / max(1, pool - 1), np.float64)
    return np.asarray(ranks <= {"top1": 1, "top5": 5}[metric], np.float64)


@dataclass(frozen=True)
class Labels:
    """Which picture each item showed, and permutations of it.

    Attributes:
        right: [N] place among the candidates.
        permuted: [K, N].
    """

    right: Places
    permuted: Places

    @classmethod
    def of(cls, right: Places, draws: int, *seeds: int) -> Self:
        """Permute the labels of the items K times; the same for all models of a subject."""
        random = np.random.default_rng(derive_seed(*seeds))
        drawn = [random.permutation(right) for _ in range(draws)]
        return cls(right, np.array(drawn, np.int64).reshape(draws, len(right)))

    @property
    def wrong(self) -> Places:
        """[N] one permutation, in which items have the labels of others as far as that is possible."""
        return np.roll(self.right, len(self.right) // 2)


@dataclass(frozen=True)
class PermutationTest:
    """A profile over all subjects, against its control.

    Attributes:
        p_values: [P] share of permutations that are at least as large, the measured value among them.
        corrected: [P] the same for the largest over all places: the chance that any is so large.
        null: [K, P] means over subjects.
    """

    p_values: Values
    corrected: Values
    null: Values

    @classmethod
    def of(cls, measured: Values, null: Values) -> Self:
        """Compare what was measured [P] with its control [K, P], each place by its spread in the control.

        Source: Westfall and Young 1993 (largest statistic over all places); Phipson and Smyth 2010 (p).
        """
        spread = null.std(0) + 1e-12
        scaled, drawn = (measured - null.mean(0)) / spread, (null - null.mean(0)) / spread
        count = 1 + len(null)
        alone = (1 + (drawn >= scaled - 1e-12).sum(0)) / count
        largest = (1 + (drawn.max(1)[:, None] >= scaled - 1e-12).sum(0)) / count
        return cls(alone, largest, null)
