"""The range of a sufficient calibration amount holds the first that suffices."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from benchmarks.simulated_statistics import Random, Values
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
    """Test the range of the first of eight amounts that gives 90 % of the full rate.

    People, draws and pictures vary as in `calibration`. For comparison, the first
    amount is also chosen by its measured value.
    """
    quantiles = norm.ppf((np.arange(100) + 0.5) / 100)
    spread = float(np.hypot(ITEM_SD, np.hypot(0.5, 0.15)))
    truth = expit(
        compute_logits(centre, quantiles)[..., None] + spread * quantiles
    ).mean((1, 2))
    true_amount = int((truth < ENOUGH * truth[-1]).sum())

    # hits [A, people, N], averaged over draws, with a single draw of the full amount
    curves = compute_logits(centre, random.normal(size=people))
    logits = curves[..., None, None] + random.normal(0, 0.5, (people, 1, 1))
    logits = logits + random.normal(0, 0.15, (8, people, draws, 1))
    hits = draw_hits(random, logits + random.normal(0, ITEM_SD, 100))
    hits[-1] = hits[-1, :, :1]
    hits = hits.mean(2)

    items = Items.from_sizes([100] * people)
    intervals = []
    for amount_hits in hits[:-1]:
        test = crossed_t_test(list(amount_hits - ENOUGH * hits[-1]), items)
        intervals.append(test[1:])
    low, high = find_crossing(intervals)
    shares = hits.mean((1, 2)) / hits[-1].mean()
    measured_amount = 1 + max(np.flatnonzero(shares[:-1] < ENOUGH), default=-1)
    return [
        true_amount,
        measured_amount == true_amount,
        low <= true_amount <= high,
        high - low,
        low == 0 and high == 7,
    ]


def compute_logits(centre: float, deviation: Values) -> Values:
    """Compute learning curves [A, N] that grow from -3 to a centre.

    The exponent of the amount, .1, varies over people by .3 (log-normal).
    """
    exponent = 0.1 * np.exp(0.3 * deviation)
    return np.asarray(-3 + (centre + 3) * SHARES[:, None] ** exponent)
