"""Measurements of all cells and subjects together, as metrics, each next to its control."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.facts import Claim
from brainhive_cli.core.measurements import Metric, scope
from brainhive_cli.core.tables import Cell, Table, p_text
from brainhive_cli.data.trials import Trials
from brainhive_cli.evaluation.explanation.profiles import (
    REGION,
    SENSOR,
    SIGNIFICANT,
    TIME,
    Axis,
    Profile,
    SubjectProfiles,
    correct_together,
    count_larger,
    standardise,
)
from brainhive_cli.measurement.metric_names import shown
from brainhive_cli.measurement.statistics import measure_each
from brainhive_cli.measurement.units import Items, fold_null_inflation
from brainhive_cli.reports.tables import with_interval
from brainhive_cli.reports.templates import render

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
        same = [finding for finding in tested if finding.name == tested[0].name]
        chosen += sorted(same, key=lambda finding: finding.metric != "two_way")[:1]
    return chosen


def correct_findings(results: Findings) -> list[Finding]:
    """Correct p over all positions of all analyses that labels were permuted for, as one page claims them."""
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
        source = {**recording.provenance, **session}
        steps = source.get("preparation", {})
        low_hz, high_hz = source.get("filtered_hz", (0, np.inf))
        is_filtered = low_hz or high_hz < MAX_EDGE * source.get("recorded_hz", recording.rate_hz or 0)
        is_ahead = any(steps.get("band_hz") or ()) and steps.get("phase", "zero") == "zero"
        is_simulated = "simulated" in source and not steps  # nothing filtered the signals of a program
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
    described, parts = [], [*chain(*groups)]
    for name, first in parts[0].profiles.items():
        if all(name in part.profiles for part in parts):
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
    metric, pool, protocol = profiles[0].metric, profiles[0].pool or None, context["protocol"]
    limits = LIMITS.get(metric, (0.0, 1.0) if pool else (None, None))
    options = {"pool": pool, "chance": profiles[0].chance, "limits": limits, "items": items, **context}

    def measure(field: str, **changes: Any) -> list[Metric]:
        values = [np.stack([getattr(profile, field) for profile in group]) for group in groups]
        return measure_each(metric, values, **options | changes)

    # the middle 95 % of the permutations
    is_share = limits == (0.0, 1.0) and metric != "two_way"
    finding = Finding(name, profiles[0].axis, measure("values", is_share=is_share), {})
    nulls = [[profile.null for profile in group if profile.null is not None] for group in groups]
    if all(map(len, nulls)) and len(null := np.mean([np.mean(group, 0) for group in nulls], 0)):
        if items.inflation > 1:  # as of a verdict over folds
            null = null.mean(0) + fold_null_inflation([null]) ** 0.5 * (null - null.mean(0))
        numbers = np.stack([null.mean(0), *np.percentile(null, ENDS, 0)], 1).tolist()  # [P, 3]
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


def summary_table(results: Findings, protocol: str) -> Table:
    """Lay out where each analysis is strongest."""
    rows = []
    for finding in results:
        # p of the strongest position, the first time above chance, the value there and its control
        peak, control = finding.peak, next(iter(finding.controls.values()), None)
        p = None if finding.corrected is None else float(finding.corrected[peak])
        where = finding.axis.where(peak), Cell(p_text(p), value=p), finding.onset or None
        value = with_interval(finding.measured[peak]), None if control is None else control[peak].value
        rows.append((finding.name, shown(finding.metric), *where, *value))
    columns = ("analysis", "metric", "strongest", "p", FIRST_ABOVE, "value, 95 % CI", "control")
    note = render("explanation.txt", of="table", protocol=protocol)
    return Table("Where each analysis is strongest", columns, rows, section=SECTION, note=note)
