"""Generalised cross-validation by hat matrices in float64."""

import numpy as np
from numpy.typing import ArrayLike

from brainhive_cli.measurement.linear_maps import MIN_FREEDOM, PENALTY_GRID


def choose_penalty_by_hat_matrix(
    features: ArrayLike, outputs: ArrayLike, is_centred: bool = True
) -> float:
    """Choose the penalty of a ridge from the residuals of each penalty of the grid.

    Args:
        features: Features [N, F].
        outputs: Outputs [N, Q].
        is_centred: If True, subtract the means of features and outputs.

    Source: Golub, Heath and Wahba 1979.
    """
    x = np.asarray(features, np.float64)
    y = np.asarray(outputs, np.float64)
    freedom = len(x)
    if is_centred:
        x = x - x.mean(0)
        y = y - y.mean(0)
        freedom = max(1, len(x) - 1)
    y = y / np.sqrt((y**2).sum(0))
    gram = x @ x.T
    scores = []
    for penalty in PENALTY_GRID:
        alpha = np.trace(gram) / x.shape[1] * penalty / freedom
        # a residual of the dual form needs no difference of large numbers
        inverse = np.linalg.inv(gram + alpha * np.eye(len(x)))
        residual = alpha * inverse @ y
        n_left = alpha * np.trace(inverse) - is_centred
        if n_left / freedom > MIN_FREEDOM:
            score = (residual**2).sum(0).mean() / (n_left / freedom) ** 2
            scores.append((score, -alpha))
    return -min(scores)[1]
