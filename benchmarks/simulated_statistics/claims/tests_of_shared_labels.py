"""A permutation shared by subjects keeps its level under shared wrong labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.corrected_profiles import (
    is_significant,
    profile_margins,
)
from brainhive_cli.evaluation.explanation.profiles import Labels
from brainhive_cli.measurement.units import Items

AXES: Mapping[str, Sequence[Any]] = {"subjects": (1, 5, 10)}
COLUMNS = "permuted subject by subject | one permutation for all"


def tests_of_shared_labels(random: Random, subjects: int) -> list[float]:
    """Test signals that carry 100 seen pictures, with the same wrong labels for all."""
    targets = random.normal(size=(100, 16))
    order = random.permutation(100)
    subject_signals = targets + random.normal(size=(subjects, 5, 100, 16))
    seed = int(random.integers(2**31))
    items = Items.from_sizes([100])
    rejections = []
    for seeds in (range(seed, seed + subjects), [seed] * subjects):
        profiles = []
        for signals, label_seed in zip(subject_signals, seeds, strict=True):
            labels = Labels.draw(order, items, 100, label_seed)
            profiles.append(profile_margins(signals, targets, labels))
        rejections.append(is_significant(profiles))
    return rejections
