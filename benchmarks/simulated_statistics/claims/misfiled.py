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
    """Test how often a ridge names a wrong order of the pictures, and the right order.

    There are 100 training and 24 test pictures with 12 features, and signals of 40
    features. The test pictures of the last subject lie in the given order.
    """
    train_pictures = random.normal(size=(100, 12))
    test_pictures = random.normal(size=(24, 12))
    rows = np.arange(24)
    orders = {name: refile(np.arange(100)) for name, refile in ORDERS.items()}
    trials = []
    for subject in range(1, subjects + 1):
        mixing = effect * random.normal(size=(12, 40)) / 12**0.5
        train = train_pictures @ mixing + random.normal(size=(100, 40))
        test = test_pictures @ mixing + random.normal(size=(24, 40))
        test = test[ORDERS[order if subject == subjects else AS_FILED](rows)]
        ranks = rank_by_ridge(
            to_tensor(train),
            to_tensor(train_pictures),
            orders,
            to_tensor(test),
            to_tensor(test_pictures),
        )
        trials += try_orders(subject, ranks, rows, rows, StimulusGrouping())
    named_order = choose_order(trials).order
    is_correct = named_order == (
        f"training pictures of subject {subjects} {AS_FILED} and test pictures {order}"
    )
    return [float(named_order != ""), float(is_correct)]


def to_tensor(values: Values) -> torch.Tensor:
    """Copy values to a float32 tensor."""
    return torch.from_numpy(values.copy()).float()
