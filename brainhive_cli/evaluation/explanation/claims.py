"""Claims of explain: when and where signals carry the stimulus."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from brainhive_cli.core.results import SIGNIFICANCE_LEVEL
from brainhive_cli.data.signals import Trials
from brainhive_cli.evaluation.explanation.facts import AxisClaim
from brainhive_cli.evaluation.explanation.filter_reach import find_latest_onsets
from brainhive_cli.evaluation.explanation.findings import (
    ONSET_BEFORE_STIMULUS,
    ONSET_UNKNOWN,
    ROUNDING_MS,
    Finding,
    Findings,
)
from brainhive_cli.evaluation.explanation.profiles import (
    REGION,
    SENSOR,
    TIME,
)


def choose_claimed_findings(findings: Findings) -> list[Finding]:
    """Choose the findings that a report claims: the first over time and over space.

    The choice depends only on the order of the analyses. Two-way identification
    replaces top-1 accuracy, because it rises above chance earlier.
    """
    claimed_findings = []
    for axis_names in ((TIME,), (SENSOR, REGION)):
        same_analysis: list[Finding] = []
        for finding in findings:
            if finding.axis.name not in axis_names or finding.p_values is None:
                continue
            if not same_analysis or finding.name == same_analysis[0].name:
                same_analysis.append(finding)
        same_analysis.sort(key=lambda finding: finding.metric != "two_way")
        claimed_findings += same_analysis[:1]
    return claimed_findings


def state_claims(findings: Findings) -> list[AxisClaim]:
    """State where each claimed analysis is strongest.

    Positions that are not significant count only if none is significant.
    """
    claims = []
    for finding in choose_claimed_findings(findings):
        p_values = finding.p_values
        axis = finding.axis
        assert p_values is not None  # by the choice
        is_eligible = p_values < SIGNIFICANCE_LEVEL
        if not is_eligible.any():
            is_eligible[:] = True
        index = int(np.where(is_eligible, finding.values, -np.inf).argmax())
        kind: Any = "time" if axis.name == TIME else axis.name
        onset = finding.onset_description
        if onset in (ONSET_UNKNOWN, ONSET_BEFORE_STIMULUS):
            onset = ""
        claims.append(
            AxisClaim(
                axis=kind,
                place=axis.describe_position(index),
                p=p_values[index],
                first=onset,
            )
        )
    return claims


def bound_onsets(
    findings: Findings, signals: Sequence[Trials]
) -> tuple[list[Finding], str]:
    """Add to each finding over time how late its effect may begin.

    Filters can show an effect before it begins.

    Args:
        findings: Findings of all analyses.
        signals: Trials of each subject, all with the same samples.

    Returns:
        Findings with `latest_onset_ms`, and the reason why an onset cannot be stated,
        or an empty text.
    """
    if all(finding.first_above_chance is None for finding in findings):
        return list(findings), ""

    # latest onset over all subjects, at the samples [T] that the model reads
    onsets_of_subjects = []
    for trials in signals:
        onsets_ms = find_latest_onsets(trials.recorded or trials)
        onsets_of_subjects.append(onsets_ms[trials.samples])
    latest_ms = np.max(onsets_of_subjects, 0)
    times_ms = np.asarray(signals[0].times_s, np.float64) * 1000

    bounded_findings = []
    reason = ""
    for finding in findings:
        index = finding.first_above_chance
        if index is None:
            bounded_findings.append(finding)
            continue

        # latest onset at the samples of the first position above chance
        start_ms, end_ms = finding.axis.get_span_ms(index)
        is_late_enough = times_ms >= start_ms - ROUNDING_MS
        is_in_span = is_late_enough & (times_ms <= end_ms + ROUNDING_MS)
        finding_latest_ms = float(latest_ms[is_in_span].max())
        bounded_finding = replace(finding, latest_onset_ms=finding_latest_ms)
        bounded_findings.append(bounded_finding)

        if bounded_finding.onset_description == ONSET_BEFORE_STIMULUS:
            reason = "it is before the stimulus, and no filter explains that"
        elif bounded_finding.onset_description == ONSET_UNKNOWN:
            if np.isnan(latest_ms).any():
                reason = "the filters of the signals are unknown"
            else:
                reason = "the filter may show an effect from any later time"
    return bounded_findings, reason
