"""Normalisations that are fitted to the training signals of a subject."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import ClassVar, Literal

import numpy as np
import xxhash
from pydantic import Field

from brainhive_cli.core.base import BrainhiveError, Float32, Float64
from brainhive_cli.core.recipes import parts

MIN_VARIANCE_SHARE = 1e-6
"""Smallest share of the usual variance at which a direction is amplified. Below it is
rounding.
"""
MAX_BYTES = 2**26
"""Largest memory of the products X X^T of a Riemannian mean. It holds 2,114 trials of
63 channels, whose mean takes about 20 s on one core.
"""
Chunks = Iterable[Float32]
"""Averaged training signals [n, C, T] of a subject, chunk by chunk."""
Statistics = Mapping[str, Float64]
"""Statistics of a subject by name. A part measures them with `measure(chunks)`, and
makes a Normaliser of them with `build(statistics)`.
"""


@dataclass(frozen=True)
class Normaliser:
    """Subtraction of a mean, then multiplication by a matrix.

    Attributes:
        mean: Mean [C, 1] or [C, T].
        matrix: Matrix [C, C], or its diagonal [C, 1] if channels are not mixed.
    """

    mean: Float32
    matrix: Float32

    @cached_property
    def digest(self) -> str:
        """Digest of mean and matrix: 16 hexadecimal digits."""
        return xxhash.xxh3_64_hexdigest(self.mean.tobytes() + self.matrix.tobytes())

    def __call__(self, signal: Float32) -> Float32:
        """Normalise signals [..., C, T]."""
        centred = signal - self.mean
        # a full matrix of tens of thousands of voxels would not fit into memory
        is_diagonal = self.matrix.shape[1] == 1
        return self.matrix * centred if is_diagonal else self.matrix @ centred


def pool_statistics(subjects: Sequence[Statistics]) -> Statistics:
    """Average the statistics of several subjects with equal weights.

    Raises:
        BrainhiveError: if their numbers of channels differ.
    """
    widths = set[int]()
    for statistics in subjects:
        widths.update(map(len, statistics.values()))
    require_equal_widths(widths)
    return {
        name: np.mean([statistics[name] for statistics in subjects], 0)
        for name in subjects[0]
    }


def require_equal_widths(widths: set[int]) -> None:
    """Raise an error if subjects differ in their number of channels or voxels."""
    if len(widths) > 1:
        numbers = ", ".join(map(str, sorted(widths)))
        raise BrainhiveError(
            f"subjects of different widths ({numbers}) have no mean normalisation",
            "signal.normalise_by=subject",
        )


class Channel(parts.Config):
    """Normalisation of each channel or voxel to mean 0 and variance 1."""

    called: ClassVar[str] = "z-scored by channel or voxel"
    removes_scale: ClassVar[bool] = True
    """True if the scale of the signals does not change the result."""
    mixes_channels: ClassVar[bool] = False
    """True if products of channels are measured, which take too much memory for tens
    of thousands of voxels.
    """

    def measure(self, signals: Chunks) -> Statistics:
        """Measure the mean and covariance of the training signals of a subject.

        Returns:
            `mean` [C, 1], and `covariance` [C, C], or variances [C, 1] if channels are
            not mixed.
        """
        count = 0
        sums = np.zeros((1, 1))  # [C, 1]
        products = np.zeros((1, 1))  # [C, C] or [C, 1]
        for chunk in signals:
            flat = join_samples(chunk)
            count += flat.shape[1]
            sums = sums + flat.sum(1, keepdims=True)
            if self.mixes_channels:
                products = products + flat @ flat.T
            else:
                products = products + np.einsum("cn,cn->c", flat, flat)[:, None]

        # E[x²] − E[x]², in float64
        mean = sums / count
        squared_mean = mean @ mean.T if self.mixes_channels else mean**2
        return {"mean": mean, "covariance": products / count - squared_mean}

    def build(self, statistics: Statistics) -> Normaliser:
        """Make the normaliser of signals with these statistics."""
        covariance = statistics["covariance"]
        mean = statistics["mean"]
        if self.mixes_channels:
            matrix = compute_inverse_root(covariance)
        else:
            # a flat channel, whose variance is rounding, stays 0
            is_flat = covariance <= mean**2 * MIN_VARIANCE_SHARE**2
            matrix = np.where(is_flat, 0, 1 / np.sqrt(np.where(is_flat, 1, covariance)))
        return Normaliser(mean.astype(np.float32), matrix.astype(np.float32))


class Whiten(Channel):
    """Whitening: channels get mean 0, variance 1 and no correlation.

    Channels are rotated as little as possible (ZCA).
    """

    called = "whitened by the covariance of each subject"
    mixes_channels = True


class Template(parts.Config):
    """Subtraction of the mean response to all training pictures.

    It has no keys. The scale of the signals stays.

    Source: code of BRIDGE, across subjects.
    """

    cites = ("bridge2026",)
    called = "reduced by the mean response of each subject"

    def measure(self, signals: Chunks) -> Statistics:
        """Average the training signals of a subject over pictures, as `mean` [C, T]."""
        count = 0
        total = np.zeros((1, 1))
        for chunk in signals:
            count += len(chunk)
            total = total + chunk.sum(0, dtype=np.float64)
        return {"mean": total / count}

    def build(self, statistics: Statistics) -> Normaliser:
        """Make the normaliser that subtracts the mean response."""
        mean = statistics["mean"].astype(np.float32)
        return Normaliser(mean, np.ones((len(mean), 1), np.float32))


class Euclidean(parts.Config):
    """Euclidean alignment: the mean product X X^T of trials becomes the identity.

    Unlike with `whiten`, signals are not centred, and the scale of the result depends
    on the number of samples.

    Source: He and Wu 2020, IEEE Transactions on Biomedical Engineering 67 (arXiv
    1808.05464).
    """

    cites = ("he2020",)
    called = "aligned between subjects by Euclidean alignment"
    removes_scale: ClassVar[bool] = True
    """True if the scale of the signals does not change the result."""

    shrinkage: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the reference that is replaced by its mean variance",
    )

    def measure(self, signals: Chunks) -> Statistics:
        """Average X X^T over the training signals, as `reference` [C, C]."""
        count = 0
        total = np.zeros((1, 1))
        for chunk in signals:
            flat = join_samples(chunk)
            count += len(chunk)
            total = total + flat @ flat.T
        return {"reference": total / count}

    def build(self, statistics: Statistics) -> Normaliser:
        """Make the normaliser that multiplies by the inverse root of the reference."""
        reference = statistics["reference"]
        channels = len(reference)

        # the mean variance makes a reference of few samples invertible
        mean_variance = np.trace(reference) / channels
        shrunk = (1 - self.shrinkage) * reference
        shrunk += self.shrinkage * mean_variance * np.eye(channels)
        matrix = compute_inverse_root(shrunk).astype(np.float32)
        return Normaliser(np.zeros((channels, 1), np.float32), matrix)


class Riemannian(Euclidean):
    """Riemannian alignment: the Riemannian mean of X X^T becomes the identity.

    Trials of unusual size, such as artefacts, move this mean less than the mean of
    `euclidean`.

    Source: Zanini et al. 2018, IEEE Transactions on Biomedical Engineering 65.
    """

    cites = ("zanini2018",)
    called = "aligned between subjects by Riemannian means"

    mean: Literal["affine-invariant", "log-euclidean"] = Field(
        "affine-invariant",
        description="mean of the trials; log-euclidean needs no iteration",
    )

    def measure(self, signals: Chunks) -> Statistics:
        """Average X X^T over evenly spaced training signals, as `reference` [C, C].

        `MAX_BYTES` limits their number.

        Raises:
            BrainhiveError: if there are more than 362 channels, or the mean
                does not converge.
        """
        products = []
        stride = 1
        # Largest number of channels for which MAX_BYTES holds 64 trials.
        max_channels = 362
        for index, trial in enumerate(chain.from_iterable(signals)):
            if len(trial) > max_channels:
                raise BrainhiveError(
                    f"signal.normalise=riemannian of {len(trial)} channels: at most "
                    f"{max_channels}",
                    "signal.normalise=euclidean, or fewer signal.channels",
                )
            if index % stride == 0:
                products.append(trial.astype(np.float64) @ trial.T)
            # if memory is exceeded, drop every second product, and double the stride
            if len(products) * products[0].nbytes > MAX_BYTES:
                products = products[::2]
                stride = 2 * stride
        is_affine_invariant = self.mean == "affine-invariant"
        return {"reference": average_products(np.stack(products), is_affine_invariant)}


def join_samples(signal: Float32) -> Float64:
    """Join the samples of trials [n, C, T] to [C, n T]."""
    return signal.transpose(1, 0, 2).reshape(signal.shape[1], -1).astype(np.float64)


def compute_inverse_root(matrix: Float64) -> Float64:
    """Compute the symmetric inverse root of a covariance [C, C].

    Eigenvalues below `MIN_VARIANCE_SHARE` of the median variance of a channel are
    raised to it.
    """
    variances, directions = np.linalg.eigh(matrix)
    floor = MIN_VARIANCE_SHARE * np.median(np.diagonal(matrix))
    # rotated back to channels (ZCA)
    return (directions / np.sqrt(np.maximum(variances, floor))) @ directions.T


def average_products(products: Float64, is_affine_invariant: bool) -> Float64:
    """Average positive matrices by the affine-invariant or log-Euclidean metric.

    Directions in which all matrices hold only rounding, as after an average reference,
    are left out. In the others, variances are raised to `MIN_VARIANCE_SHARE` of the
    largest, because trials of few samples lack variance, and its logarithm is infinite.

    Args:
        products: Symmetric matrices [N, C, C] without negative eigenvalues. Zeros, as
            of dead trials, do not count.
        is_affine_invariant: If True, find the affine-invariant mean by gradient
            descent.

    Returns:
        Mean [C, C], without variance in the directions that are left out.

    Raises:
        BrainhiveError: if the mean has not converged after 500 steps.

    Source: Pennec, Fillard and Ayache 2006, IJCV 66; Arsigny et al. 2007, SIAM J.
        Matrix Anal. Appl. 29. Step size of Bini and Iannazzo 2013, Linear Algebra Appl.
        438.
    """
    # directions [C, K] with signal, where trials are scaled to equal size, so an
    # artefact does not hide the others
    sizes = np.trace(products, axis1=1, axis2=2)
    products = products[sizes > 0]
    sizes = sizes[sizes > 0]
    variances, directions = np.linalg.eigh((products / sizes[:, None, None]).mean(0))
    has_signal = variances > MIN_VARIANCE_SHARE * variances.max()
    directions = directions[:, has_signal]

    # trials in these coordinates, where whitening keeps the affine-invariant mean
    spread = np.sqrt(variances[has_signal])
    if not is_affine_invariant:
        spread = np.ones_like(spread)
    scaled = directions / spread
    values, vectors = np.linalg.eigh(scaled.T @ products @ scaled)
    floored = np.maximum(values, MIN_VARIANCE_SHARE * values[:, -1:])
    trials = (vectors * floored[:, None]) @ vectors.transpose(0, 2, 1)  # [N, K, K]

    # descent: `whitener` [K, K] maps the mean to the identity, where the mean of the
    # logarithms is the gradient
    whitener = np.eye(len(spread))
    # Largest number of steps to a Riemannian mean.
    max_steps = 500
    for _ in range(max_steps):
        whitened_values, whitened_vectors = np.linalg.eigh(
            whitener @ trials @ whitener.T
        )
        logarithms = np.log(whitened_values)
        flat = whitened_vectors.transpose(1, 0, 2).reshape(len(spread), -1)  # [K, N K]
        gradient = (flat * logarithms.ravel()) @ flat.T / len(trials)

        # the best constant step for curvatures from 1 to the curvature of the widest
        # spread of eigenvalues
        half_range = np.maximum(np.ptp(logarithms, 1) / 2, 1e-9)
        curvature = (half_range / np.tanh(half_range)).mean()
        step = 2 / (1 + curvature) if is_affine_invariant else 1.0
        slopes, axes = np.linalg.eigh(gradient)
        whitener = (axes * np.exp(-step / 2 * slopes)) @ axes.T @ whitener
        # Length of the gradient, divided by the root of its width, at which a
        # Riemannian mean has converged.
        limit = 1e-7 * np.sqrt(len(spread))
        if not is_affine_invariant or np.linalg.norm(gradient) <= limit:
            break
    else:
        raise BrainhiveError(
            f"the Riemannian mean of {len(trials)} trials has not converged in "
            f"{max_steps} steps",
            "signal.normalise={kind: riemannian, mean: log-euclidean}",
        )

    # back to channels
    root = (directions * spread) @ np.linalg.inv(whitener)
    return root @ root.T


TINY = {
    "channel": Channel(),
    "euclidean": Euclidean(shrinkage=0.1),
    "riemannian": Riemannian(mean="log-euclidean", shrinkage=0.1),
    "template": Template(),
    "whiten": Whiten(),
}
"""Parts of this folder by kind, each small enough for tests."""
