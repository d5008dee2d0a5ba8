"""Numbers that were recorded once, beside those that a test computes.

Simulations show that intervals hold and tests keep their level, but they are too slow
and too coarse to notice a small change. Recorded numbers notice any change beyond the
rounding of another machine. If it is meant, run the test with `--force-regen`, read the
difference of the file, and say in the commit what shows that the new numbers are right.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import BaseModel
from pytest_regressions.common import perform_regression_check
from pytest_regressions.data_regression import (
    DataRegressionFixture,
    RegressionYamlDumper,
)

from brainhive_cli.core.measurements import Metric

LONGEST = 12
"""Numbers of an array that are recorded one by one."""
ROUNDING = 1e-9
"""Numbers closer to 0 than this are 0."""
FLOAT32 = 6e-8
"""Half the distance of numbers of float32 at 1: what is left of a sum that is 0."""
LAST_DIGITS = 2
"""Units of the last recorded digit by which a number may differ."""
LEAST_CHANGE = 2e-3
"""A larger relative difference is always noticed, however few digits are recorded."""
DECIMAL = re.compile(r"(-?\d+(?:\.\d+)?e[+-]?\d+|-?\d+\.\d+)")
"""A decimal in a text; a whole number is none."""
MOST_SHOWN = 50
"""Differences that the message of a failure lists."""


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


def differences(
    recorded: Any, found: Any, relative: float, absolute: float, place: str = ""
) -> Iterator[str]:
    """Describe each place where two values differ, a line for each.

    Args:
        recorded: Mappings, lists, texts and numbers, as in a file.
        found: The same of a test.
        relative: Relative difference up to which decimals are equal.
        absolute: Absolute difference up to which decimals are equal.
        place: Where the values are.
    """
    if isinstance(recorded, dict) and isinstance(found, dict):
        for name in recorded | found:
            inner = f"{place} / {name}" if place else str(name)
            if name not in found:
                yield f"{inner}: is missing, {recorded[name]} was recorded"
            elif name not in recorded:
                yield f"{inner}: {found[name]} is new"
            else:
                values = recorded[name], found[name]
                yield from differences(*values, relative, absolute, inner)
    elif (
        isinstance(recorded, list)
        and isinstance(found, list)
        and len(recorded) == len(found)
    ):
        for index, values in enumerate(zip(recorded, found, strict=True)):
            yield from differences(*values, relative, absolute, f"{place}[{index}]")
    elif isinstance(recorded, str) and isinstance(found, str):
        # texts around decimals, and between them the decimals
        parts = [*zip_longest(DECIMAL.split(recorded), DECIMAL.split(found))]
        texts, decimals = parts[::2], parts[1::2]
        is_close = partial(math.isclose, rel_tol=relative, abs_tol=absolute)
        if any(first != second for first, second in texts):
            yield f"{place}: {recorded} was recorded, {found} is found"
            return
        for index, (first, second) in enumerate(decimals):
            if not is_close(float(first), float(second)):
                yield f"{place}: {first} was recorded, {second} is found ({index})"
    elif isinstance(recorded, float) and isinstance(found, float):
        is_same = math.isclose(recorded, found, rel_tol=relative, abs_tol=absolute)
        if not is_same and not (math.isnan(recorded) and math.isnan(found)):
            yield f"{place}: {recorded} was recorded, {found} is found"
    elif type(recorded) is not type(found) or recorded != found:
        yield f"{place}: {recorded} was recorded, {found} is found"


def compare_files(
    found_path: Path, recorded_path: Path, relative: float, absolute: float
) -> None:
    """Compare the numbers of two files (see `differences`).

    Raises:
        AssertionError: if they differ.
    """
    recorded, found = (
        yaml.safe_load(path.read_text("utf-8")) for path in (recorded_path, found_path)
    )
    lines = [*differences(recorded, found, relative, absolute)]
    if lines:
        shown = lines[:MOST_SHOWN]
        if len(lines) > MOST_SHOWN:
            shown.append(f"and {len(lines) - MOST_SHOWN} more")
        raise AssertionError("\n".join([f"other numbers: {found_path}", *shown]))


class Recorded:
    """Compares values with the recorded ones.

    Text and whole numbers are equal. Decimals differ by two units of their last digit
    at most, because machines round differently.
    """

    def __init__(self, regression: DataRegressionFixture) -> None:
        self.regression = regression

    def __call__(self, digits: int = 7, rounding: Any = 0.0, **values: Any) -> None:
        """Compare named values with those in the file of the test.

        Args:
            digits: Significant digits.
            rounding: Absolute difference up to which decimals are equal, for sums that
                are 0 but for rounding.
            values: What is recorded.
        """
        text = yaml.dump(
            numbers_of(values, digits),
            Dumper=RegressionYamlDumper,
            default_flow_style=False,
            allow_unicode=True,
            indent=2,
        )

        def write(path: Path) -> None:
            path.write_text(text, "utf-8")

        relative = min(LAST_DIGITS * 10.0 ** (1 - digits), LEAST_CHANGE)
        perform_regression_check(
            datadir=self.regression.datadir,
            original_datadir=self.regression.original_datadir,
            request=self.regression.request,
            check_fn=partial(compare_files, relative=relative, absolute=rounding),
            dump_fn=write,
            extension=".yml",
        )


@pytest.fixture
def recorded(data_regression: DataRegressionFixture) -> Recorded:
    """Compare named values with those in the file of the test."""
    return Recorded(data_regression)
