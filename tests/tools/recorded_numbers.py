"""Comparison of a test's numbers with recorded numbers.

Simulations of coverage and level are too slow and coarse for small changes. Recorded
numbers reveal any change beyond the rounding of another machine. The numbers of the
tests of `test_file.py` lie in `test_file.yml`, by the name of the test. To accept a
change, run the test with `--rewrite`, read the difference of the file, and give
evidence for the new numbers in the commit.
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

from brainhive_cli.core.results.measurements import Metric

LONGEST = 12
"""Size of the longest array that is recorded number by number."""
EMPTY = (None, "", {}, [])
"""Values of a mapping that are not recorded."""
LINE_WIDTH = 120
"""Characters of a line of a file."""
LONGEST_ON_A_LINE = 100
"""Characters of a mapping or list that is written on a line."""
ROUNDING = 1e-9
"""Numbers closer to 0 than this are 0."""
FLOAT32 = 6e-8
"""Rounding error of float32 at 1, which remains in a sum that is 0."""
LAST_DIGITS = 2
"""Units of the last recorded digit by which a number may differ."""
LEAST_CHANGE = 2e-3
"""Largest relative tolerance, for few recorded digits."""
DECIMAL = re.compile(r"(-?\d+(?:\.\d+)?e[+-]?\d+|-?\d+\.\d+)")
"""A decimal in a text, but not a whole number."""
MOST_SHOWN = 50
"""Largest number of differences in a message."""


def extract_numbers(value: Any, digits: int) -> Any:
    """Extract the numbers of a value and of the texts in it.

    A long array or list becomes its shape, its mean and a mean weighted by position.

    Args:
        value: Numbers, texts, arrays, lists, mappings or dataclasses.
        digits: Significant digits.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach().double().numpy()
    is_long = isinstance(value, list | tuple) and len(value) > LONGEST
    if is_long and all(type(item) in (int, float) for item in value):
        value = np.array(value)
    if isinstance(value, np.ndarray) and value.size > LONGEST:
        flat = np.nan_to_num(value.astype(np.float64), nan=-1).ravel()
        weighted = np.mean(flat * np.cos(np.arange(len(flat))))
        value = list(value.shape) + [float(flat.mean()), float(weighted)]
    elif isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        value = {name: getattr(value, name) for name in names}
    if isinstance(value, Mapping):
        extracted = {
            str(name): extract_numbers(item, digits) for name, item in value.items()
        }
        return {name: item for name, item in extracted.items() if item not in EMPTY}
    if isinstance(value, str):
        return " ".join(re.findall(r"\d[\d.,e-]*", value))
    if isinstance(value, list | tuple):
        items = [extract_numbers(item, digits) for item in value]
        # write a row of numbers as a line of the file
        is_row = not any(isinstance(item, dict | list) for item in items)
        return ", ".join(map(str, items)) if is_row else items
    if isinstance(value, float):
        return 0.0 if abs(value) <= ROUNDING else float(f"{value:.{digits}g}")
    return value


def metric_rows(metrics: Mapping[str, Metric]) -> dict[str, list[Any]]:
    """Return a row of numbers for each metric, by its name."""
    rows: dict[str, list[Any]] = {}
    for name, metric in metrics.items():
        row: list[Any] = [metric.value, metric.low, metric.high, metric.chance]
        row += [metric.n, metric.pool]
        row += metric.these_subjects or ()
        rows[name] = row + [metric.seed_sd]
    return rows


