"""Normalisation of signals, by the training signals of their subject or of several others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

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


class Moments(NamedTuple):
    """What normalisation needs to know of signals.

    Attributes:
        mean: [C, 1].
        covariance: [C, C].
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def of(cls, signals: Iterable[NDArray[np.float32]]) -> Self:
        """Measure chunks [n, C, T]; all of them together count."""
        count, total, products = 0, np.zeros((1, 1)), np.zeros((1, 1))  # they become [C, 1] and [C, C]
        for chunk in signals:
            flat = chunk.transpose(1, 0, 2).reshape(chunk.shape[1], -1).astype(np.float64)  # [C, n T]
            count += flat.shape[1]
            total = total + flat.sum(1, keepdims=True)
            products = products + flat @ flat.T
        mean = total / count
        return cls(mean, products / count - mean @ mean.T)

    @classmethod
    def pooled(cls, subjects: Sequence[Self]) -> Self:
        """Average the means and the covariances of several subjects: each counts alike."""
        means, covariances = zip(*subjects, strict=True)
        return cls(np.mean(means, axis=0), np.mean(covariances, axis=0))

    def normaliser(self, how: Literal["channel", "whiten"]) -> Normaliser:
        """Make the normalisation that signals of these moments need.

        Args:
            how: "channel" gives each channel mean 0 and variance 1; "whiten" also takes the correlations
                between channels away, turning as little as possible (ZCA).
        """
        covariance = np.diag(np.diag(self.covariance)) if how == "channel" else self.covariance
        variances, directions = np.linalg.eigh(covariance)
        shrink = 1 / np.sqrt(np.maximum(variances, SMALLEST * variances.max()))
        matrix = (directions * shrink) @ directions.T
        return Normaliser(self.mean.astype(np.float32), matrix.astype(np.float32))
