"""Profiles in time whose p-values are corrected over positions."""

from collections.abc import Sequence

import numpy as np

from benchmarks.simulated_statistics import Values
from benchmarks.simulated_statistics.judging import LEVEL
from brainhive_cli.evaluation.explanation.profiles import (
    Axis,
    Labels,
    Profile,
    correct_p_values,
    standardise,
)


def correct(values: Values, null: Values) -> Values:
    """Compute the p-values [P] of a profile, corrected over its positions."""
    return correct_p_values([standardise(values, null)])[0]


def is_significant(profiles: Sequence[Profile]) -> bool:
    """Return True if the mean of the subjects' profiles exceeds its control."""
    values = np.mean([profile.values.mean(1) for profile in profiles], 0)
    null = np.mean([profile.null for profile in profiles], 0)
    return bool(correct(values, null).min() < LEVEL)


def profile_margins(signals: Values, targets: Values, labels: Labels) -> Profile:
    """Compute margins of signals [P, N, D] with targets [N, D], as analyses do."""
    cosine = (signals @ targets.T) / signals.shape[-1]
    return Profile.from_matrices(
        "margin",
        Axis("ms", range(len(signals))),
        cosine - cosine.mean(-1, keepdims=True),
        labels,
    )
