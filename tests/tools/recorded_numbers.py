"""Numbers that were recorded once, beside those that a test computes.

Simulations show that intervals hold and tests keep their level, but they are too slow
and too coarse to notice a small change. Recorded numbers notice any change. If it is
meant, run the test with `--force-regen`, read the difference of the file, and say in
the commit what shows that the new numbers are right.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from pytest_regressions.data_regression import DataRegressionFixture

from brainhive_cli.core.measurements import Metric

LONGEST = 12
"""Numbers of an array that are recorded one by one."""
ROUNDING = 1e-9
"""Numbers closer to 0 than this are 0."""


def numbers_of(value: Any, digits: int) -> Any:
    """Give the numbers in a value of any kind, and of its texts those in them.

    A long array is recorded as its shape, its mean and a mean with weights of its own
    for each position.

    Args:
        value: Numbers, texts, arrays, lists, mappings or dataclasses.
        digits: Significant digits.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach().double().numpy()
    if isinstance(value, np.ndarray) and value.size > LONGEST:
        flat = np.nan_to_num(value.astype(np.float64), nan=-1).ravel()
        weighted = np.mean(flat * np.cos(np.arange(len(flat))))
        value = [*value.shape, float(flat.mean()), float(weighted)]
    elif isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(name): numbers_of(item, digits) for name, item in value.items()}
    if isinstance(value, str):
        return " ".join(re.findall(r"\d[\d.,e-]*", value))
    if isinstance(value, list | tuple):
        items = [numbers_of(item, digits) for item in value]
        # a line of the file for a row of numbers
        is_row = not any(isinstance(item, dict | list) for item in items)
        return ", ".join(map(str, items)) if is_row else items
    if isinstance(value, float):
        return 0.0 if abs(value) <= ROUNDING else float(f"{value:.{digits}g}")
    return value


def metric_rows(metrics: Mapping[str, Metric]) -> dict[str, list[Any]]:
    """Give the numbers of metrics by name, a line for each."""
    fields = ("value", "low", "high", "chance", "n", "pool")
    return {
        name: [getattr(metric, field) for field in fields]
        + [*(metric.these_subjects or ()), metric.seed_sd]
        for name, metric in metrics.items()
    }


class Recorded:
    """Compares values with the recorded ones."""

    def __init__(self, regression: DataRegressionFixture) -> None:
        self.regression = regression

    def __call__(self, digits: int = 7, **values: Any) -> None:
        self.regression.check(numbers_of(values, digits))


@pytest.fixture
def recorded(data_regression: DataRegressionFixture) -> Recorded:
    """Compare named values with those in the file of the test."""
    return Recorded(data_regression)
