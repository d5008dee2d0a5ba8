"""Findings of explain: results over all subjects, with controls and p values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from brainhive_cli.core.base import Float64
from brainhive_cli.core.results import SIGNIFICANCE_LEVEL, Metric
from brainhive_cli.evaluation.explanation.profiles import (
    TIME,
    Axis,
    Profile,
    SubjectProfiles,
    correct_p_values,
    standardise,
)
from brainhive_cli.measurement import Items, fold_null_inflation, measure_positions

SHUFFLED_LABELS = "shuffled labels"
"""Scope of the control with permuted labels."""
FIRST_ABOVE_CHANCE = "first above chance"
"""Title of the first time above chance in tables and figures."""
ONSET_UNKNOWN = "unknown (filter)"
"""Onset if the filter may show an effect from any later time."""
ONSET_BEFORE_STIMULUS = "unknown (before the stimulus)"
"""Onset if an effect precedes the stimulus although no filter explains that."""
ROUNDING_MS = 0.001
"""Precision to which the times of an axis are rounded."""


@dataclass(frozen=True)
class Finding:
    """Result of an analysis over all subjects.

    Attributes:
        name: Name as `analysis`, or `analysis · encoder`.
        metric: Name of the measured quantity.
        axis: Positions.
        metrics: Metric [P] at each position.
        controls: Metrics [P] of each control, by its scope.
        scores: Standardised scores [1 + K, P] of the measured values and of K
            permutations of the labels. None if labels were not permuted.
        p_values: p values [P], corrected by `correct_findings`. None before, and if
            labels were not permuted.
        latest_onset_ms: Latest time at which an effect may begin that is visible at the
            first position above chance.
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
        """Values [P] of the metrics."""
        return np.array([metric.value for metric in self.metrics])

    @property
    def first_above_chance(self) -> int | None:
        """Index of the first of two successive times with significant p values.

        None if there is no such time, or on an axis without times.
        """
        if self.p_values is None or self.axis.name != TIME:
            return None

        # a single significant time is often noise
        is_above = self.p_values < SIGNIFICANCE_LEVEL
        indices = np.flatnonzero(is_above[:-1] & is_above[1:]).tolist()
        return indices[0] if indices else None

    @property
    def onset_description(self) -> str:
        """First position above chance in words, or an empty text if there is none.

        If a filter may show the effect early, the latest possible onset is stated.
        """
        index = self.first_above_chance
        if index is None:
            return ""
        _, end_ms = self.axis.get_span_ms(index)
        # the latest onset may be NaN
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
    """Summarise over subjects each profile that all subjects have.

    Args:
        groups: Profiles of the cells of each subject. Positions that a subject lacks,
            such as regions, are left out.
        items: Items of each subject, in the order of the profiles.
        context: Further arguments of `measure_positions`.
    """
    findings = []
    all_profiles = list(chain.from_iterable(groups))
    for name, first_profile in all_profiles[0].profiles.items():
        if not all(name in member.profiles for member in all_profiles):
            continue

        # positions of all subjects, in the order of the first
        shared_positions = set(first_profile.axis.at)
        for member in all_profiles:
            shared_positions &= set(member.profiles[name].axis.at)
        at = [
            position
            for position in first_profile.axis.at
            if position in shared_positions
        ]
        profiles = []
        for group in groups:
            profiles.append([member.profiles[name].take(at) for member in group])
        analysis = name.partition(":")[0]
        findings.append(_summarise_profiles(analysis, profiles, items, context))
    return findings


