"""Courses over times, sensors, regions or levels: values of items, next to those with
shuffled labels.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Array, Float64, Int64
from brainhive_cli.core.errors import BrainhiveError, DamagedStore, RecipeError
from brainhive_cli.data.signals.trials import index_optional
from brainhive_cli.measurement.units import Items

DRAWS_OF_WRONG_LABELS = 20
"""Permutations of which that with the fewest items left in their unit is chosen: one in
three leaves none.
"""

SIGNIFICANCE_LEVEL = 0.05
"""Level of the tests."""

TIME, SENSOR, BAND, REGION, LEVEL = (
    "ms after onset",
    "sensor",
    "band",
    "region",
    "encoder",
)
"""Kinds of axes."""
SECTION = "Explanation"
"""The heading under which a page shows all of it."""


@dataclass(frozen=True)
class Axis:
    """P positions at which something was measured.

    Attributes:
        name: Kind of the positions.
        at: [P] times in milliseconds, of windows their centres; or names.
        spans: Of windows; None where a position is one sample, or a name.
    """

    name: str
    at: Sequence[Any]
    spans: Float64 | None = None

    @classmethod
    def from_windows(cls, spans: Float64) -> Self:
        """Build the axis of windows, at their centres."""
        return cls(TIME, [float(centre) for centre in spans.mean(1).round(3)], spans)

    @property
    def labels(self) -> list[str]:
        """Positions in words."""
        return [
            f"{position:g} ms" if self.name == TIME else str(position)
            for position in self.at
        ]

    def get_span_ms(self, index: int) -> tuple[float, float]:
        """Give start and end of a time in milliseconds: of a sample, itself."""
        if self.spans is None:
            return self.at[index], self.at[index]
        start, stop = self.spans[index]
        return float(start), float(stop)

    def describe_position(self, index: int) -> str:
        """Name a position in words: of a window, its start and end."""
        if self.spans is None:
            return self.labels[index]

        # a window that begins before onset has a minus sign, which a dash would hide
        start, stop = self.get_span_ms(index)
        return f"{start:g}{' to ' if start < 0 else '–'}{stop:g} ms"


@dataclass(frozen=True)
class Profile:
    """Measurements of one subject at P positions.

    Attributes:
        metric: Name of what was measured.
        axis: The positions.
        values: [P, N] of the items.
        null: [K, P] means over the items, with labels permuted, K times; None where
            that was not measured.
        shuffled: [P, N] of a control that was measured once, with other embeddings;
            None where there is none.
        chance: Value expected without any effect.
        pool: Candidates that each item was compared with; 0 where there are none.
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
        """Look up the value of each item with its own label, and with those of others.

        Args:
            metric: See the class.
            axis: See the class.
            matrices: For each position, the values [N, M] of each item with each label.
            labels: Right and permuted ones.
        """
        values, null = [], []  # [P, N] and, after transposing, [K, P]
        for seen, permuted in labels.look_up(axis, matrices):
            values.append(seen)
            null.append(permuted.mean(1))
        return cls(
            metric, axis, np.array(values, np.float64), np.array(null, np.float64).T
        )

    @classmethod
    def from_ranks(
        cls, axis: Axis, ranks: Iterable[Int64], labels: "Labels", pool: int
    ) -> dict[str, Self]:
        """Describe ranks [N, M] of each candidate by each item, at each position, as
        shares by name.
        """
        # hits, and the share of the other candidates that rank below
        measures: dict[str, tuple[float, Callable[[Int64], Array]]] = {
            "top1": (1 / pool, lambda ranks: ranks <= 1),
            "top5": (min(1, 5 / pool), lambda ranks: ranks <= 5),
            "two_way": (0.5, lambda ranks: 1 - (ranks - 1) / max(1, pool - 1)),
        }

        # ranks of each position are looked up once for all metrics
        looked_up = [*labels.look_up(axis, ranks)]
        profiles = {}
        for metric, (chance, share) in measures.items():
            values = np.array([share(seen) for seen, _ in looked_up], np.float64)
            null = np.array(
                [share(permuted).mean(1) for _, permuted in looked_up], np.float64
            )
            profiles[metric] = cls(metric, axis, values, null.T, None, chance, pool)
        return profiles

    def take(self, at: Sequence[Any]) -> Self:
        """Select positions, in this order."""
        # positions are rows of the values, and columns of the control
        rows = find_rows(self.axis.at, at)
        return replace(
            self,
            axis=replace(
                self.axis, at=list(at), spans=index_optional(self.axis.spans, rows)
            ),
            values=self.values[rows],
            null=index_optional(self.null, np.s_[:, rows]),
            shuffled=index_optional(self.shuffled, rows),
        )


