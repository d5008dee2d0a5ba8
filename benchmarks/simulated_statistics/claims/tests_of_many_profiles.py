"""Profiles that are corrected together keep their level together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.judging import LEVEL
from brainhive_cli.evaluation.explanation.profiles import (
    Axis,
    Labels,
    Profile,
    correct_p_values,
    standardise,
)
from brainhive_cli.measurement.units import Items

AXES: Mapping[str, Sequence[Any]] = {"effect": (0.0, 0.35, 0.5)}
COLUMNS = (
    "any at p < .05, each by itself | the first | corrected together: any | the first"
)


def tests_of_many_profiles(random: Random, effect: float) -> list[float]:
    """Test twelve profiles of 60 pictures, the first three with a possible effect."""
    seed = int(random.integers(2**31))
    labels = Labels.draw(np.arange(60), Items.from_sizes([60]), 200, seed)
    axis = Axis("ms", range(20))
    shared = 0.5 * random.normal(size=(20, 60, 60))
    scores = []
    for analysis in range(6):
        noise = random.normal(size=shared.shape)
        matrices = shared + noise + effect * (analysis == 0) * np.eye(60)
        profiles = [Profile.from_matrices("margin", axis, matrices, labels)]
        if analysis < 3:
            ranks = (-matrices).argsort(2).argsort(2) + 1
            shares = Profile.from_ranks(axis, ranks, labels, 60)
            profiles += list(shares.values())[:2]
        for profile in profiles:
            scores.append(standardise(profile.values.mean(1), profile.null))

    separate = [correct_p_values([profile_scores])[0] for profile_scores in scores]
    results = []
    for p_values in (separate, correct_p_values(scores)):
        is_rejected = [p.min() < LEVEL for p in p_values]
        results += [float(any(is_rejected)), float(is_rejected[0])]
    return results
