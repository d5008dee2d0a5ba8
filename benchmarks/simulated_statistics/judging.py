"""Ranks, verdicts and intervals, judged as an evaluation judges them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Values
from brainhive_cli.core.facts import Answer
from brainhive_cli.measurement.units import Items
from brainhive_cli.measurement.verdict import judge

LEVEL = 0.05
HOW: Mapping[str, Any] = {"protocol": "simulated", "split": "test", "is_share": False}


def holds(interval: Any, truth: float) -> bool:
    """Whether an interval holds the truth."""
    return bool(interval.low <= truth <= interval.high)


def rank_all(signals: Values, pictures: Values) -> Values:
    """Rank all pictures [P, D] by each signal [N, D]: [N, P]."""
    order = (-(signals @ pictures.T)).argsort(1)
    counted = np.empty_like(order)
    np.put_along_axis(counted, order, np.arange(1, len(pictures) + 1)[None], 1)
    return counted.astype(np.float64)


def answer(ranked: Sequence[Values], items: Items, **options: Any) -> Answer:
    """Give the verdict of ranks of all items by all."""
    return judge(ranked, items, items.names, **options)[0]
