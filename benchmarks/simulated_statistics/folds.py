"""Designs and classifier of cross-validations."""

import re
from itertools import product

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

from benchmarks.simulated_statistics import Values

HELD_OUT = (
    "runs, 3 in 3",
    "runs, 6 in 6",
    "runs, 12 in 12",
    "runs, 24 in 24",
    "runs, 24 in 12",
    "trials of 12 runs in 5",
)
TRIALS_PER_RUN = (
    "2 categories x 1",
    "2 categories x 5",
    "2 categories x 20",
    "8 categories x 1",
    "8 categories x 5",
)
DRIFTS = ("", ", runs drift", ", the same runs drift")


def _list_designs() -> list[str]:
    """Name the designs, without slow ones of many runs with many trials.

    Runs are the same in each simulation only with fewer than ten runs, where statements
    are about these runs.
    """
    designs = []
    for held_out, trials, drift in product(HELD_OUT, TRIALS_PER_RUN, DRIFTS):
        has_few_runs = held_out in ("runs, 3 in 3", "runs, 6 in 6")
        has_many_trials = trials in ("2 categories x 20", "8 categories x 5")
        if has_few_runs or not (has_many_trials or "same" in drift):
            designs.append(f"{held_out} folds, {trials} a run{drift}")
    return designs


FOLDS = _list_designs()


def parse_design(design: str) -> tuple[int, int, int, int]:
    """Return the numbers of runs, folds, categories, and trials of each per run."""
    runs, folds, categories, trials = re.findall(r"\b\d+\b", design)
    return int(runs), int(folds), int(categories), int(trials)


def score_categories(
    train: Values, category: NDArray[np.int64], test: Values
) -> Values:
    """Score test signals [M, F] by linear discriminant analysis with shrinkage.

    It is fitted to training signals [N, F] and categories [N]. Returns scores [M, K].
    """
    counts = np.bincount(category)
    means = np.eye(len(counts))[category].T @ train / np.maximum(counts, 1)[:, None]
    covariance = ledoit_wolf(train - means[category], assume_centered=True)[0]
    weights = np.linalg.solve(covariance, means.T)  # [F, K]
    log_prior = np.log(counts + 1e-9)
    return np.asarray(test @ weights - (means.T * weights).sum(0) / 2 + log_prior)
