"""The range of a sufficient calibration amount holds the first that suffices."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.hits import ITEM_SD, draw_hits
from brainhive_cli.evaluation.calibration.curves import ENOUGH, find_crossing
from brainhive_cli.measurement.comparison import crossed_t_test
from brainhive_cli.measurement.units import Items

SHARES = np.array([5, 10, 20, 50, 100, 200, 400, 960]) / 960
AXES: Mapping[str, Sequence[Any]] = {
    "people": (3, 4, 5, 8),
    "draws": (2, 10),
    "centre": (1.0, -1.0, -2.5),
}
COLUMNS = "first | by value | range holds | amounts between | nothing said"


def sufficient_amounts(
    random: Random, people: int, draws: int, centre: float
) -> list[float]:
    """Calibration: how often a range holds the first of eight amounts that gives 90 %
    of everything.

    Logits grow from -3 to a centre by a power of the amount, .1, which varies over
    people by .3 (log-normal); people, draws and pictures vary as above. Beside it, the
    first amount that does so by its value.
    """
    quantiles = norm.ppf((np.arange(100) + 0.5) / 100)
    spread = float(np.hypot(ITEM_SD, np.hypot(0.5, 0.15)))

    def curve(deviate: Any) -> Any:
        return -3 + (centre + 3) * SHARES[:, None] ** (0.1 * np.exp(0.3 * deviate))

    truth = expit(curve(quantiles)[..., None] + spread * quantiles).mean((1, 2))
    first = int((truth < ENOUGH * truth[-1]).sum())

    # hits [A, people, N], averaged over draws; of everything there is one draw
    logits = curve(random.normal(size=people))[..., None, None] + random.normal(
        0, 0.5, (people, 1, 1)
    )
    logits = logits + random.normal(0, 0.15, (8, people, draws, 1))
    hits = draw_hits(random, logits + random.normal(0, ITEM_SD, 100))
    hits[-1] = hits[-1, :, :1]
    hits = hits.mean(2)

    # the range, and the first amount by its value
    ends = [
        crossed_t_test(list(few - ENOUGH * hits[-1]), Items.from_sizes([100] * people))[
            1:
        ]
        for few in hits[:-1]
    ]
    low, high = find_crossing(ends)
    shares = hits.mean((1, 2)) / hits[-1].mean()
    by_value = 1 + max(np.flatnonzero(shares[:-1] < ENOUGH), default=-1)
    return [
        first,
        by_value == first,
        low <= first <= high,
        high - low,
        low == 0 and high == 7,
    ]
