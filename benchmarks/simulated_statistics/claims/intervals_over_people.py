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
    """Test intervals of several subjects, for people in general and for these."""
    subject_logits = centre + random.normal(0, sd, (subjects, 1))
    logits = subject_logits + random.normal(0, ITEM_SD, (1, ITEMS))
    interval = estimate_interval(list(draw_hits(random, logits)))
    truth = mean_hit(centre, float(np.hypot(ITEM_SD, sd)))
    hit_rates = [mean_hit(logit, ITEM_SD) for logit in subject_logits[:, 0]]
    truth_of_these = float(np.mean(hit_rates))
    low, high = interval.these_subjects
    return [
        truth,
        holds(interval, truth),
        interval.high - interval.low,
        low <= truth_of_these <= high,
    ]