def list_differences(
    recorded: Any, actual: Any, relative: float, absolute: float, path: str = ""
) -> Iterator[str]:
    """Yield a line for each difference between two values.

    Args:
        recorded: Mappings, lists, texts and numbers of a file.
        actual: Such values of a test.
        relative: Relative tolerance of decimals.
        absolute: Absolute tolerance of decimals.
        path: Path of the values, for the lines.
    """
    if isinstance(recorded, dict) and isinstance(actual, dict):
        for name in recorded | actual:
            inner = f"{path} / {name}" if path else str(name)
            if name not in actual:
                yield f"{inner}: is missing, {recorded[name]} was recorded"
            elif name not in recorded:
                yield f"{inner}: {actual[name]} is new"
            else:
                yield from list_differences(
                    recorded[name], actual[name], relative, absolute, inner
                )
    elif (
        isinstance(recorded, list)
        and isinstance(actual, list)
        and len(recorded) == len(actual)
    ):
        for index, value in enumerate(recorded):
            inner = f"{path}[{index}]"
            yield from list_differences(value, actual[index], relative, absolute, inner)
    elif isinstance(recorded, str) and isinstance(actual, str):
        # split into texts and the decimals between them
        pieces = list(zip_longest(DECIMAL.split(recorded), DECIMAL.split(actual)))
        texts, decimals = pieces[::2], pieces[1::2]
        is_close = partial(math.isclose, rel_tol=relative, abs_tol=absolute)
        if any(old_text != new_text for old_text, new_text in texts):
            yield f"{path}: {recorded} was recorded, {actual} is found"
            return
        for index, (old_text, new_text) in enumerate(decimals):
            if not is_close(float(old_text), float(new_text)):
                yield f"{path}: {old_text} was recorded, {new_text} is found ({index})"
    elif isinstance(recorded, float) and isinstance(actual, float):
        is_same = math.isclose(recorded, actual, rel_tol=relative, abs_tol=absolute)
        if not is_same and not (math.isnan(recorded) and math.isnan(actual)):
            yield f"{path}: {recorded} was recorded, {actual} is found"
    elif type(recorded) is not type(actual) or recorded != actual:
        yield f"{path}: {recorded} was recorded, {actual} is found"


class ShortLines(yaml.SafeDumper):
    """Writer of YAML that writes a short mapping or list on a line."""

    def represent_data(self, data: Any) -> yaml.Node:
        """Represent a value, and choose its lines by its length."""
        node = super().represent_data(data)
        if isinstance(node, yaml.CollectionNode):
            node.flow_style = len(str(data)) < LONGEST_ON_A_LINE
        return node


class Recorded:
    """Comparison of the values of a test with recorded values.

    Texts and whole numbers must be equal. Decimals may differ by two units of their
    last digit, as machines round differently.

    Args:
        path: File of recorded values.
        test: Name of the test.
        rewrite: If True, values are recorded, not compared.
    """

    def __init__(self, path: Path, test: str, rewrite: bool = False) -> None:
        self.path = path
        self.test = test
        self.rewrite = rewrite

    def __call__(self, digits: int = 7, rounding: float = 0.0, **values: Any) -> None:
        """Compare named values with those in the file.

        Args:
            digits: Significant digits.
            rounding: Absolute tolerance of decimals, for sums that are 0 but for
                rounding.
            values: Values to record.

        Raises:
            AssertionError: if they differ.
        """
        tests = {}
        if self.path.is_file():
            tests = yaml.safe_load(self.path.read_text("utf-8"))
        actual = extract_numbers(values, digits)
        if self.rewrite:
            text = yaml.dump(
                tests | {self.test: actual},
                Dumper=ShortLines,
                allow_unicode=True,
                width=LINE_WIDTH,
            )
            self.path.write_text(text, "utf-8")
            return
        relative = min(LAST_DIGITS * 10.0 ** (1 - digits), LEAST_CHANGE)
        differences = list(
            list_differences(tests.get(self.test, {}), actual, relative, rounding)
        )
        if differences:
            lines = [f"other numbers than in {self.path}"] + differences[:MOST_SHOWN]
            if len(differences) > MOST_SHOWN:
                lines.append(f"and {len(differences) - MOST_SHOWN} more")
            lines.append("to accept a change: run the test with --rewrite")
            raise AssertionError("\n".join(lines))


@pytest.fixture
def recorded(request: pytest.FixtureRequest) -> Recorded:
    """Compare named values with those in the file of the test."""
    path = request.path.with_suffix(".yml")
    return Recorded(path, request.node.name, request.config.getoption("--rewrite"))
