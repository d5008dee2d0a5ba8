"""Normalisation of one subject's signals, by what the training signals of that subject say."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

SMALLEST = 1e-6
"""Share of the largest variance below which a direction is not blown up: it holds rounding, not signal."""


@dataclass(frozen=True)
class Normaliser:
    """Takes the mean of each channel away, then maps channels to channels.

    Attributes:
        mean: [C, 1].
        matrix: [C, C].
    """

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]

    def __call__(self, signal: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map [..., C, T] to [..., C, T]."""
        mapped: NDArray[np.float32] = self.matrix @ (signal - self.mean)
        return mapped


def fit(how: Literal["channel", "whiten"], signals: Iterable[NDArray[np.float32]]) -> Normaliser:
    """Learn a normalisation from training signals.

    Args:
        how: "channel" gives each channel mean 0 and variance 1; "whiten" also takes the correlations between
            channels away, turning as little as possible (ZCA).
        signals: Chunks [n, C, T]; all of them together count.
    """
    count, total, products = 0, np.zeros((1, 1)), np.zeros((1, 1))  # they become [C, 1] and [C, C]
    for chunk in signals:
        flat = chunk.transpose(1, 0, 2).reshape(chunk.shape[1], -1).astype(np.float64)  # [C, n T]
        count += flat.shape[1]
        total = total + flat.sum(1, keepdims=True)
        products = products + flat @ flat.T
    mean = total / count
    covariance: NDArray[Any] = products / count - mean @ mean.T
    if how == "channel":
        covariance = np.diag(np.diag(covariance))
    variances, directions = np.linalg.eigh(covariance)
    shrink = 1 / np.sqrt(np.maximum(variances, SMALLEST * variances.max()))
    matrix = (directions * shrink) @ directions.T
    return Normaliser(mean.astype(np.float32), matrix.astype(np.float32))
