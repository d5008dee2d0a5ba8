"""Test scores by epoch of another project, and those of epochs that it may report."""

import re
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from brainhive_cli.core.arrays import Float64
from brainhive_cli.measurement.foreign_result import ForeignResult

ROUNDING = 0.5
"""Percentage points by which a claim is rounded at most."""
WORSE = re.compile("loss|rank(?!_?auc)")
"""Scores of a log of which the smallest is the best."""
TOP_IN_LOG = re.compile(r"(?:top|acc|recall)(\d)")
KIND = re.compile(
    r"test|val(id(ation)?)?|dev|train(ing)?|(top|acc|recall)[\W_]?\d|acc(uracy)?|loss|"
    r"rank|auc|recall|top"
)
"""What the names of one training's scores do not share."""


@dataclass(frozen=True)
class EpochLog:
    """Test scores of a training by epoch, and of the epochs that it may report.

    Attributes:
        name: As the file names the scores.
        scores: [E] in percent.
        honest: Scores of epochs that are chosen without the test: means of the last
            ones, and the best by validation or training.
        is_validated: Whether there are scores on validation of the same epochs.
        rounding: Points by which scores are rounded.
    """

    name: str
    scores: Float64
    honest: Float64
    is_validated: bool
    rounding: float


def find_logs(result: ForeignResult) -> dict[str, EpochLog]:
    """Find the test scores of the claimed kind, of each training by its name."""
    tests = dict[str, str]()  # by training
    names_of_training = defaultdict[str, list[str]](list)
    for name in result.log:
        names_of_training[KIND.sub("", name)].append(name)
    for name in sorted(result.log, key=_find_k, reverse=True):
        column = name.rpartition(":")[2]
        is_test = "test" in column and not WORSE.search(column)
        if is_test and _find_k(name) in (0, result.k):
            tests.setdefault(KIND.sub("", name), name)
    scale = 1
    if tests and max(np.nanmax(result.log[name]) for name in tests.values()) <= 1:
        scale = 100

    logs = dict[str, EpochLog]()
    for training, test in tests.items():
        scores = scale * result.log[test]
        finite = scores[np.isfinite(scores)]
        honest = [finite[::-1].cumsum() / np.arange(1, len(finite) + 1)]
        is_validated = False
        for name in names_of_training[training]:
            column = name.rpartition(":")[2]
            values = result.log[name]
            if len(values) == len(scores) and "test" not in column:
                signed = -values if WORSE.search(column) else values
                honest.append(scores[signed == np.nanmax(signed)])
                is_validated |= bool(re.search("val|dev", column))
        column = test.rpartition(":")[2]
        rounding = round_to(scores)
        logs[training] = EpochLog(
            column, scores, np.concatenate(honest), is_validated, rounding
        )
    return logs


def _find_k(name: str) -> int:
    """Find of which top-k scores are by their name; 0 if it does not say."""
    match = TOP_IN_LOG.search(re.sub(r"[^a-z0-9]", "", name.rpartition(":")[2]))
    return int(match[1]) if match else 0


def round_to(values: Float64 | float) -> float:
    """Compute by how much percentages of so few decimals are rounded."""
    for decimals in range(3):
        rounded = np.round(values, decimals)
        if np.allclose(values, rounded, rtol=0, atol=1e-6, equal_nan=True):
            break
    return ROUNDING / 10**decimals + 1e-6
