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
    """Subjects whose signals carry what they saw, and who have the same wrong labels;
    100 pictures.
    """
    targets, order = random.normal(size=(100, 16)), random.permutation(100)
    signals = targets + random.normal(size=(subjects, 5, 100, 16))
    first, rejected = int(random.integers(2**31)), []
    for seeds in (range(first, first + subjects), [first] * subjects):
        labels = [
            Labels.draw(order, Items.from_sizes([100]), 100, seed) for seed in seeds
        ]
        pairs = zip(signals, labels, strict=True)
        rejected.append(
            is_significant(
                [profile_margins(each, targets, some) for each, some in pairs]
            )
        )
    return rejected
