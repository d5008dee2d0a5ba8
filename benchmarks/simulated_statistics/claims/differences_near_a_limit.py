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
    """Differences of hits near a limit: coverage for people and pictures in general,
    width, and power.

    Pictures are as hard for both methods (sd 1.5 in logits) and for each (.7); people
    in general vary by .5 and by .25 with the method. Rates are of the mean picture and
    person.
    """
    sd = 0.5 * (subjects >= MIN_SUBJECTS_FOR_POPULATION)
    shared = random.normal(0, ITEM_SD, (1, 1, 1, items)) + random.normal(
        0, sd, (1, subjects, 1, 1)
    )
    by_method = random.normal(0, 0.7, (2, 1, 1, items)) + random.normal(
        0, sd / 2, (2, subjects, 1, 1)
    )
    centres = logit(rates)
    drawn = np.broadcast_to(
        centres[:, None, None, None] + shared + by_method, (2, subjects, seeds, items)
    )
    result = compare_values(*(list(hits) for hits in draw_hits(random, drawn)))
    spread = float(np.sqrt(ITEM_SD**2 + 0.7**2 + 1.25 * sd**2))
    first, second = (mean_hit(float(centre), spread) for centre in centres)
    is_shown = result.p_value is not None and result.p_value <= LEVEL
    low, high = (-1.0, 1.0) if result.low is None else (result.low, result.high)
    held = low <= first - second <= high
    return [first, second, held, high - low, is_shown, is_shown == (low <= 0 <= high)]
