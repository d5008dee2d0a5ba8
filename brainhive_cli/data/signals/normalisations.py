"""Normalisations: learned from a subject's training signals, then used on all signals
of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import xxhash
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Float32, Float64
from brainhive_cli.core.errors import BrainhiveError

SMALLEST = 1e-6
"""Share of the largest variance below which a direction is not amplified: it holds
rounding, not signal.
"""
MAX_BYTES = 2**26
"""Memory of the products that a Riemannian mean is taken of: at most 2,114 of 63
channels, 29,026 of 17.

The mean of 2,068 trials of 63 channels takes about 20 s on one core.
"""
MAX_CHANNELS = 362
"""Above these, MAX_BYTES has room for fewer than 64 trials."""
TOLERANCE = 1e-7
"""Length of the gradient, over the square root of its width, at which a Riemannian mean
has converged.
"""
MAX_STEPS = 500
"""Steps after which it has not."""
Chunks = Iterable[Float32]
"""Averaged training signals of one subject [n, C, T], a part of them at a time."""
Statistics = Mapping[str, Float64]
"""What a part's `measure(chunks)` gives of a subject, by name; its `build(statistics)`
makes a Normaliser.
"""


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
        # [C, 1]: no product of channels, for which voxels are too many
        is_diagonal = self.matrix.shape[1] == 1
        return self.matrix * centred if is_diagonal else self.matrix @ centred


def pool_statistics(subjects: Sequence[Statistics]) -> Statistics:
    """Average the statistics of several subjects, with equal weights.

    Raises:
        BrainhiveError: if they differ in width.
    """
    require_equal_widths(
        {len(values) for statistics in subjects for values in statistics.values()}
    )
    return {
        name: np.mean([statistics[name] for statistics in subjects], 0)
        for name in subjects[0]
    }


def require_equal_widths(widths: set[int]) -> None:
    """Refuse subjects whose statistics have no mean, as they differ in width.

    Args:
        widths: Channels or voxels of each subject.
    """
    if len(widths) > 1:
        raise BrainhiveError(
            "subjects of different widths have no mean normalisation",
            "signal.normalise_by=subject",
        )


class Channel(parts.Config):
    """Each channel, or voxel, gets mean 0 and variance 1."""

    removes_scale: ClassVar[bool] = True
    """Whether signals that are multiplied by a number come out the same."""
    mixes_channels: ClassVar[bool] = False
    """Whether products of channels are measured: tens of thousands of voxels have no
    room for them.
    """

    def measure(self, signals: Chunks) -> Statistics:
        """Measure mean [C, 1] and covariance [C, C], or variances [C, 1], of a
        subject's training signals.
        """
        # they become [C, 1] and [C, C or 1]
        count = 0
        total = np.zeros((1, 1))
        products = np.zeros((1, 1))
        for chunk in signals:
            flat = join_samples(chunk)
            count += flat.shape[1]
            total = total + flat.sum(1, keepdims=True)
            squares = (
                flat @ flat.T
                if self.mixes_channels
                else np.einsum("cn,cn->c", flat, flat)[:, None]
            )
            products = products + squares

        # E[x²] − E[x]², in float64
        mean = total / count
        square = mean @ mean.T if self.mixes_channels else mean**2
        return {"mean": mean, "covariance": products / count - square}

    def build(self, statistics: Statistics) -> Normaliser:
        """Make the normalisation that signals of these statistics need."""
        matrix = (compute_inverse_root if self.mixes_channels else inverse_spread)(
            statistics["covariance"]
        )
        return Normaliser(
            statistics["mean"].astype(np.float32), matrix.astype(np.float32)
        )


class Whiten(Channel):
    """Channels get mean 0, variance 1 and no correlations, rotated as little as
    possible (ZCA).
    """

    mixes_channels = True


class Template(parts.Config):
    """The subject's mean response to all training pictures is subtracted.

    Without knobs; the size of signals stays.

    Source: BRIDGE, its code, across subjects.
    """

    cites = ("bridge2026",)

    def measure(self, signals: Chunks) -> Statistics:
        """Average a subject's training signals over pictures: [C, T]."""
        count = 0
        total = np.zeros((1, 1))
        # chunk by chunk, as signals need not fit into memory
        for chunk in signals:
            count += len(chunk)
            total = total + chunk.sum(0, dtype=np.float64)
        return {"mean": total / count}

    def build(self, statistics: Statistics) -> Normaliser:
        """Make the subtraction."""
        mean = statistics["mean"].astype(np.float32)
        return Normaliser(mean, np.ones((len(mean), 1), np.float32))


