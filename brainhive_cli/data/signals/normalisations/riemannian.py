"""Riemannian alignment: afterwards the Riemannian mean of X X^T over a subject's trials is the identity.

Source: Zanini et al. 2018, IEEE Transactions on Biomedical Engineering 65.
"""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.normalisations import SMALLEST, Chunks, Normaliser, Statistics, align

MAX_BYTES = 2**26
"""Memory of the products that a mean is taken of: at most 2,114 of 63 channels, 29,026 of 17.

The mean of 2,068 trials of 63 channels takes about 20 s on one core."""
MAX_CHANNELS = 362
"""Above these, MAX_BYTES has room for fewer than 64 trials."""
TOLERANCE = 1e-7
"""Length of the gradient, over the square root of its width, at which the mean has converged."""
MAX_STEPS = 500


class Config(parts.Config):
    """Like `euclidean`, but with a mean that trials of unusual size, such as artefacts, move little."""

    cites = ("zanini2018",)
    removes_scale: ClassVar[bool] = True
    keeps_mean: ClassVar[bool] = True

    mean: Literal["affine-invariant", "log-euclidean"] = Field(
        "affine-invariant", description="mean of the trials; log-euclidean takes one step, without iteration"
    )
    shrinkage: float = Field(
        0.0, ge=0, le=1, description="share of the reference that is replaced by its mean variance"
    )

    def measure(self, signals: Chunks) -> Statistics:
        """Average X X^T [C, C] over evenly spaced training signals of a subject, as many as MAX_BYTES holds.

        Raises:
            BrainhiveError: if there are more than MAX_CHANNELS channels, or the mean does not converge.
        """
        products = []
        stride = 1
        for index, trial in enumerate(trial for chunk in signals for trial in chunk):
            if len(trial) > MAX_CHANNELS:
                problem = f"signal.normalise=riemannian of {len(trial)} channels: at most {MAX_CHANNELS}"
                raise BrainhiveError(problem, "signal.normalise=euclidean, or fewer signal.channels")
            if index % stride == 0:
                products.append(trial.astype(np.float64) @ trial.T)
            if len(products) * products[0].nbytes > MAX_BYTES:
                products, stride = products[::2], 2 * stride
        return {"reference": mean_product(np.stack(products), self.mean == "affine-invariant")}

    def build(self, statistics: Statistics) -> Normaliser:
        """Make the normalisation that signals of these statistics need."""
        return align(statistics["reference"], self.shrinkage)


TINY = Config(mean="log-euclidean", shrinkage=0.1)


def mean_product(products: Float64, is_affine_invariant: bool) -> Float64:
    """Average positive matrices by the affine-invariant, or by the log-Euclidean metric.

    Directions in which all matrices hold rounding alone, as after an average reference, are left out and have
    no variance in the mean. In the others, variances of a matrix are raised to SMALLEST of its largest: a
    trial of fewer samples than channels has none in some directions, and its logarithm would be infinite.

    Args:
        products: [N, C, C], symmetric, without negative eigenvalues; zeros, as of dead trials, do not count.
        is_affine_invariant: Whether the mean is the affine-invariant one, by gradient descent.

    Returns:
        The mean [C, C].

    Raises:
        BrainhiveError: if the mean has not converged to TOLERANCE after MAX_STEPS.

    Source: Pennec, Fillard and Ayache 2006, IJCV 66; Arsigny et al. 2007, SIAM J. Matrix Anal. Appl. 29; the
        step is that of Bini and Iannazzo 2013, Linear Algebra Appl. 438.
    """
    # directions [C, K] that have signal in trials of equal size, so that an artefact does not hide the others
    sizes = np.trace(products, axis1=1, axis2=2)
    products, sizes = products[sizes > 0], sizes[sizes > 0]
    variances, directions = np.linalg.eigh((products / sizes[:, None, None]).mean(0))
    has_signal = variances > SMALLEST * variances.max()
    directions = directions[:, has_signal]

    # trials in these coordinates, whitened for the affine-invariant mean, which does not depend on that
    spread = np.sqrt(variances[has_signal]) if is_affine_invariant else np.ones(directions.shape[1])
    values, vectors = np.linalg.eigh((directions / spread).T @ products @ (directions / spread))
    floored = np.maximum(values, SMALLEST * values[:, -1:])
    trials = (vectors * floored[:, None]) @ vectors.transpose(0, 2, 1)  # [N, K, K]

    # descent: `whitener` [K, K] maps the mean to the identity, around which logarithms are averaged
    whitener = np.eye(len(spread))
    for _ in range(MAX_STEPS):
        values, vectors = np.linalg.eigh(whitener @ trials @ whitener.T)
        logarithms = np.log(values)
        flat = vectors.transpose(1, 0, 2).reshape(len(spread), -1)  # [K, N K]
        gradient = (flat * logarithms.ravel()) @ flat.T / len(trials)

        # the best constant step between curvature 1 and that of the widest spread of eigenvalues
        half_range = np.maximum(np.ptp(logarithms, 1) / 2, 1e-9)
        curvature = (half_range / np.tanh(half_range)).mean()
        step = 2 / (1 + curvature) if is_affine_invariant else 1.0
        values, vectors = np.linalg.eigh(gradient)
        whitener = (vectors * np.exp(-step / 2 * values)) @ vectors.T @ whitener
        if not is_affine_invariant or np.linalg.norm(gradient) <= TOLERANCE * np.sqrt(len(spread)):
            break
    else:
        problem = f"the Riemannian mean of {len(trials)} trials has not converged in {MAX_STEPS} steps"
        raise BrainhiveError(problem, "signal.normalise={kind: riemannian, mean: log-euclidean}")

    # back to channels
    root = (directions * spread) @ np.linalg.inv(whitener)
    return root @ root.T
