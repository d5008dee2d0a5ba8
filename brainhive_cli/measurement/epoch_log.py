"""Test scores by epoch in the training logs of another project."""

import re
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from brainhive_cli.core.base import Float64
from brainhive_cli.measurement.foreign_result import ForeignResult

MAX_ROUNDING_POINTS = 0.5
"""Rounding error of a claim without decimals, in percentage points."""
SCORE_KIND = re.compile(
    r"test|val(id(ation)?)?|dev|train(ing)?|(top|acc|recall)[\W_]?\d|acc(uracy)?|loss|"
    r"rank|auc|recall|top"
)
"""Matches the kind of score and the split in a name, such as "val" and "top1"."""


@dataclass(frozen=True)
class EpochLog:
    """Test scores of a training by epoch, read from the log of another project.

    Attributes:
        column: Name of the test scores in the log file.
        scores: Test score [E] of each of E epochs, in percent.
        usual_scores: Test scores [U] in percent at the last epoch, and at the best
            epochs by each validation or training score.
        unselected_scores: Scores [S] in percent that can be reported without choosing
            an epoch by its test score: `usual_scores`, and the means of the test scores
            of the last 1, 2, … E epochs.
        is_validated: True if the log also has a validation score of each epoch.
        rounding: Largest rounding error of the scores in the file, in percentage
            points.
    """

    column: str
    scores: Float64
    usual_scores: Float64
    unselected_scores: Float64
    is_validated: bool
    rounding: float


def find_logs(result: ForeignResult) -> dict[str, EpochLog]:
    """Find the test scores of the checked top-k in the log of a result.

    Args:
        result: Result of another project, whose log has scores by epoch.

    Returns:
        Log of each training, keyed by the name of the training.
    """
    # the columns of each training, in a single pass because a log may have thousands
    names_of_training = defaultdict[str, list[str]](list)
    for name in result.log:
        names_of_training[_find_training(name)].append(name)

    # the test score of each training, where a name with the checked k wins
    test_names = dict[str, str]()
    # Matches names of scores whose smallest value is the best.
    lower_is_better = re.compile("loss|rank(?!_?auc)")
    for name in sorted(result.log, key=_find_k, reverse=True):
        column = _find_column(name)
        is_test = "test" in column and not lower_is_better.search(column)
        if is_test and _find_k(name) in (0, result.k):
            test_names.setdefault(_find_training(name), name)

    # if no score exceeds 1, the scores are shares, not percentages
    scale = 1
    if test_names:
        largest = max(np.nanmax(result.log[name]) for name in test_names.values())
        scale = 100 if largest <= 1 else 1

    logs = dict[str, EpochLog]()
    for training, test_name in test_names.items():
        # means of the last 1, 2, ... E epochs
        scores = scale * result.log[test_name]
        last_scores = scores[np.isfinite(scores)][::-1]
        means_of_last = last_scores.cumsum() / np.arange(1, len(last_scores) + 1)
        usual_scores = [last_scores[:1]]

        # test scores at the best epochs by each validation or training score
        is_validated = False
        for name in names_of_training[training]:
            column = _find_column(name)
            values = result.log[name]
            if len(values) != len(scores) or "test" in column:
                continue
            signed = -values if lower_is_better.search(column) else values
            is_best = signed == np.nanmax(signed)
            usual_scores.append(scores[is_best])
            is_validated |= bool(re.search("val|dev", column))
        logs[training] = EpochLog(
            column=_find_column(test_name),
            scores=scores,
            usual_scores=np.concatenate(usual_scores),
            unselected_scores=np.concatenate([means_of_last, *usual_scores]),
            is_validated=is_validated,
            rounding=compute_rounding(scores),
        )
    return logs


def _find_column(name: str) -> str:
    """Return the part of a name after the last colon, or the name without a colon."""
    return name.rpartition(":")[2]


def _find_training(name: str) -> str:
    """Return the name of a score without its kind and split, which names a training."""
    return SCORE_KIND.sub("", name)


def _find_k(name: str) -> int:
    """Return the k of a top-k score by its name, or 0 if the name has no k."""
    letters = re.sub(r"[^a-z0-9]", "", _find_column(name))
    # Matches the name of a top-k score without punctuation. The group is k.
    match = re.search(r"(?:top|acc|recall)(\d)", letters)
    return int(match[1]) if match else 0


def compute_rounding(values: Float64 | float) -> float:
    """Compute the largest rounding error of percentages from their decimals.

    Args:
        values: Percentages of any shape.

    Returns:
        Half a unit of the last decimal, in percentage points, for at most two decimals.
    """
    for decimals in (0, 1):
        rounded = np.round(values, decimals)
        if np.allclose(values, rounded, rtol=0, atol=1e-6, equal_nan=True):
            return MAX_ROUNDING_POINTS / 10**decimals + 1e-6
    return MAX_ROUNDING_POINTS / 100 + 1e-6
