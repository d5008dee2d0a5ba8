"""Courses over times, sensors, regions or levels: values of items, next to shuffled labels, and claims."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Self

import numpy as np

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Array, Float64, Int64
from brainhive_cli.core.errors import BrainhiveError, DamagedStore, RecipeError
from brainhive_cli.core.facts import Claim
from brainhive_cli.core.measurements import Metric, scope
from brainhive_cli.data.trials import Trials, take
from brainhive_cli.measurement.statistics import measure_each
from brainhive_cli.measurement.units import Items, fold_null_inflation

EXCHANGES = 20
"""Permutations of which that with the fewest items left in their unit is chosen: one in three leaves none."""

SIGNIFICANT = 0.05
"""Level of the tests."""

TIME, SENSOR, BAND, REGION, LEVEL = "ms after onset", "sensor", "band", "region", "encoder"
"""Kinds of axes."""
SHUFFLED, TRAINED = "shuffled labels", "trained on shuffled labels"
"""Last part of the scope of a control: labels permuted; a model, or a level, of shuffled labels."""
SECTION = "Explanation"
"""The heading under which a page shows all of it."""
LIMITS = {"r": (-1.0, 1.0), "rho": (-1.0, 1.0), "unique_rho": (-1.0, 1.0), "unique_r": (-2.0, 2.0)}
"""Least and largest value of correlations; shares lie between 0 and 1, and margins anywhere."""
TIMES = 64
"""Times of a course whose metrics are listed; its artifact has all."""
FIRST_ABOVE = "first above chance"
"""Name, in tables and figures, of the first time that is above chance."""
AHEAD = " (the filter may look ahead)"
"""Behind that time where an effect may show before it begins."""
MAX_EDGE = 0.49
"""Share of the rate from which an upper edge is no filter's: files name half the rate where there is none."""
ENDS = (2.5, 97.5)
"""Percentiles between which the middle 95 % of the control lie."""
Scopes = dict[str, dict[str, Metric]]
"""Metrics by scope and name."""


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
    def of_windows(cls, spans: Float64) -> Self:
        """Build the axis of windows, at their centres."""
        return cls(TIME, [float(centre) for centre in spans.mean(1).round(3)], spans)

    @property
    def kind(self) -> Any:
        """Kind of the positions in one word."""
        return "time" if self.name == TIME else self.name

    @property
    def labels(self) -> list[str]:
        """Positions in words."""
        return [f"{position:g} ms" if self.name == TIME else str(position) for position in self.at]

    def where(self, index: int) -> str:
        """Name a position in words: of a window, its start and end."""
        if self.spans is None:
            return self.labels[index]

        # a window that begins before onset has a minus sign, which a dash would hide
        start, stop = self.spans[index]
        return f"{start:g}{' to ' if start < 0 else '–'}{stop:g} ms"


@dataclass(frozen=True)
class Profile:
    """Measurements of one subject at P positions.

    Attributes:
        metric: Name of what was measured.
        axis: The positions.
        values: [P, N] of the items.
        null: [K, P] means over the items, with labels permuted, K times; None where that was not measured.
        shuffled: [P, N] of a control that was measured once, as with a model trained on shuffled labels;
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
    def of(cls, metric: str, axis: Axis, matrices: Iterable[Float64], labels: "Labels") -> Self:
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
        return cls(metric, axis, np.array(values, np.float64), np.array(null, np.float64).T)

    @classmethod
    def of_ranks(cls, axis: Axis, ranks: Iterable[Int64], labels: "Labels", pool: int) -> dict[str, Self]:
        """Describe ranks [N, M] of each candidate by each item, at each position, as shares by name."""
        # hits, and the share of the other candidates that rank below
        measures: dict[str, tuple[float, Callable[[Int64], Array]]] = {
            "top1": (1 / pool, lambda ranks: ranks <= 1),
            "top5": (min(1, 5 / pool), lambda ranks: ranks <= 5),
            "two_way": (0.5, lambda ranks: 1 - (ranks - 1) / max(1, pool - 1)),
        }

        # ranks of each position are looked up once for all metrics
        looked_up, profiles = [*labels.look_up(axis, ranks)], {}
        for metric, (chance, share) in measures.items():
            values = np.array([share(seen) for seen, _ in looked_up], np.float64)
            null = np.array([share(permuted).mean(1) for _, permuted in looked_up], np.float64)
            profiles[metric] = cls(metric, axis, values, null.T, None, chance, pool)
        return profiles

    def take(self, at: Sequence[Any]) -> Self:
        """Select positions, in this order."""
        # positions are rows of the values, and columns of the control
        rows = locate(self.axis.at, at)
        return replace(
            self,
            axis=replace(self.axis, at=list(at), spans=take(self.axis.spans, rows)),
            values=self.values[rows],
            null=take(self.null, np.s_[:, rows]),
            shuffled=take(self.shuffled, rows),
        )


@dataclass(frozen=True)
class Labels:
    """Picture that each item of a subject showed, and permutations of the pictures, alike for all subjects.

    Where all subjects share wrong labels, these fit all of them by the same chance: labels that are permuted
    subject by subject would average it out of the control, and not out of what was measured.

    Attributes:
        right: [N] index among the candidates.
        permuted: [K, N] indices of the pictures whose labels these get.
        wrong: [N] indices of pictures of other units, as far as there are, in one permutation.
    """

    right: Int64
    permuted: Int64
    wrong: Int64

    @classmethod
    def of(cls, right: Int64, units: Items, draws: int, seed: int) -> Self:
        """Permute the labels of pictures that are exchangeable, K times at most.

        Args:
            right: [N].
            units: The pictures, in this order for each subject, and which are alike.
            draws: K.
            seed: The same for all subjects and models.
        """
        # wrong labels: the permutation that leaves the fewest pictures in their unit
        unit = units.numbers[0]
        exchanges = [np.arange(len(right)), *permutations(units, EXCHANGES, seed)]
        wrong = right[min(exchanges, key=lambda order: (unit[order] == unit).sum())]
        return cls(right, right[permutations(units, draws, seed)], wrong)

    def look_up(self, axis: Axis, matrices: Iterable[Array]) -> Iterator[tuple[Array, Array]]:
        """Look up each position's [N, M] by the right labels [N], and by the permuted ones [K, N]."""
        # matrices come one by one: all at once would not fit in memory
        items = np.arange(len(self.right))
        with console.progress(f"ranking by {axis.name}", len(axis.at)) as bar:
            for matrix in matrices:
                yield matrix[items, self.right], matrix[items, self.permuted]
                bar.advance()


