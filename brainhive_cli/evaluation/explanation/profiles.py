"""Values of items along times, sensors, frequency bands, regions or encoders."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from brainhive_cli.core.base import (
    Array,
    BrainhiveError,
    DamagedStore,
    Float64,
    Int64,
    RecipeError,
    console,
)
from brainhive_cli.core.results import SIGNIFICANCE_LEVEL
from brainhive_cli.data.signals import index_optional
from brainhive_cli.measurement import Items

# kinds of axes
TIME = "ms after onset"
SENSOR = "sensor"
BAND = "band"
REGION = "region"
LEVEL = "encoder"

SECTION = "Explanation"
"""Heading of the explanation in a report."""


@dataclass(frozen=True)
class Axis:
    """P positions at which something was measured.

    Attributes:
        name: Kind of the positions, such as `TIME`.
        at: Positions [P]: names, or times in milliseconds. A window has the time of its
            centre.
        spans: Start and end [P, 2] of each window in milliseconds. None if a position
            is a sample or a name.
    """

    name: str
    at: Sequence[Any]
    spans: Float64 | None = None

    @classmethod
    def from_windows(cls, spans: Float64) -> Self:
        """Build the axis of windows from their starts and ends [P, 2]."""
        centres = spans.mean(1).round(3)
        return cls(TIME, centres.tolist(), spans)

    @property
    def position_names(self) -> list[str]:
        """Name [P] of each position, such as `Oz` or `120 ms`."""
        if self.name == TIME:
            return [f"{time_ms:g} ms" for time_ms in self.at]
        return list(map(str, self.at))

    def get_span_ms(self, index: int) -> tuple[float, float]:
        """Return the start and end of a window, or the time of a sample twice."""
        if self.spans is None:
            return self.at[index], self.at[index]
        start_ms, stop_ms = self.spans[index]
        return float(start_ms), float(stop_ms)

    def describe_position(self, index: int) -> str:
        """Name a position, or the start and end of a window, such as `100–200 ms`."""
        if self.spans is None:
            return self.position_names[index]

        # next to a dash, the minus sign of a time before onset is hard to see
        start_ms, stop_ms = self.get_span_ms(index)
        separator = " to " if start_ms < 0 else "–"
        return f"{start_ms:g}{separator}{stop_ms:g} ms"


@dataclass(frozen=True)
class Profile:
    """Values of a subject's N items at P positions, with controls.

    Attributes:
        metric: Name of the measured quantity.
        axis: Positions.
        values: Values [P, N] of the items.
        null: Means [K, P] over the items for each of K permutations of the labels. None
            if labels were not permuted.
        shuffled: Values [P, N] of a control measured once, with the embeddings of other
            pictures. None if there is no such control.
        chance: Expected value if there is no effect.
        pool: Number of candidates that are ranked for each item. 0 without ranks.
    """

    metric: str
    axis: Axis
    values: Float64
    null: Float64 | None = None
    shuffled: Float64 | None = None
    chance: float = 0.0
    pool: int = 0

    @classmethod
    def from_matrices(
        cls, metric: str, axis: Axis, matrices: Iterable[Float64], labels: "Labels"
    ) -> Self:
        """Make a profile of the values of items for their own and permuted labels.

        `matrices` are the values [N, M] of each item for each candidate, per position.
        """
        values = []
        null = []
        for own_values, permuted_values in labels.look_up(axis, matrices):
            values.append(own_values)
            null.append(permuted_values.mean(1))
        # values [P, N], and null [P, K] before the transposition
        return cls(
            metric, axis, np.array(values, np.float64), np.array(null, np.float64).T
        )

    @classmethod
    def from_ranks(
        cls, axis: Axis, ranks: Iterable[Int64], labels: "Labels", pool: int
    ) -> dict[str, Self]:
        """Compute retrieval metrics from the ranks of all candidates.

        `ranks` are the ranks [N, M] of each of `pool` candidates for each item, per
        position.

        Returns:
            Profiles by metric: top-1 and top-5 accuracy, and two-way identification,
            the share of the other candidates that rank below the label.
        """
        measures: dict[str, tuple[float, Callable[[Int64], Array]]] = {
            "top1": (1 / pool, lambda ranks: ranks <= 1),
            "top5": (min(1, 5 / pool), lambda ranks: ranks <= 5),
            "two_way": (0.5, lambda ranks: 1 - (ranks - 1) / max(1, pool - 1)),
        }

        # the ranks of each position are computed once for all metrics
        label_ranks = list(labels.look_up(axis, ranks))
        profiles = {}
        for metric, (chance, measure) in measures.items():
            values = []
            null = []
            for own_ranks, permuted_ranks in label_ranks:
                values.append(measure(own_ranks))
                null.append(measure(permuted_ranks).mean(1))
            profiles[metric] = cls(
                metric,
                axis,
                values=np.array(values, np.float64),
                null=np.array(null, np.float64).T,
                chance=chance,
                pool=pool,
            )
        return profiles

    def take(self, at: Sequence[Any]) -> Self:
        """Select some of the positions `axis.at`, in the order of `at`."""
        rows = find_rows(self.axis.at, at)
        spans = index_optional(self.axis.spans, rows)
        return replace(
            self,
            axis=replace(self.axis, at=list(at), spans=spans),
            values=self.values[rows],
            null=index_optional(self.null, np.s_[:, rows]),
            shuffled=index_optional(self.shuffled, rows),
        )


@dataclass(frozen=True)
class Labels:
    """Picture that each item of a subject showed, and permutations of these labels.

    All subjects have the same permutations. A chance effect of wrong labels that they
    share stays in their mean, so it must stay in the control.

    Attributes:
        seen_indices: Index [N] of each item's picture among the candidates.
        permuted_indices: Indices [K, N] in K permutations of the labels.
        wrong_indices: Indices [N] in a permutation in which most labels come from
            another unit, such as another concept.
    """

    seen_indices: Int64
    permuted_indices: Int64
    wrong_indices: Int64

    @classmethod
    def draw(cls, seen_indices: Int64, units: Items, draws: int, seed: int) -> Self:
        """Draw permutations of the labels.

        Args:
            seen_indices: Index [N] of each item's picture among the candidates.
            units: Items of each subject, in the order of `seen_indices`.
            draws: Largest number of permutations.
            seed: Seed of the permutations, the same for all subjects and models.
        """
        # wrong labels: the permutation that leaves the fewest labels in their unit
        unit = units.unit_indices[0]
        exchangeable = replace(units, design=None)
        wrong_order = np.arange(len(seen_indices))
        min_unchanged = len(seen_indices)
        # Number of permutations from which the wrong labels of a control are chosen.
        # About a third of the permutations move each label to another unit.
        for order in draw_permutations(exchangeable, 20, seed):
            n_unchanged = int((unit[order] == unit).sum())
            if n_unchanged < min_unchanged:
                min_unchanged = n_unchanged
                wrong_order = order

        permuted_indices = seen_indices[draw_permutations(units, draws, seed)]
        return cls(seen_indices, permuted_indices, seen_indices[wrong_order])

    def look_up(
        self, axis: Axis, matrices: Iterable[Array]
    ) -> Iterator[tuple[Array, Array]]:
        """Look up values for the labels, position by position, to limit memory.

        Yields:
            Values [N] for the labels, and [K, N] for the permuted labels, from values
            [N, M] for each candidate.
        """
        items = np.arange(len(self.seen_indices))
        with console.progress(f"ranking by {axis.name}", len(axis.at)) as bar:
            for matrix in matrices:
                own_values = matrix[items, self.seen_indices]
                yield own_values, matrix[items, self.permuted_indices]
                bar.advance()


def find_rows(names: Sequence[Hashable], selected_names: Iterable[Hashable]) -> Int64:
    """Find the index in `names` of each selected name."""
    row_of = {name: row for row, name in enumerate(names)}
    return np.array([row_of[name] for name in selected_names], np.int64)


def draw_permutations(units: Items, draws: int, seed: int) -> Int64:
    """Draw permutations of n items, which have the same order for all subjects.

    Returns:
        Index [K, n] of the item whose label each item gets. K is less than `draws` if
        there are fewer permutations, and 0 if labels must not be exchanged.
    """
    # `Items` permutes its list of names, whose order may differ from the order of items
    orders = units.draw_permutations(draws, seed)
    rows = find_rows(units.ids[0], units.names)
    item_orders = np.empty_like(orders)
    item_orders[:, rows] = rows[orders]
    return item_orders


def standardise(measured: Float64, null: Float64) -> Float64:
    """Standardise measured values and their control at each position.

    Mean and spread include the measured values. Else these would have larger scores
    than equal values of a permutation.

    Args:
        measured: Measured values [P].
        null: Values [K, P] of K permutations.

    Returns:
        Scores [1 + K, P], the measured values first.
    """
    values = np.concatenate([measured[None], null])

    # the small number gives 0 instead of NaN for a control without spread
    scores = (values - values.mean(0)) / (values.std(0) + 1e-12)
    return np.asarray(scores, np.float64)


def correct_p_values(tests: Sequence[Float64]) -> list[Float64]:
    """Correct the p values of several tests for all their positions.

    The scores of each test are divided by the 95 % quantile of its largest score, so a
    test with a skewed control, such as top-1 accuracy, does not hide the others.

    Args:
        tests: Scores [1 + K, P] of each test, from `standardise`. The tests must share
            the permutations.

    Returns:
        p values [P] of each test: the share of permutations whose largest score over
        all tests is at least as large.

    Source: Westfall and Young 1993 (largest statistic over all positions).
    """
    scaled_tests = []
    maxima = []
    for scores in tests:
        quantile = float(np.quantile(scores.max(1), 1 - SIGNIFICANCE_LEVEL))
        # the quantile is below 1 if the control does not vary
        scaled_scores = scores / max(1.0, quantile)
        scaled_tests.append(scaled_scores)
        maxima.append(scaled_scores[1:].max(1))
    null = np.max(maxima, 0)[:, None]  # [K, 1]
    return [compute_p_values(scores, null) for scores in scaled_tests]


def compute_p_values(scores: Float64, null: Float64) -> Float64:
    """Compute the share of permutations whose score is at least the measured score.

    Args:
        scores: Scores [1 + K, P]. The measured scores come first, and count as a
            permutation.
        null: Scores [K, P or 1] of the permutations.

    Source: Phipson and Smyth 2010.
    """
    # equal scores may differ by rounding
    n_larger = (null >= scores[0] - 1e-12).sum(0)
    return np.asarray((1 + n_larger) / len(scores), np.float64)


Profiles = Profile | dict[str, Profile]
"""Result of an analysis: a profile, or several by metric, `TIME_PART` or `SPACE_PART`.
"""
TIME_PART = "time"
"""Key of the profile over times, if an analysis has two profiles."""
SPACE_PART = "space"
"""Key of the profile over sensors or regions, if an analysis has two profiles."""


@dataclass
class SubjectProfiles:
    """Measurements of a cell and subject, or of a subject's signals.

    Attributes:
        profiles: Profiles by `analysis`, or `analysis:part`. An analysis of an encoder
            has its name, such as `encoding · vae`.
        arrays: Maps and curves without items, by name.
        missing: Reason why an analysis could not be measured, by analysis.
        excluded: Reason why a default analysis does not apply to the recording or the
            model, by analysis.
    """

    profiles: dict[str, Profile] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)

    def attempt(self, analysis: str, measure: Callable[[], Profiles]) -> None:
        """Add the profiles of an analysis, or the reason why it cannot be measured.

        Raises:
            RecipeError: if the recipe is wrong.
            DamagedStore: if a row of a store is damaged.
        """
        try:
            profiles = measure()
        except (RecipeError, DamagedStore):
            # these errors do not describe the signals
            raise
        except BrainhiveError as error:
            self.missing[analysis] = error.in_one_line
            return

        if isinstance(profiles, Profile):
            self.profiles[analysis] = profiles
            return
        for part, profile in profiles.items():
            self.profiles[f"{analysis}:{part}"] = profile
