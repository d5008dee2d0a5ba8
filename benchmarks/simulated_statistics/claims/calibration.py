"""Intervals over draws of a calibration hold for people in general and for these."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.hits import ITEM_SD, ITEMS, draw_hits, mean_hit
from brainhive_cli.measurement.statistics import measure

AXES: Mapping[str, Sequence[Any]] = {
    "people": (4, 5, 8),
    "draws": (2, 10),
    "centre": (0.0, -1.5, -3.0),
}
COLUMNS = "mean hit | people in general | width | these people"


def calibration(random: Random, people: int, draws: int, centre: float) -> list[float]:
    """Test intervals of top-1 over draws, for people in general and for these.

    People differ by .5 in logits, the draws of a person by .15. Pictures are the same
    for all. Widths are for people in general.
    """
    # hits [people, draws, N] after few recordings
    picture = random.normal(0, ITEM_SD, (1, 1, ITEMS))
    person = random.normal(0, 0.5, (people, 1, 1))
    draw = random.normal(0, 0.15, (people, draws, 1))
    hits = draw_hits(random, centre + person + draw + picture)

    # true top-1, for people in general and for these
    spread = float(np.hypot(ITEM_SD, 0.15))
    truth = mean_hit(centre, float(np.hypot(spread, 0.5)))
    hit_rates = [mean_hit(centre + offset, spread) for offset in person.ravel()]
    truth_of_these = float(np.mean(hit_rates))

    options: Any = {"protocol": "simulated", "split": "test", "limits": (0.0, 1.0)}
    metric = measure("top1", list(hits), **options)
    low, high = metric.people or (np.nan, np.nan)
    low_of_these, high_of_these = metric.these_subjects or (np.nan, np.nan)
    return [
        truth,
        np.nan if np.isnan(low) else low <= truth <= high,
        high - low,
        low_of_these <= truth_of_these <= high_of_these,
    ]
