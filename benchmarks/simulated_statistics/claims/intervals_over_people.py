"""Intervals of several subjects hold for people in general and for these subjects."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.hits import ITEM_SD, ITEMS, draw_hits, mean_hit
from benchmarks.simulated_statistics.judging import holds
from brainhive_cli.measurement.statistics import estimate_interval

CENTRES = (0.0, -1.5, -4.0, 3.0)
"""Mean logits: hits of .5, .25, .05 and .9."""
AXES: Mapping[str, Sequence[Any]] = {
    "subjects": (2, 4, 6, 8, 10, 15, 20),
    "sd": (0.3, 1.0),
    "centre": CENTRES,
}
COLUMNS = "mean hit | people in general | mean width | these subjects"


def intervals_over_people(
    random: Random, subjects: int, sd: float, centre: float
) -> list[float]:
    """Intervals of several subjects, for people in general and for these."""
    by_subject = centre + random.normal(0, sd, (subjects, 1))
    interval = estimate_interval(
        list(draw_hits(random, by_subject + random.normal(0, ITEM_SD, (1, ITEMS))))
    )
    truth = mean_hit(centre, float(np.hypot(ITEM_SD, sd)))
    here = float(np.mean([mean_hit(logit, ITEM_SD) for logit in by_subject[:, 0]]))
    low, high = interval.these_subjects
    return [
        truth,
        holds(interval, truth),
        interval.high - interval.low,
        low <= here <= high,
    ]
