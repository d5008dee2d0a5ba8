"""Ranks, verdicts and intervals as an evaluation computes them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Values
from brainhive_cli.core.results.facts import Answer
from brainhive_cli.measurement.units import Items
from brainhive_cli.measurement.verdict import judge

LEVEL = 0.05
MEASURE_OPTIONS: Mapping[str, Any] = {
    "protocol": "simulated",
    "split": "test",
    "is_share": False,
}


def holds(interval: Any, truth: float) -> bool:
    """Return True if the true value lies in an interval."""
    return bool(interval.low <= truth <= interval.high)


def rank_all(signals: Values, pictures: Values) -> Values:
    """Rank all pictures [P, D] by each signal [N, D]. Returns ranks [N, P]."""
    order = (-(signals @ pictures.T)).argsort(1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, len(pictures) + 1)[None], 1)
    return ranks.astype(np.float64)


def judge_items(ranks: Sequence[Values], items: Items, **options: Any) -> Answer:
    """Return the verdict on the subjects' ranks [N, N] of all items."""
    return judge(ranks, items, items.names, **options)[0]
