"""Normalisation of signals, by the training signals of their subject or of several others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError

SMALLEST = 1e-6
"""Share of the largest variance below which a direction is not amplified: it holds rounding, not signal."""
How = Literal["channel", "whiten"]
"""Each channel gets mean 0 and variance 1; or correlations between channels are removed, too."""


@dataclass(frozen=True)
class Normaliser:
    """Subtracts the mean of each channel, then maps channels to channels.

    Attributes:
        mean: [C, 1].
        matrix: [C, C]; or [C, 1], its diagonal, where channels are not mixed.
    """

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]

    def __call__(self, signal: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map [..., C, T] to [..., C, T]."""
        centred = signal - self.mean
        mapped: NDArray[np.float32] = (
            self.matrix * centred if self.matrix.shape[1] == 1 else self.matrix @ centred
        )
        return mapped


class Moments(NamedTuple):
    """Mean and spread of signals.

    Attributes:
        mean: [C, 1].
        covariance: [C, C]; or [C, 1], the variances alone: tens of thousands of voxels have no room for more.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def of(cls, signals: Iterable[NDArray[np.float32]], how: How = "whiten") -> Self:
        """Measure chunks [n, C, T], all together, for a normalisation."""
        count, total, products = 0, np.zeros((1, 1)), np.zeros((1, 1))  # they become [C, 1] and [C, C or 1]
        for chunk in signals:
            flat = chunk.transpose(1, 0, 2).reshape(chunk.shape[1], -1).astype(np.float64)  # [C, n T]
            count += flat.shape[1]
            total = total + flat.sum(1, keepdims=True)
            squares = flat @ flat.T if how == "whiten" else np.einsum("cn,cn->c", flat, flat)[:, None]
            products = products + squares
        mean = total / count
        return cls(mean, products / count - (mean @ mean.T if how == "whiten" else mean**2))

    @classmethod
    def pooled(cls, subjects: Sequence[Self]) -> Self:
        """Average the means and the covariances of several subjects, with equal weights.

        Raises:
            BrainhiveError: if they differ in width.
        """
        if len({moments.mean.shape for moments in subjects}) > 1:
            problem = "subjects of different widths have no mean normalisation"
            raise BrainhiveError(problem, "signal.normalise_by=subject")
        means, covariances = zip(*subjects, strict=True)
        return cls(np.mean(means, axis=0), np.mean(covariances, axis=0))

    def normaliser(self, how: How) -> Normaliser:
        """Make the normalisation that signals of these moments need.

        Args:
            how: "channel" gives each channel mean 0 and variance 1; "whiten" also removes the correlations
                between channels, rotating as little as possible (ZCA).
        """
        mean = self.mean.astype(np.float32)
        if how == "channel":
            is_full = self.covariance.shape[1] > 1
            variances = np.diag(self.covariance)[:, None] if is_full else self.covariance  # [C, 1]
            return Normaliser(mean, _inverse_spread(variances).astype(np.float32))
        variances, directions = np.linalg.eigh(self.covariance)
        matrix = (directions * _inverse_spread(variances)) @ directions.T
        return Normaliser(mean, matrix.astype(np.float32))


def _inverse_spread(variances: NDArray[np.float64]) -> NDArray[np.float64]:
    inverse: NDArray[np.float64] = 1 / np.sqrt(np.maximum(variances, SMALLEST * variances.max()))
    return inverse
