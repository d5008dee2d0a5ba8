"""A ceiling holds no drift where repetitions come in one order."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.drifting_signals import CHANNELS, draw_drift
from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.evaluation.retrieval.measure import measure_ceiling
from brainhive_cli.measurement.trial_order import separate_repetitions

AXES: Mapping[str, Sequence[Any]] = {
    "design": ("random", "one order", "two orders", "halves of runs", "in a row"),
    "strength": (0.5, 1.0),
    "effect": (0.0, 0.3),
}
COLUMNS = "not measured | reliability, where measured"


def ceilings_by_order(
    random: Random, design: str, strength: float, effect: float
) -> list[float]:
    """Measure the ceiling of 60 pictures in 8 runs that drift alike."""
    count = 60
    runs = 8
    orders = [random.permutation(count) for _ in range(runs)]
    if design == "one order":
        orders = orders[:1] * runs
    if design == "two orders":
        orders = orders[:2] * (runs // 2)
    if design == "halves of runs":
        halves = np.arange(count).reshape(2, -1)
        orders = [random.permuted(halves, axis=1).ravel() for _ in range(runs)]
    position = np.argsort(orders, 1).T  # [N, R]
    run_number = np.tile(np.arange(runs), (count, 1))
    if design == "in a row":
        position = orders[0][:, None] * runs + np.arange(runs)
        run_number = np.zeros((count, runs), np.int64)
    drift = draw_drift(random, position, True)
    pictures = effect * random.normal(size=(count, 1, CHANNELS))
    signals = strength * drift + random.normal(size=drift.shape) + pictures

    try:
        parts = separate_repetitions(
            np.repeat(np.arange(count), runs),
            None,
            run_number.ravel(),
            position.ravel().astype(float),
        )
    except BrainhiveError:
        return [1.0, np.nan]
    ceiling = measure_ceiling(
        torch.from_numpy(signals),
        torch.full((count,), runs),
        [str(number) for number in range(count)],
        10,
        0,
        torch.from_numpy(parts.reshape(count, runs)),
    )
    return [0.0, float(ceiling.values["reliability"].mean())]
