"""Transfer is reported to beat scratch at some amount only if it does."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.hits import ITEM_SD, draw_hits
from benchmarks.simulated_statistics.judging import MEASURE_OPTIONS
from brainhive_cli.evaluation.calibration.curves import GAIN, find_better_amounts
from brainhive_cli.measurement.statistics import measure
from brainhive_cli.measurement.units import Items

AXES: Mapping[str, Sequence[Any]] = {
    "people": (2, 3, 5, 8, 20),
    "draws": (3,),
    "gain": (0.0, 0.5),
}
COLUMNS = "one interval above 0 | said to be better | up to the fourth | no better"


def better_amounts(random: Random, people: int, draws: int, gain: float) -> list[float]:
    """Test how often transfer is reported to beat scratch at one of eight amounts.

    The logits of both grow from -3 to -1. At the first four amounts, those of transfer
    are higher by the gain. Draws of recordings vary by .25. For comparison, an interval
    is computed at each amount.
    """
    item = random.normal(0, ITEM_SD, 100)
    person = random.normal(0, 0.5, (people, 1))
    items = Items.from_sizes([100] * people)
    gains = []
    is_positive = []
    for amount, level in enumerate(np.linspace(-3, -1, 8)):
        count = draws if amount < 7 else 1
        hit_rates = []
        for surplus in (gain if amount < 4 else 0.0, 0.0):
            noise = random.normal(0, 0.25, (people, count, 1))
            logits = level + surplus + item + person[:, None] + noise
            hit_rates.append(draw_hits(random, logits).mean(1))
        transfer, scratch = hit_rates
        gains.append(list(transfer - scratch))
        options: Any = {"limits": (-1.0, 1.0), "chance": 0.0, "items": items}
        low = measure(GAIN, gains[-1], **options, **MEASURE_OPTIONS).low
        is_positive.append(low is not None and low > 0)
    last_better, first_equal = find_better_amounts(gains, items) or (0, 8)
    return [
        float(any(is_positive)),
        float(last_better > 0),
        float(last_better == 4),
        float(first_equal < 8),
    ]
