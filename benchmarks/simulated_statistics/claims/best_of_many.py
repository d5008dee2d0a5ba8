"""The best of equal variants is not above the truth if validation chose it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.hits import ITEM_SD, ITEMS, draw_hits, mean_hit

AXES: Mapping[str, Sequence[Any]] = {"variants": (2, 8)}
COLUMNS = "chosen on test | on validation"


def best_of_many(random: Random, variants: int) -> list[float]:
    """Measure how far the best test top-1 of equal variants exceeds the truth."""
    truth = mean_hit(0, ITEM_SD)
    logits = random.normal(0, ITEM_SD, (2, 1, ITEMS))
    validation = draw_hits(random, np.repeat(logits[0], variants, 0)).mean(1)
    test = draw_hits(random, np.repeat(logits[1], variants, 0)).mean(1)
    return [float(test.max()) - truth, float(test[validation.argmax()]) - truth]
