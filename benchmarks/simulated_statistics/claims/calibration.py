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
    """Calibration: coverage of top-1 over draws, for people in general and for these.

    People differ by .5 in logits, draws by .15 for each person by itself; pictures are
    the same for all. Widths are of people in general.
    """
    # hits [people, draws, N] after few recordings
    picture = random.normal(0, ITEM_SD, (1, 1, ITEMS))
    person, by_draw = (
        random.normal(0, 0.5, (people, 1, 1)),
        random.normal(0, 0.15, (people, draws, 1)),
    )
    few = draw_hits(random, centre + person + by_draw + picture)

    # top-1, for people in general and for these
    spread = float(np.hypot(ITEM_SD, 0.15))
    truth = mean_hit(centre, float(np.hypot(spread, 0.5)))
    here = float(
        np.mean([mean_hit(centre + offset, spread) for offset in person.ravel()])
    )
    how: Any = {"protocol": "simulated", "split": "test", "limits": (0.0, 1.0)}
    metric = measure("top1", [*few], **how)
    low, high = metric.people or (np.nan, np.nan)
    first, last = metric.these_subjects or (np.nan, np.nan)
    return [
        truth,
        np.nan if np.isnan(low) else low <= truth <= high,
        high - low,
        first <= here <= last,
    ]
