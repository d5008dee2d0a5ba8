"""Designs of cross-validation, and the classifier of their folds."""

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

from benchmarks.simulated_statistics import Values

FOLDS = [
    f"{held_out} folds, {shown} a run{drift}"
    for held_out in (
        *(f"runs, {runs} in {runs}" for runs in (3, 6, 12, 24)),
        *("runs, 24 in 12", "trials of 12 runs in 5"),
    )
    for shown in (
        *(f"2 categories x {n}" for n in (1, 5, 20)),
        "8 categories x 1",
        "8 categories x 5",
    )
    for drift in ("", ", runs drift", ", the same runs drift")
    if held_out in ("runs, 3 in 3", "runs, 6 in 6")
    or not (shown in ("2 categories x 20", "8 categories x 5") or "same" in drift)
]
"""Many runs of many trials are slow; of fewer than ten runs, statements are about
these.
"""


def score_categories(
    learned: Values, category: NDArray[np.int64], tested: Values
) -> Values:
    """Fit linear discriminant analysis with shrinkage to signals [N, F], and score
    others: [M, K].
    """
    counts = np.bincount(category)
    means = np.eye(len(counts))[category].T @ learned / np.maximum(counts, 1)[:, None]
    covariance = ledoit_wolf(learned - means[category], assume_centered=True)[0]
    weights = np.linalg.solve(covariance, means.T)  # [F, K]
    return np.asarray(
        tested @ weights - (means.T * weights).sum(0) / 2 + np.log(counts + 1e-9)
    )