def locate(names: Sequence[Hashable], wanted: Iterable[Hashable]) -> Int64:
    """Find the row of each wanted name among all names."""
    row_of = {name: row for row, name in enumerate(names)}
    return np.array([row_of[name] for name in wanted], np.int64)


def permutations(units: Items, draws: int, seed: int) -> Int64:
    """Permute the labels of n items, the same for each subject: [K, n] the item whose label each gets.

    K is `draws`, or fewer where no more permutations leave exchangeable items together: see `Items`.
    """
    # orders are of the units' names, whose order may differ from that of the items
    orders = units.permutations(draws, np.random.default_rng(seed))
    rows = locate(units.ids[0], units.names)
    permuted = np.empty_like(orders)
    permuted[:, rows] = rows[orders]
    return permuted


def standardise(measured: Float64, null: Float64) -> Float64:
    """Centre what was measured [P] and its control [K, P], and divide them by their spread: [1 + K, P].

    Mean and spread are those of both together: by those of the control alone what was measured, which has no
    part in them, would lie further out than a permutation does.
    """
    together = np.concatenate([measured[None], null])

    # a control without any spread gives 0, not NaN
    return np.asarray((together - together.mean(0)) / (together.std(0) + 1e-12), np.float64)


def correct_together(tests: Sequence[Float64]) -> list[Float64]:
    """Correct p over all positions of several tests, whose permutations k are of the same labels.

    The scores of each test are divided by the height that its largest one reaches in one of twenty
    permutations, so that a test with a skewed control, as one of top-1, does not hide the others.

    Args:
        tests: Scores [1 + K, P] of each, as `standardise`.

    Returns:
        [P] of each: the share of permutations whose largest score, over all positions of all tests, is as
        large.

    Source: Westfall and Young 1993 (largest statistic over all positions).
    """
    # a height below 1 is that of a control which does not vary
    heights = [max(1.0, float(np.quantile(scores.max(1), 1 - SIGNIFICANT))) for scores in tests]
    scaled = [scores / height for scores, height in zip(tests, heights, strict=True)]
    largest = np.max([scores[1:].max(1) for scores in scaled], 0)[:, None]  # [K, 1]
    return [count_larger(scores, largest) for scores in scaled]


def count_larger(scores: Float64, drawn: Float64) -> Float64:
    """Return the share of permutations [K, P or 1] that are as large as measured scores, these among them.

    Source: Phipson and Smyth 2010.
    """
    # equal scores may differ by rounding
    return np.asarray((1 + (drawn >= scores[0] - 1e-12).sum(0)) / len(scores), np.float64)


Profiles = Profile | dict[str, Profile]
"""Result of an analysis: one profile, or several by part."""
TIME_PART, SPACE_PART = "time", "space"
"""Parts of an analysis that has one profile over times, and one over sensors or regions."""