@dataclass(frozen=True)
class Labels:
    """Picture that each item of a subject showed, and permutations of the pictures,
    alike for all subjects.

    Where all subjects share wrong labels, these fit all of them by the same chance:
    labels that are permuted subject by subject would average it out of the control, and
    not out of what was measured.

    Attributes:
        right: [N] index among the candidates.
        permuted: [K, N] indices of the pictures whose labels these get.
        wrong: [N] indices of pictures of other units, as far as there are, in one
            permutation.
    """

    seen_indices: Int64
    permuted_indices: Int64
    wrong_indices: Int64

    @classmethod
    def draw(cls, right: Int64, units: Items, draws: int, seed: int) -> Self:
        """Permute the labels of pictures that are exchangeable, K times at most.

        Args:
            right: [N].
            units: The pictures, in this order for each subject, and which are alike.
            draws: K.
            seed: The same for all subjects and models.
        """
        # wrong labels: the permutation that leaves the fewest pictures in their unit
        unit = units.unit_indices[0]
        exchangeable = replace(units, problem="")
        exchanges = [
            np.arange(len(right)),
            *draw_permutations(exchangeable, DRAWS_OF_WRONG_LABELS, seed),
        ]
        wrong = right[min(exchanges, key=lambda order: (unit[order] == unit).sum())]
        return cls(right, right[draw_permutations(units, draws, seed)], wrong)

    def look_up(
        self, axis: Axis, matrices: Iterable[Array]
    ) -> Iterator[tuple[Array, Array]]:
        """Look up each position's [N, M] by the right labels [N], and by the permuted
        ones [K, N].
        """
        # matrices come one by one: all at once would not fit in memory
        items = np.arange(len(self.seen_indices))
        with console.progress(f"ranking by {axis.name}", len(axis.at)) as bar:
            for matrix in matrices:
                yield (
                    matrix[items, self.seen_indices],
                    matrix[items, self.permuted_indices],
                )
                bar.advance()


def find_rows(names: Sequence[Hashable], wanted: Iterable[Hashable]) -> Int64:
    """Find the row of each wanted name among all names."""
    row_of = {name: row for row, name in enumerate(names)}
    return np.array([row_of[name] for name in wanted], np.int64)


def draw_permutations(units: Items, draws: int, seed: int) -> Int64:
    """Permute the labels of n items, the same for each subject: [K, n] the item whose
    label each gets.

    K is `draws`, or fewer where no more permutations leave exchangeable items together:
    see `Items`.
    """
    # orders are of the units' names, whose order may differ from that of the items
    orders = units.draw_permutations(draws, seed)
    rows = find_rows(units.ids[0], units.names)
    permuted = np.empty_like(orders)
    permuted[:, rows] = rows[orders]
    return permuted


def standardise(measured: Float64, null: Float64) -> Float64:
    """Centre what was measured [P] and its control [K, P], and divide them by their
    spread: [1 + K, P].

    Mean and spread are those of both together: by those of the control alone what was
    measured, which has no part in them, would lie further out than a permutation does.
    """
    together = np.concatenate([measured[None], null])

    # a control without any spread gives 0, not NaN
    return np.asarray(
        (together - together.mean(0)) / (together.std(0) + 1e-12), np.float64
    )


def correct_p_values(tests: Sequence[Float64]) -> list[Float64]:
    """Correct p over all positions of several tests, whose permutations k are of the
    same labels.

    The scores of each test are divided by the height that its largest one reaches in
    one of twenty permutations, so that a test with a skewed control, as one of top-1,
    does not hide the others.

    Args:
        tests: Scores [1 + K, P] of each, as `standardise`.

    Returns:
        [P] of each: the share of permutations whose largest score, over all positions
        of all tests, is as large.

    Source: Westfall and Young 1993 (largest statistic over all positions).
    """
    # a height below 1 is that of a control which does not vary
    heights = [
        max(1.0, float(np.quantile(scores.max(1), 1 - SIGNIFICANCE_LEVEL)))
        for scores in tests
    ]
    scaled = [scores / height for scores, height in zip(tests, heights, strict=True)]
    largest = np.max([scores[1:].max(1) for scores in scaled], 0)[:, None]  # [K, 1]
    return [compute_p_values(scores, largest) for scores in scaled]


def compute_p_values(scores: Float64, drawn: Float64) -> Float64:
    """Return the share of permutations [K, P or 1] that are as large as measured
    scores, these among them.

    Source: Phipson and Smyth 2010.
    """
    # equal scores may differ by rounding
    return np.asarray(
        (1 + (drawn >= scores[0] - 1e-12).sum(0)) / len(scores), np.float64
    )


Profiles = Profile | dict[str, Profile]
"""Result of an analysis: one profile, or several by part."""
TIME_PART, SPACE_PART = "time", "space"
"""Parts of an analysis that has one profile over times, and one over sensors or
regions.
"""


@dataclass
class SubjectProfiles:
    """Measurements of one cell and subject, or of one subject's signals.

    Attributes:
        profiles: By `analysis`, or `analysis:part`; an analysis may be of one level, as
            `encoding · vae`.
        arrays: Maps and curves without items, by name.
        missing: Reasons, by analysis.
    """

    profiles: dict[str, Profile] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def attempt(self, analysis: str, measure: Callable[[], Profiles]) -> None:
        """Add the profiles of an analysis, by their parts; or the reason why there are
        none.

        Raises:
            RecipeError: as any: what the recipe has wrong is no property of the
                signals.
            DamagedStore: if a row of a store is not that which was written.
        """
        try:
            profiles = measure()
        except (RecipeError, DamagedStore):
            raise
        except BrainhiveError as error:
            self.missing[analysis] = error.in_one_line
            return

        # parts are told apart by a colon in their key
        if isinstance(profiles, Profile):
            self.profiles[analysis] = profiles
        else:
            self.profiles |= {
                f"{analysis}:{part}": profile for part, profile in profiles.items()
            }
