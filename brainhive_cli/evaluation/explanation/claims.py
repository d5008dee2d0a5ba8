"""Claims of explain: when and where signals carry the stimulus."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from brainhive_cli.core.facts import AxisClaim
from brainhive_cli.data.signals.trials import Trials
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
    SIGNIFICANCE_LEVEL,
    TIME,
)


def choose_claimed_findings(results: Findings) -> list[Finding]:
    """Choose the analyses that the finding is made of: the first over time, and the
    first over space.

    The choice rests on their order alone. Of analyses with several metrics it takes
    two-way identification, which rises above chance before top-1 does.
    """
    chosen = []
    for axes in ((TIME,), (SENSOR, REGION)):
        tested = [
            finding
            for finding in results
            if finding.axis.name in axes and finding.p_values is not None
        ]

        # metrics of one analysis
        same = [finding for finding in tested if finding.name == tested[0].name]
        chosen += sorted(same, key=lambda finding: finding.metric != "two_way")[:1]
    return chosen


def state_claims(results: Findings) -> list[AxisClaim]:
    """State where each chosen analysis is strongest among its significant positions, or
    among all if none is significant.
    """
    claims = []
    for finding in choose_claimed_findings(results):
        p = finding.p_values
        axis = finding.axis
        assert p is not None  # by the choice
        is_eligible = (p < SIGNIFICANCE_LEVEL) | (p.min() >= SIGNIFICANCE_LEVEL)
        index = int(np.where(is_eligible, finding.values, -np.inf).argmax())
        kind: Any = "time" if axis.name == TIME else axis.name
        claims.append(
            AxisClaim(
                axis=kind,
                place=axis.describe_position(index),
                p=p[index],
                first=""
                if finding.onset_description in (ONSET_UNKNOWN, ONSET_BEFORE_STIMULUS)
                else finding.onset_description,
            )
        )
    return claims


def bound_onsets(
    results: Findings, signals: Sequence[Trials]
) -> tuple[list[Finding], str]:
    """Add to courses over time how late an effect may begin that shows at their first
    time above chance.

    Args:
        results: All analyses.
        signals: Trials of each subject, all with the same samples.

    Returns:
        The analyses, and the reason why no first time can be stated; empty if it can.
    """
    if all(finding.first_above_chance is None for finding in results):
        return list(results), ""

    # over all subjects, at the samples [T] that the model reads
    by_subject = [
        find_latest_onsets(trials.recorded or trials)[trials.samples]
        for trials in signals
    ]
    times_ms = np.asarray(signals[0].times_s, np.float64) * 1000
    latest_ms = np.max(by_subject, 0)
    bounded, reason = [], ""
    for finding in results:
        index = finding.first_above_chance
        if index is not None:
            start_ms, end_ms = finding.axis.get_span_ms(index)
            is_inside = (times_ms >= start_ms - ROUNDING_MS) & (
                times_ms <= end_ms + ROUNDING_MS
            )
            finding = replace(
                finding, latest_onset_ms=float(latest_ms[is_inside].max())
            )
            if finding.onset_description == ONSET_BEFORE_STIMULUS:
                reason = "it lies before the stimulus, and no filter explains that"
            elif finding.onset_description == ONSET_UNKNOWN:
                reason = (
                    "how the signals were filtered is not known"
                    if np.isnan(latest_ms).any()
                    else "the filter looks ahead, and an effect at any later time may "
                    "show there"
                )
        bounded.append(finding)
    return bounded, reason
