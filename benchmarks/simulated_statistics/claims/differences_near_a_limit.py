"""Intervals of differences hold where hits are close to 0 or 1."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import logit

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.hits import ITEM_SD, draw_hits, mean_hit
from benchmarks.simulated_statistics.judging import LEVEL
from brainhive_cli.measurement.comparison import compare_values
from brainhive_cli.measurement.units import MIN_SUBJECTS_FOR_POPULATION

AXES: Mapping[str, Sequence[Any]] = {
    "subjects": (1, 4, 5, 8),
    "seeds": (1, 3),
    "items": (10, 20, 60),
    "rates": ((0.5, 0.5), (0.989, 0.95), (0.989, 0.73), (0.998, 0.998)),
}
COLUMNS = "first | second | coverage | width | said | interval disagrees"


def differences_near_a_limit(
    random: Random, subjects: int, seeds: int, items: int, rates: tuple[float, float]
) -> list[float]:
    """Test differences of hits near a limit, for people and pictures in general.

    The difficulty of pictures varies by 1.5 in logits for both methods, and by .7 for
    each. People in general vary by .5, and by .25 with the method. Rates are for the
    mean picture and person.
    """
    sd = 0.5 * (subjects >= MIN_SUBJECTS_FOR_POPULATION)
    item_effect = random.normal(0, ITEM_SD, (1, 1, 1, items))
    shared_effect = item_effect + random.normal(0, sd, (1, subjects, 1, 1))
    method_item_effect = random.normal(0, 0.7, (2, 1, 1, items))
    method_effect = method_item_effect + random.normal(0, sd / 2, (2, subjects, 1, 1))
    centres = logit(rates)
    logits = centres[:, None, None, None] + shared_effect + method_effect
    logits = np.broadcast_to(logits, (2, subjects, seeds, items))
    hits = draw_hits(random, logits)
    result = compare_values(list(hits[0]), list(hits[1]))
    spread = float(np.sqrt(ITEM_SD**2 + 0.7**2 + 1.25 * sd**2))
    rate_a = mean_hit(float(centres[0]), spread)
    rate_b = mean_hit(float(centres[1]), spread)
    is_different = result.p_value is not None and result.p_value <= LEVEL
    low, high = (-1.0, 1.0) if result.low is None else (result.low, result.high)
    return [
        rate_a,
        rate_b,
        low <= rate_a - rate_b <= high,
        high - low,
        is_different,
        is_different == (low <= 0 <= high),
    ]
