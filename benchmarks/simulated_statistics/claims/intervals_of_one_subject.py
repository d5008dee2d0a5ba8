"""The interval of a single subject holds for items in general with any seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.hits import ITEM_SD, ITEMS, draw_hits, mean_hit
from benchmarks.simulated_statistics.judging import holds
from brainhive_cli.measurement.statistics import estimate_interval

AXES: Mapping[str, Sequence[Any]] = {
    "items": (10, 30, ITEMS),
    "seeds": (1, 3),
    "centre": (0.0, 2.2, 4.0),
}
COLUMNS = "mean hit | coverage | mean width"


def intervals_of_one_subject(
    random: Random, items: int, seeds: int, centre: float
) -> list[float]:
    """Test the interval of a single subject."""
    logits = np.tile(random.normal(centre, ITEM_SD, (1, items)), (seeds, 1))
    interval = estimate_interval([draw_hits(random, logits)])
    truth = mean_hit(centre, ITEM_SD)
    return [truth, holds(interval, truth), interval.high - interval.low]
