"""Transfer is said to beat scratch at some amount only if it does."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.hits import ITEM_SD, draw_hits
from benchmarks.simulated_statistics.judging import HOW
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
    """Calibration: how often transfer is said to beat scratch at one of eight amounts.

    Both have logits from -3 to -1; of the first four amounts, transfer has more by the
    gain. Draws of recordings vary by .25. Beside it stands an interval at each amount.
    """
    item, person = random.normal(0, ITEM_SD, 100), random.normal(0, 0.5, (people, 1))
    items, gains, apart = Items.from_sizes([100] * people), [], []
    for amount, level in enumerate(np.linspace(-3, -1, 8)):
        count = draws if amount < 7 else 1
        surplus = gain if amount < 4 else 0.0
        with_, without = (
            draw_hits(
                random,
                level
                + more
                + item
                + person[:, None]
                + random.normal(0, 0.25, (people, count, 1)),
            ).mean(1)
            for more in (surplus, 0.0)
        )
        gains.append([*(with_ - without)])
        options: Any = {"limits": (-1.0, 1.0), "chance": 0.0, "items": items, **HOW}
        low = measure(GAIN, gains[-1], **options).low
        apart.append(low is not None and low > 0)
    up_to, no_better = find_better_amounts(gains, items) or (0, 8)
    return [
        float(any(apart)),
        float(up_to > 0),
        float(up_to == 4),
        float(no_better < 8),
    ]
