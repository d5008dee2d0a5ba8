"""A difference of two methods keeps its level, and has the power of an oracle."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.judging import LEVEL
from brainhive_cli.measurement.comparison import compare_values
from brainhive_cli.measurement.units import MIN_SUBJECTS_FOR_POPULATION

AXES: Mapping[str, Sequence[Any]] = {
    "subjects": (1, 3, 4, 5, 10, 20),
    "pictures": (20, 200),
    "by": ("pictures", "subjects", "subjects pictures"),
    "effect": (0.0, 2.8),
}
COLUMNS = "said | oracle | interval disagrees"


def differences(
    random: Random, subjects: int, pictures: int, by: str, effect: float
) -> list[float]:
    """Differences: how often two methods differ at p < .05, beside an oracle that knows
    what varies.

    An item's difference has noise of sd .7; subjects vary by .1, pictures by .35, where
    they do. To four subjects, the oracle is a t test over items.
    """
    by_subject = 0.1 * ("subjects" in by) * random.normal(size=(subjects, 1))
    by_picture = 0.35 * ("pictures" in by) * random.normal(size=(1, pictures))
    noise = 0.7 * random.normal(size=(subjects, pictures))
    if (
        subjects < MIN_SUBJECTS_FOR_POPULATION
    ):  # the claim is about these, who are equal on average
        by_subject, by = by_subject - by_subject.mean(), "pictures"
    drawn = by_subject + by_picture + noise
    sd = np.sqrt(drawn_variance(subjects, pictures, by))
    drawn = drawn + effect * sd
    result = compare_values(list(drawn), list(0 * drawn))
    of_items, of_subjects = drawn.mean(0), drawn.mean(1)
    shared = max(
        0.0,
        of_items.var(ddof=1) / pictures
        - drawn.var(1, ddof=1).mean() / pictures / subjects,
    )
    errors, freedom = {
        "pictures": ([of_items.var(ddof=1) / pictures], [pictures - 1]),
        "subjects": ([of_subjects.var(ddof=1) / subjects], [subjects - 1]),
        "both": (
            [of_subjects.var(ddof=1) / subjects, shared],
            [subjects - 1, pictures - 1],
        ),
    }["both" if " " in by else by]
    total = sum(errors)
    satterthwaite = total**2 / sum(
        error**2 / free for error, free in zip(errors, freedom, strict=True)
    )
    oracle = 2 * t.sf(abs(drawn.mean()) / total**0.5, satterthwaite) < LEVEL
    is_shown = result.p_value is not None and result.p_value <= LEVEL
    holds_zero = result.low is not None and result.low <= 0 <= result.high
    return [is_shown, oracle, is_shown == holds_zero]


def drawn_variance(subjects: int, pictures: int, by: str) -> float:
    """Variance of the mean difference of a design."""
    parts = [
        0.1**2 / subjects * ("subjects" in by),
        0.35**2 / pictures * ("pictures" in by),
    ]
    return sum(parts) + 0.7**2 / subjects / pictures
