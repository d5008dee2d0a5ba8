"""Findings of explain: analyses over all subjects, with controls and corrected p."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.measurements import Metric
from brainhive_cli.evaluation.explanation.profiles import (
    SIGNIFICANCE_LEVEL,
    TIME,
    Axis,
    Profile,
    SubjectProfiles,
    correct_p_values,
    standardise,
)
from brainhive_cli.measurement.statistics import measure_positions
from brainhive_cli.measurement.units import Items, fold_null_inflation

SHUFFLED, TRAINED = "shuffled labels", "trained on shuffled labels"
"""Last part of a control's scope: labels were permuted, or a level was trained on
shuffled labels.
"""
LIMITS = {
    "r": (-1.0, 1.0),
    "rho": (-1.0, 1.0),
    "unique_rho": (-1.0, 1.0),
    "unique_r": (-2.0, 2.0),
}
"""Least and largest value of correlations; shares lie between 0 and 1, and margins
anywhere.
"""
FIRST_ABOVE_CHANCE = "first above chance"
"""Name, in tables and figures, of the first time that is above chance."""
ONSET_UNKNOWN = "unknown (filter)"
"""Onset of a finding whose filter may show an effect from any later time."""
ONSET_BEFORE_STIMULUS = "unknown (before the stimulus)"
"""Onset of a finding that precedes the stimulus, which no filter explains."""
ROUNDING_MS = 0.001
"""Precision to which the times of an axis are rounded."""
NULL_PERCENTILES = (2.5, 97.5)
"""Percentiles that enclose the middle 95 % of the permutations."""


@dataclass(frozen=True)
class Finding:
    """An analysis over all subjects.

    Attributes:
        name: `analysis`, or `analysis · level`.
        metric: Name of what was measured.
        axis: The P positions.
        measured: [P] metrics.
        controls: [P] metrics of each control, by its name.
        scores: [1 + K, P] measured values, then those of K permutations of the labels,
            each position divided by its spread. None if labels were not permuted.
        corrected: [P] p of the largest over all positions of all analyses, as
            `correct_findings`.
        latest_ms: Latest time at which an effect can begin that shows at the first
            position above chance, as `latest_beginnings`.
    """

    name: str
    metric: str
    axis: Axis
    metrics: list[Metric]
    controls: Mapping[str, list[Metric]]
    scores: Float64 | None = None
    p_values: Float64 | None = None
    latest_onset_ms: float = -np.inf

    @property
    def values(self) -> Float64:
        """[P] values of the metrics."""
        return np.array([metric.value for metric in self.metrics])

    @property
    def first_above_chance(self) -> int | None:
        """Index of the first of two times in a row whose corrected p is significant;
        None on another axis.
        """
        if self.p_values is None or self.axis.name != TIME:
            return None

        # two in a row, since a single one is often noise
        above = self.p_values < SIGNIFICANCE_LEVEL
        first = np.flatnonzero(above[:-1] & above[1:]).tolist()
        return first[0] if first else None

    @property
    def onset_description(self) -> str:
        """The first position above chance in words; empty where there is none.

        What a window carries may begin anywhere in it: its centre may lie before the
        effect. Where a filter looks ahead, the latest beginning is given instead.
        """
        index = self.first_above_chance
        if index is None:
            return ""
        _, end_ms = self.axis.get_span_ms(index)
        if not self.latest_onset_ms < np.inf:
            return ONSET_UNKNOWN
        if max(self.latest_onset_ms, end_ms) < 0:
            return ONSET_BEFORE_STIMULUS
        if self.latest_onset_ms > end_ms + ROUNDING_MS:
            return f"begins by {self.latest_onset_ms:.0f} ms"
        return self.axis.describe_position(index)


Findings = Sequence[Finding]


def describe_profiles(
    groups: Sequence[Sequence[SubjectProfiles]], items: Items, **context: Any
) -> list[Finding]:
    """Describe every profile over all subjects; positions that not all have, as
    regions, are left out.

    Args:
        groups: Profiles of each subject's cells.
        items: Tested items of each subject, in the order of the profiles.
        context: Further arguments of `measure_positions`.
    """
    # an analysis must have been measured of every subject
    described, parts = [], [*chain(*groups)]
    for name, first in parts[0].profiles.items():
        if all(name in part.profiles for part in parts):
            # regions of voxels may differ among subjects
            shared = set[Any].intersection(
                *({*part.profiles[name].axis.at} for part in parts)
            )
            at = [position for position in first.axis.at if position in shared]
            profiles = [
                [part.profiles[name].take(at) for part in group] for group in groups
            ]
            described.append(
                _describe(name.partition(":")[0], profiles, items, context)
            )
    return described


def _describe(
    name: str,
    groups: Sequence[Sequence[Profile]],
    items: Items,
    context: Mapping[str, Any],
) -> Finding:
    """Describe profiles of the same positions and items, by subject, next to their
    controls.
    """
    profiles = [*chain(*groups)]
    # profiles of one analysis share metric, candidates and chance
    metric = profiles[0].metric
    pool = profiles[0].pool or None
    protocol = context["protocol"]
    limits = LIMITS.get(metric, (0.0, 1.0) if pool else (None, None))
    options = {
        "pool": pool,
        "chance": profiles[0].chance,
        "limits": limits,
        "items": items,
        **context,
    }

    # values [S, N] or control of each subject, stacked over seeds
    def measure(field: str, **changes: Any) -> list[Metric]:
        values = [
            np.stack([getattr(profile, field) for profile in group]) for group in groups
        ]
        return measure_positions(metric, values, **options | changes)

    # the middle 95 % of the permutations
    is_share = limits == (0.0, 1.0) and metric != "two_way"
    finding = Finding(
        name, metric, profiles[0].axis, measure("values", is_share=is_share), {}
    )
    nulls = [
        [profile.null for profile in group if profile.null is not None]
        for group in groups
    ]
    # labels are permuted alike for all subjects, so permutation k is averaged over them
    null = (
        np.mean([np.mean(group, 0) for group in nulls], 0)
        if all(nulls)
        else np.empty((0, 0))
    )
    if len(null):
        if items.inflation > 1:  # as of a verdict over folds
            null = null.mean(0) + fold_null_inflation([null]) ** 0.5 * (
                null - null.mean(0)
            )
        # [P, 3]
        numbers = np.stack(
            [null.mean(0), *np.percentile(null, NULL_PERCENTILES, 0)], 1
        ).tolist()
        # intervals of the measured values do not hold for the control
        changes: Any = dict.fromkeys(("these_subjects", "people", "seed_sd"))
        changes["interval"] = (
            f"the middle 95 % of {len(null)} permutations of the labels"
        )
        changes["protocol"] = f"{protocol}, {SHUFFLED}"
        control = [
            replace(one, value=mean, low=low, high=high, **changes)
            for one, (mean, low, high) in zip(finding.metrics, numbers, strict=True)
        ]
        scores = standardise(finding.values, null)
        finding = replace(finding, controls={SHUFFLED: control}, scores=scores)

    # the control that was measured once, with a level of shuffled labels
    if all(profile.shuffled is not None for profile in profiles):
        control = measure(
            "shuffled", is_share=False, protocol=f"{protocol}, {TRAINED}", seeds=()
        )
        finding = replace(finding, controls={TRAINED: control})
    return finding


def correct_findings(results: Findings) -> list[Finding]:
    """Correct p over all positions of all analyses with permuted labels, since one page
    claims them all.
    """
    # findings without permuted labels stay as they are
    tests = [finding.scores for finding in results if finding.scores is not None]
    corrected = iter(correct_p_values(tests) if tests else ())
    return [
        finding
        if finding.scores is None
        else replace(finding, p_values=next(corrected))
        for finding in results
    ]
