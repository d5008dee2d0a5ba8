"""Contract of normalisations: learned from a subject's training signals, then used on all signals of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xxhash

from brainhive_cli.core.arrays import Float32, Float64
from brainhive_cli.core.errors import BrainhiveError

SMALLEST = 1e-6
"""Share of the largest variance below which a direction is not amplified: it holds rounding, not signal."""
Chunks = Iterable[Float32]
"""Averaged training signals of one subject [n, C, T], a part of them at a time."""
Statistics = Mapping[str, Float64]
"""What a part's `measure(chunks)` gives of a subject, by name; its `build(statistics)` makes a Normaliser."""


@dataclass(frozen=True)
class Normaliser:
    """Subtracts a mean, then maps channels to channels.

    Attributes:
        mean: [C, 1], or [C, T].
        matrix: [C, C]; or [C, 1], its diagonal, where channels are not mixed.
    """

    mean: Float32
    matrix: Float32

    @cached_property
    def digest(self) -> str:
        """Identity: 16 hexadecimal digits."""
        return xxhash.xxh3_64_hexdigest(self.mean.tobytes() + self.matrix.tobytes())

    def __call__(self, signal: Float32) -> Float32:
        """Map [..., C, T] to [..., C, T]."""
        centred = signal - self.mean
        return self.matrix * centred if self.matrix.shape[1] == 1 else self.matrix @ centred


def pool_statistics(subjects: Sequence[Statistics]) -> Statistics:
    """Average the statistics of several subjects, with equal weights.

    Raises:
        BrainhiveError: if they differ in width.
    """
    first = subjects[0]
    if any(other[name].shape != first[name].shape for other in subjects for name in first):
        problem = "subjects of different widths have no mean normalisation"
        raise BrainhiveError(problem, "signal.normalise_by=subject")
    return {name: np.mean([statistics[name] for statistics in subjects], 0) for name in first}


def measure(signals: Chunks, with_products: bool) -> Statistics:
    """Measure mean [C, 1] and covariance [C, C] of all signals together.

    Without products of channels only variances [C, 1]: tens of thousands of voxels have no room for more.
    """
    count, total, products = 0, np.zeros((1, 1)), np.zeros((1, 1))  # they become [C, 1] and [C, C or 1]
    for chunk in signals:
        flat = chunk.transpose(1, 0, 2).reshape(chunk.shape[1], -1).astype(np.float64)  # [C, n T]
        count += flat.shape[1]
        total = total + flat.sum(1, keepdims=True)
        squares = flat @ flat.T if with_products else np.einsum("cn,cn->c", flat, flat)[:, None]
        products = products + squares
    mean = total / count
    return {"mean": mean, "covariance": products / count - (mean @ mean.T if with_products else mean**2)}


def inverse_spread(variances: Float64) -> Float64:
    """Give one over the standard deviations; of what holds rounding alone, that of the smallest signal."""
    return 1 / np.sqrt(np.maximum(variances, SMALLEST * variances.max()))


def inverse_root(matrix: Float64) -> Float64:
    """Give the symmetric inverse square root of a covariance [C, C]; see `inverse_spread`."""
    variances, directions = np.linalg.eigh(matrix)
    return (directions * inverse_spread(variances)) @ directions.T


def align(reference: Float64, shrinkage: float) -> Normaliser:
    """Build the multiplication by the inverse square root of a reference, which moves no mean.

    Args:
        reference: Mean of products X X^T of trials, [C, C].
        shrinkage: Share of the reference that is replaced by its mean variance, 0 to 1.
    """
    channels = len(reference)
    mean_variance = np.trace(reference) / channels
    shrunk = (1 - shrinkage) * reference + shrinkage * mean_variance * np.eye(channels)
    return Normaliser(np.zeros((channels, 1), np.float32), inverse_root(shrunk).astype(np.float32))