def _summarise_profiles(
    name: str,
    groups: Sequence[Sequence[Profile]],
    items: Items,
    context: Mapping[str, Any],
) -> Finding:
    """Summarise the profiles of an analysis over subjects, with their controls.

    `groups` are the profiles of the cells of each subject, at the same positions.
    """
    # the profiles share metric, axis, pool and chance
    first_profile = groups[0][0]
    metric = first_profile.metric
    pool = first_profile.pool or None
    protocol = context["protocol"]
    # Smallest and largest value of correlations. Metrics of ranks lie between 0 and 1,
    # and margins have no limits.
    axis_limits = {
        "r": (-1.0, 1.0),
        "rho": (-1.0, 1.0),
        "unique_rho": (-1.0, 1.0),
        "unique_r": (-2.0, 2.0),
    }
    limits = axis_limits.get(metric, (0.0, 1.0) if pool else (None, None))
    options = {
        "pool": pool,
        "chance": first_profile.chance,
        "limits": limits,
        "items": items,
        **context,
    }

    values = []  # [S, P, N] of each subject
    for group in groups:
        values.append(np.stack([profile.values for profile in group]))
    is_share = limits == (0.0, 1.0) and metric != "two_way"
    metrics = measure_positions(metric, values, **options | {"is_share": is_share})
    finding = Finding(name, metric, first_profile.axis, metrics, controls={})

    # control with permuted labels
    null = _average_null(groups)
    if len(null):
        if items.inflation > 1:
            # widen the distribution, because models of folds share training data
            mean = null.mean(0)
            null = mean + fold_null_inflation([null]) ** 0.5 * (null - mean)
        finding = replace(
            finding,
            controls={SHUFFLED_LABELS: _describe_null(metrics, null, protocol)},
            scores=standardise(finding.values, null),
        )

    # control with an encoder's embeddings of other pictures
    shuffled_values = []
    for group in groups:
        group_values = []
        for profile in group:
            if profile.shuffled is None:
                return finding
            group_values.append(profile.shuffled)
        shuffled_values.append(np.stack(group_values))
    # Scope of the control that adds an encoder's embeddings of other pictures.
    shuffled_training = "trained on shuffled labels"
    options |= {
        "is_share": False,
        "protocol": f"{protocol}, {shuffled_training}",
        "seeds": (),
    }
    control = measure_positions(metric, shuffled_values, **options)
    return replace(finding, controls={shuffled_training: control})


def _average_null(groups: Sequence[Sequence[Profile]]) -> Float64:
    """Average the values for permuted labels [K, P] over seeds and subjects.

    Returns an empty array if labels were not permuted for a subject.
    """
    # permutation k is the same for all subjects
    nulls = []
    for group in groups:
        group_nulls = [profile.null for profile in group if profile.null is not None]
        if not group_nulls:
            return np.empty((0, 0))
        nulls.append(np.mean(group_nulls, 0))
    return np.asarray(np.mean(nulls, 0))


def _describe_null(
    metrics: Sequence[Metric], null: Float64, protocol: str
) -> list[Metric]:
    """Describe a control by the metrics [P], with values [K, P] for permuted labels.

    The values become means over permutations, the intervals their middle 95 %.
    """
    means = null.mean(0).tolist()
    # Percentiles that enclose the middle 95 % of the permutations.
    lows, highs = np.percentile(null, (2.5, 97.5), 0).tolist()
    control = []
    for metric, mean, low, high in zip(metrics, means, lows, highs, strict=True):
        # other intervals of the measured values do not apply to the control
        null_metric = replace(
            metric,
            value=mean,
            low=low,
            high=high,
            these_subjects=None,
            people=None,
            seed_sd=None,
            interval=f"the middle 95 % of {len(null)} permutations of the labels",
            protocol=f"{protocol}, {SHUFFLED_LABELS}",
        )
        control.append(null_metric)
    return control


def correct_findings(findings: Findings) -> list[Finding]:
    """Add corrected p values to the findings with permuted labels.

    They are corrected over all positions of all findings, which a report claims
    together.
    """
    tests = [finding.scores for finding in findings if finding.scores is not None]
    p_values = iter(correct_p_values(tests) if tests else ())
    corrected_findings = []
    for finding in findings:
        if finding.scores is not None:
            finding = replace(finding, p_values=next(p_values))
        corrected_findings.append(finding)
    return corrected_findings