@dataclass
class SubjectProfiles:
    """Measurements of one cell and subject, or of one subject's signals.

    Attributes:
        profiles: By `analysis`, or `analysis:part`; an analysis may be of one level, as `encoding · vae`.
        arrays: Maps and curves without items, by name.
        missing: Reasons, by analysis.
    """

    profiles: dict[str, Profile] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def attempt(self, analysis: str, measure: Callable[[], Profiles]) -> None:
        """Add the profiles of an analysis, by their parts; or the reason why there are none.

        Raises:
            RecipeError: as any: what the recipe has wrong is no property of the signals.
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
            self.profiles |= {f"{analysis}:{part}": profile for part, profile in profiles.items()}


@dataclass(frozen=True)
class Finding:
    """One analysis of all subjects.

    Attributes:
        name: `analysis`, or `analysis · level`.
        axis: The P positions.
        measured: [P].
        controls: [P] by the name of the control.
        scores: [1 + K, P] what was measured, then with permuted labels, each position by its spread; None
            where labels were not permuted.
        corrected: [P] p of the largest over all positions of all analyses, as `correct_findings`.
        looks_ahead: Whether the signals may show an effect before it begins, as `looks_ahead`.
    """

    name: str
    axis: Axis
    measured: list[Metric]
    controls: Mapping[str, list[Metric]]
    scores: Float64 | None = None
    corrected: Float64 | None = None
    looks_ahead: bool = False

    @property
    def metric(self) -> str:
        """Name of what was measured."""
        return self.measured[0].name

    @property
    def values(self) -> Float64:
        """[P] values of the metrics."""
        return np.array([metric.value for metric in self.measured])

    @property
    def peak(self) -> int:
        """Index of the position with the largest value."""
        return int(self.values.argmax())

    @property
    def first_above_chance(self) -> int | None:
        """Index of the first of two positions in a row, on an axis of time, above the corrected control.

        What a window carries may begin anywhere in it: its centre may lie before the effect.
        """
        if self.corrected is None or self.axis.name != TIME:
            return None

        # two in a row, since a single one is often noise
        above = self.corrected < SIGNIFICANT
        first = np.flatnonzero(above[:-1] & above[1:])
        return int(first[0]) if len(first) else None

    @property
    def onset(self) -> str:
        """The first position above chance in words; empty where none is."""
        index = self.first_above_chance
        return "" if index is None else self.axis.where(index) + (AHEAD if self.looks_ahead else "")

    @property
    def claim(self) -> Claim:
        """The claim on the strongest of the significant positions, else of all: that may be a noisy one."""
        assert self.corrected is not None
        p = self.corrected
        is_eligible = (p < SIGNIFICANT) | (p.min() >= SIGNIFICANT)
        index = int(np.where(is_eligible, self.values, -np.inf).argmax())
        return Claim(axis=self.axis.kind, place=self.axis.where(index), p=p[index], first=self.onset)

    @property
    def scopes(self) -> Scopes:
        """Metrics by scope and name; of a course, at most so many times as `TIMES`, and the strongest."""
        # a course of many times would fill the metrics file
        scopes = {}
        step = -(-len(self.measured) // TIMES) if self.axis.name == TIME else 1
        for index, label in enumerate(self.axis.labels):
            if index % step == 0 or index == self.peak:
                for control, metrics in {"": self.measured, **self.controls}.items():
                    scopes[scope(self.name, label, control)] = {self.metric: metrics[index]}
        return scopes

    @property
    def profile(self) -> dict[str, Any]:
        """Its facts as plain values: positions, windows, p of each, and the first time above chance."""
        # plain values, which JSON holds
        axis, scores = self.axis, self.scores
        return {
            "name": self.name,
            "metric": self.metric,
            "axis": axis.name,
            "at": list(axis.at),
            "windows_ms": None if axis.spans is None else axis.spans.tolist(),
            "peak": axis.labels[self.peak],
            "first_above_chance": self.onset or None,
            "p": None if scores is None else count_larger(scores, scores[1:]).tolist(),
            "p_corrected": None if self.corrected is None else self.corrected.tolist(),
        }


Findings = Sequence[Finding]


def choose_claims(results: Findings) -> list[Finding]:
    """Choose the analyses that the finding is made of: the first over time, and the first over space.

    The choice rests on their order alone. Of analyses with several metrics it takes two-way identification,
    which rises above chance before top-1 does.
    """
    chosen = []
    for axes in ((TIME,), (SENSOR, REGION)):
        tested = [
            finding for finding in results if finding.axis.name in axes and finding.corrected is not None
        ]

        # metrics of one analysis
        same = [finding for finding in tested if finding.name == tested[0].name]
        chosen += sorted(same, key=lambda finding: finding.metric != "two_way")[:1]
    return chosen


def correct_findings(results: Findings) -> list[Finding]:
    """Correct p over all positions of all analyses that labels were permuted for, as one page claims them."""
    # findings without permuted labels stay as they are
    tests = [finding.scores for finding in results if finding.scores is not None]
    corrected = iter(correct_together(tests) if tests else ())
    return [
        finding if finding.scores is None else replace(finding, corrected=next(corrected))
        for finding in results
    ]


def looks_ahead(recording: Trials) -> bool:
    """Whether signals may show an effect before it begins, by a filter without delay or an unknown one.

    Filters of earlier programs, which files name, are taken to have no delay.
    """
    for session in recording.provenance.get("sessions") or [{}]:
        # facts of a session override those of the store
        source = {**recording.provenance, **session}
        steps = source.get("preparation", {})
        low_hz, high_hz = source.get("filtered_hz", (0, np.inf))
        is_filtered = low_hz or high_hz < MAX_EDGE * source.get("recorded_hz", recording.rate_hz or 0)
        is_ahead = any(steps.get("band_hz") or ()) and steps.get("phase", "zero") == "zero"
        is_simulated = "simulated" in source and not steps  # nothing filtered the signals of a program
        # nothing says how signals of other stores were filtered
        is_known = "epoch_ms" in steps or "filtered_hz" in source or is_simulated
        if is_filtered or is_ahead or not is_known:
            return True
    return False


def describe_profiles(
    groups: Sequence[Sequence[SubjectProfiles]], items: Items, **context: Any
) -> list[Finding]:
    """Describe every profile over all subjects; positions that not all have, as regions, are left out.

    Args:
        groups: What was measured, by subject, of its cells.
        items: Those of each subject, in the order of the profiles.
        context: See `measurement.statistics.Context`.
    """
    # an analysis must have been measured of every subject
    described, parts = [], [*chain(*groups)]
    for name, first in parts[0].profiles.items():
        if all(name in part.profiles for part in parts):
            # regions of voxels may differ among subjects
            shared = set[Any].intersection(*({*part.profiles[name].axis.at} for part in parts))
            at = [position for position in first.axis.at if position in shared]
            profiles = [[part.profiles[name].take(at) for part in group] for group in groups]
            described.append(_describe(name.partition(":")[0], profiles, items, context))
    return described


def _describe(
    name: str, groups: Sequence[Sequence[Profile]], items: Items, context: Mapping[str, Any]
) -> Finding:
    """Describe profiles of the same positions and items, by subject, next to their controls."""
    profiles = [*chain(*groups)]
    # profiles of one analysis share metric, candidates and chance
    metric, pool, protocol = profiles[0].metric, profiles[0].pool or None, context["protocol"]
    limits = LIMITS.get(metric, (0.0, 1.0) if pool else (None, None))
    options = {"pool": pool, "chance": profiles[0].chance, "limits": limits, "items": items, **context}

    # values [S, N] or control of each subject, stacked over seeds
    def measure(field: str, **changes: Any) -> list[Metric]:
        values = [np.stack([getattr(profile, field) for profile in group]) for group in groups]
        return measure_each(metric, values, **options | changes)

    # the middle 95 % of the permutations
    is_share = limits == (0.0, 1.0) and metric != "two_way"
    finding = Finding(name, profiles[0].axis, measure("values", is_share=is_share), {})
    nulls = [[profile.null for profile in group if profile.null is not None] for group in groups]
    # labels are permuted alike for all subjects, so permutation k is averaged over them
    null = np.mean([np.mean(group, 0) for group in nulls], 0) if all(nulls) else np.empty((0, 0))
    if len(null):
        if items.inflation > 1:  # as of a verdict over folds
            null = null.mean(0) + fold_null_inflation([null]) ** 0.5 * (null - null.mean(0))
        numbers = np.stack([null.mean(0), *np.percentile(null, ENDS, 0)], 1).tolist()  # [P, 3]
        # intervals of the measured values do not hold for the control
        changes: Any = dict.fromkeys(("these_subjects", "people", "seed_sd"))
        changes["interval"] = f"the middle 95 % of {len(null)} permutations of the labels"
        changes["protocol"] = f"{protocol}, {SHUFFLED}"
        control = [
            replace(one, value=mean, low=low, high=high, **changes)
            for one, (mean, low, high) in zip(finding.measured, numbers, strict=True)
        ]
        scores = standardise(finding.values, null)
        finding = replace(finding, controls={SHUFFLED: control}, scores=scores)

    # the control that was measured once, with a model, or a level, of shuffled labels
    if all(profile.shuffled is not None for profile in profiles):
        kind = TRAINED if finding.scores is not None or name.startswith("encoding") else SHUFFLED
        control = measure("shuffled", is_share=False, protocol=f"{protocol}, {kind}", seeds=())
        finding = replace(finding, controls={**finding.controls, kind: control})
    return finding