class Euclidean(parts.Config):
    """Euclidean alignment: afterwards the mean product X X^T of a subject's trials is
    the identity.

    Like `whiten`, but signals are not centred, and the size of the result depends on
    their samples.

    Source: He and Wu 2020, IEEE Transactions on Biomedical Engineering 67 (arXiv
    1808.05464).
    """

    cites = ("he2020",)
    removes_scale: ClassVar[bool] = True

    shrinkage: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the reference that is replaced by its mean variance",
    )

    def measure(self, signals: Chunks) -> Statistics:
        """Average X X^T over a subject's training signals: the reference [C, C]."""
        count = 0
        total = np.zeros((1, 1))
        for chunk in signals:
            flat = join_samples(chunk)
            count += len(chunk)
            total = total + flat @ flat.T
        return {"reference": total / count}

    def build(self, statistics: Statistics) -> Normaliser:
        """Make the multiplication by the inverse square root of the reference, which
        moves no mean.
        """
        reference = statistics["reference"]
        channels = len(reference)

        # a reference of few samples becomes invertible by its mean variance
        mean_variance = np.trace(reference) / channels
        shrunk = (1 - self.shrinkage) * reference
        shrunk += self.shrinkage * mean_variance * np.eye(channels)
        # zeros as the mean: channels are only mixed
        matrix = compute_inverse_root(shrunk).astype(np.float32)
        return Normaliser(np.zeros((channels, 1), np.float32), matrix)


class Riemannian(Euclidean):
    """Riemannian alignment: afterwards the Riemannian mean of X X^T over a subject's
    trials is the identity.

    Like `euclidean`, but with a mean that trials of unusual size, such as artefacts,
    move little.

    Source: Zanini et al. 2018, IEEE Transactions on Biomedical Engineering 65.
    """

    cites = ("zanini2018",)

    mean: Literal["affine-invariant", "log-euclidean"] = Field(
        "affine-invariant",
        description="mean of the trials; log-euclidean takes one step, without "
        "iteration",
    )

    def measure(self, signals: Chunks) -> Statistics:
        """Average X X^T [C, C] over evenly spaced training signals of a subject, as
        many as MAX_BYTES holds.

        Raises:
            BrainhiveError: if there are more than MAX_CHANNELS channels, or the mean
                does not converge.
        """
        products = []
        stride = 1
        for index, trial in enumerate(trial for chunk in signals for trial in chunk):
            if len(trial) > MAX_CHANNELS:
                raise BrainhiveError(
                    f"signal.normalise=riemannian of {len(trial)} channels: at most "
                    f"{MAX_CHANNELS}",
                    "signal.normalise=euclidean, or fewer signal.channels",
                )
            if index % stride == 0:
                products.append(trial.astype(np.float64) @ trial.T)
            # MAX_BYTES exceeded: drop every second product, and double the stride
            if len(products) * products[0].nbytes > MAX_BYTES:
                products = products[::2]
                stride = 2 * stride
        is_affine_invariant = self.mean == "affine-invariant"
        return {"reference": average_products(np.stack(products), is_affine_invariant)}


def join_samples(signal: Float32) -> Float64:
    """Join the samples of all trials [n, C, T]: [C, n T]."""
    return signal.transpose(1, 0, 2).reshape(signal.shape[1], -1).astype(np.float64)


