"""A wrong order of pictures is named only if pictures are filed in it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.simulated_statistics import Random, Values
from brainhive_cli.evaluation.retrieval.baseline import (
    AS_FILED,
    ORDERS,
    choose_order,
    rank_by_ridge,
    try_orders,
)
from brainhive_cli.measurement.units import StimulusGrouping

AXES: Mapping[str, Sequence[Any]] = {
    "subjects": (1, 3),
    "effect": (0.0, 0.25, 0.4),
    "order": ("as filed", "reversed"),
}
COLUMNS = "any order is named | the right one"


def misfiled(random: Random, subjects: int, effect: float, order: str) -> list[float]:
    """How often a ridge says that pictures are filed in a wrong order, and the right
    one.

    Signals of 40 features are of 100 training and 24 test pictures with 12 features;
    the test pictures of the last subject lie in the given order.
    """
    known, candidates = random.normal(size=(100, 12)), random.normal(size=(24, 12))
    rows, tried = np.arange(24), []
    for subject in range(1, subjects + 1):
        mixing = effect * random.normal(size=(12, 40)) / 12**0.5
        train = known @ mixing + random.normal(size=(100, 40))
        test = candidates @ mixing + random.normal(size=(24, 40))
        test = test[ORDERS[order if subject == subjects else AS_FILED](rows)]
        signals, targets, tested, shown = map(
            as_floats, (train, known, test, candidates)
        )
        orders = {name: refile(np.arange(100)) for name, refile in ORDERS.items()}
        ranked = rank_by_ridge(signals, targets, orders, tested, shown)
        tried += try_orders(subject, ranked, rows, rows, StimulusGrouping())
    found = choose_order(tried).order
    is_right = found == (
        f"training pictures of subject {subjects} {AS_FILED} and test pictures {order}"
    )
    return [float(found != ""), float(is_right)]


def as_floats(values: Values) -> torch.Tensor:
    """Copy values to a float32 tensor."""
    return torch.from_numpy(values.copy()).float()
