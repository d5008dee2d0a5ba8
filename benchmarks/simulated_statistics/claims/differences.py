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
    """Test how often two methods differ, beside an oracle that knows the variance.

    An item's difference has noise of sd .7. Subjects vary by .1 and pictures by .35 if
    `by` names them. Up to four subjects, the oracle is a t test over items.
    """
    subject_effect = 0.1 * ("subjects" in by) * random.normal(size=(subjects, 1))
    picture_effect = 0.35 * ("pictures" in by) * random.normal(size=(1, pictures))
    noise = 0.7 * random.normal(size=(subjects, pictures))
    if subjects < MIN_SUBJECTS_FOR_POPULATION:
        # the claim is about these subjects, who are equal on average
        subject_effect = subject_effect - subject_effect.mean()
        by = "pictures"
    values = subject_effect + picture_effect + noise
    sd = np.sqrt(compute_variance(subjects, pictures, by))
    values = values + effect * sd
    result = compare_values(list(values), list(0 * values))

    # squared standard errors of the oracle, with their degrees of freedom
    item_error = values.mean(0).var(ddof=1) / pictures
    subject_error = values.mean(1).var(ddof=1) / subjects
    noise_error = values.var(1, ddof=1).mean() / pictures / subjects
    if " " in by:
        errors = [subject_error, max(0.0, item_error - noise_error)]
        freedom = [subjects - 1, pictures - 1]
    elif by == "pictures":
        errors, freedom = [item_error], [pictures - 1]
    else:
        errors, freedom = [subject_error], [subjects - 1]
    total = sum(errors)
    terms = [error**2 / df for error, df in zip(errors, freedom, strict=True)]
    satterthwaite = total**2 / sum(terms)
    oracle = 2 * t.sf(abs(values.mean()) / total**0.5, satterthwaite) < LEVEL
    is_different = result.p_value is not None and result.p_value <= LEVEL
    holds_zero = result.low is not None and result.low <= 0 <= result.high
    return [is_different, oracle, is_different == holds_zero]


def compute_variance(subjects: int, pictures: int, by: str) -> float:
    """Compute the variance of the mean difference of a design."""
    variances = [
        0.1**2 / subjects * ("subjects" in by),
        0.35**2 / pictures * ("pictures" in by),
    ]
    return sum(variances) + 0.7**2 / subjects / pictures
