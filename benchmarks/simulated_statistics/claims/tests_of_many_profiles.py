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
    """Twelve profiles of 60 pictures, margins and shares, of which the first three may
    have an effect.
    """
    places, tests = np.arange(60), []
    labels = Labels.draw(
        places, Items.from_sizes([60]), 200, int(random.integers(2**31))
    )
    axis, shared = Axis("ms", range(20)), 0.5 * random.normal(size=(20, 60, 60))
    for analysis in range(6):
        matrices = (
            shared
            + random.normal(size=shared.shape)
            + effect * (analysis == 0) * np.eye(60)
        )
        profiles = [Profile.from_matrices("margin", axis, matrices, labels)]
        if analysis < 3:
            ranked = (-matrices).argsort(2).argsort(2) + 1
            profiles += [*Profile.from_ranks(axis, ranked, labels, 60).values()][:2]
        tests += [
            standardise(profile.values.mean(1), profile.null) for profile in profiles
        ]
    alone = [correct_p_values([scores])[0] for scores in tests]
    pairs = [
        [p.min() < LEVEL for p in listed] for listed in (alone, correct_p_values(tests))
    ]
    return [float(share) for found in pairs for share in (any(found), found[0])]