def inverse_spread(variances: Float64) -> Float64:
    """Give one over the standard deviations; of what holds rounding alone, that of the
    smallest signal.
    """
    return 1 / np.sqrt(np.maximum(variances, SMALLEST * variances.max()))


def compute_inverse_root(matrix: Float64) -> Float64:
    """Give the symmetric inverse square root of a covariance [C, C]; see
    `inverse_spread`.
    """
    variances, directions = np.linalg.eigh(matrix)
    # rotated back to channels (ZCA)
    return (directions * inverse_spread(variances)) @ directions.T


def average_products(products: Float64, is_affine_invariant: bool) -> Float64:
    """Average positive matrices by the affine-invariant, or by the log-Euclidean
    metric.

    Directions in which all matrices hold rounding alone, as after an average reference,
    are left out and have no variance in the mean. In the others, variances of a matrix
    are raised to SMALLEST of its largest: a trial of fewer samples than channels has
    none in some directions, and its logarithm would be infinite.

    Args:
        products: [N, C, C], symmetric, without negative eigenvalues; zeros, as of dead
            trials, do not count.
        is_affine_invariant: Whether the mean is the affine-invariant one, by gradient
            descent.

    Returns:
        The mean [C, C].

    Raises:
        BrainhiveError: if the mean has not converged to TOLERANCE after MAX_STEPS.

    Source: Pennec, Fillard and Ayache 2006, IJCV 66; Arsigny et al. 2007, SIAM J.
        Matrix Anal. Appl. 29; the step is that of Bini and Iannazzo 2013, Linear
        Algebra Appl. 438.
    """
    # directions [C, K] that have signal in trials of equal size, so that an artefact
    # does not hide the others
    sizes = np.trace(products, axis1=1, axis2=2)
    products = products[sizes > 0]
    sizes = sizes[sizes > 0]
    variances, directions = np.linalg.eigh((products / sizes[:, None, None]).mean(0))
    has_signal = variances > SMALLEST * variances.max()
    directions = directions[:, has_signal]

    # trials in these coordinates, whitened for the affine-invariant mean, which does
    # not depend on that
    spread = np.sqrt(variances[has_signal])
    if not is_affine_invariant:
        spread = np.ones_like(spread)
    scaled = directions / spread
    values, vectors = np.linalg.eigh(scaled.T @ products @ scaled)
    floored = np.maximum(values, SMALLEST * values[:, -1:])
    trials = (vectors * floored[:, None]) @ vectors.transpose(0, 2, 1)  # [N, K, K]

    # descent: `whitener` [K, K] maps the mean to the identity, around which logarithms
    # are averaged
    whitener = np.eye(len(spread))
    for _ in range(MAX_STEPS):
        values, vectors = np.linalg.eigh(whitener @ trials @ whitener.T)
        logarithms = np.log(values)
        flat = vectors.transpose(1, 0, 2).reshape(len(spread), -1)  # [K, N K]
        gradient = (flat * logarithms.ravel()) @ flat.T / len(trials)

        # the best constant step between curvature 1 and that of the widest spread of
        # eigenvalues
        half_range = np.maximum(np.ptp(logarithms, 1) / 2, 1e-9)
        curvature = (half_range / np.tanh(half_range)).mean()
        step = 2 / (1 + curvature) if is_affine_invariant else 1.0
        values, vectors = np.linalg.eigh(gradient)
        whitener = (vectors * np.exp(-step / 2 * values)) @ vectors.T @ whitener
        limit = TOLERANCE * np.sqrt(len(spread))
        if not is_affine_invariant or np.linalg.norm(gradient) <= limit:
            break
    else:
        raise BrainhiveError(
            f"the Riemannian mean of {len(trials)} trials has not converged in "
            f"{MAX_STEPS} steps",
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
"""The parts of this shelf by kind, each small enough for tests."""
