"""Profiles in time, with p-values corrected over positions."""

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


def correct(measured: Values, null: Values) -> Values:
    """Compute p [P] of the largest over all positions of one test."""
    return correct_p_values([standardise(measured, null)])[0]


def is_significant(profiles: Sequence[Profile]) -> bool:
    """Whether a profile of all subjects is above its control anywhere."""
    measured, null = (
        np.mean(each, 0)
        for each in zip(*[(p.values.mean(1), p.null) for p in profiles], strict=True)
    )
    return bool(correct(measured, null).min() < LEVEL)


def profile_margins(signals: Values, targets: Values, labels: Labels) -> Profile:
    """Look up margins of signals [P, N, D] with targets [N, D], as analyses of a model
    do.
    """
    cosine = (signals @ targets.T) / signals.shape[-1]
    return Profile.from_matrices(
        "margin",
        Axis("ms", range(len(signals))),
        cosine - cosine.mean(-1, keepdims=True),
        labels,
    )
