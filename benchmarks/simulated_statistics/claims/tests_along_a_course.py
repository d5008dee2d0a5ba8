"""A test along a course keeps its level over all times."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.corrected_profiles import is_significant
from brainhive_cli.evaluation.explanation.profiles import Axis, Labels, Profile
from brainhive_cli.measurement.units import Items

AXES: Mapping[str, Sequence[Any]] = {"subjects": (1, 4), "effect": (0.0, 0.15)}
COLUMNS = "any time at corrected p < .05 | mean of the control"


def tests_along_a_course(random: Random, subjects: int, effect: float) -> list[float]:
    """Test a margin of pictures whose right pairs are more similar by an effect."""
    picture_effect = random.normal(size=(1, 40))
    labels = Labels.draw(np.arange(40), Items.from_sizes([40]), 200, 1)
    axis = Axis("ms", range(20))
    profiles = []
    for _ in range(subjects):
        noise = random.normal(size=(24, 40, 40)) + 0.5 * picture_effect
        smooth = np.mean([noise[shift : shift + 20] for shift in range(5)], 0)
        similarity = smooth + effect * np.eye(40)
        profiles.append(Profile.from_matrices("margin", axis, similarity, labels))
    control = np.mean([profile.null.mean() for profile in profiles])
    return [is_significant(profiles), float(control)]
