"""Corrections of the similarities of all test signals to all pictures.

A correction uses all test signals, so the corrected scores are controls, not results.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from brainhive_cli.core.recipes import parts
from brainhive_cli.measurement.ranks import normalise_tokens

Correct = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Function that corrects similarities [N, M]. Its arguments are these, the signal
tokens [N, D] and the gallery tokens [M, D].
"""
SINKHORN_ROUNDS = 20
"""Number of times that all rows, then all columns are scaled to the sum 1."""
SHRINKAGE = 0.2
"""Share of the covariance that is replaced by its mean variance before whitening, as in
published calibrations of test similarities.
"""


def compute_cosines(signals: Tensor, gallery: Tensor) -> Tensor:
    """Compute the cosine similarities of tokens.

    Args:
        signals: Signal tokens [N, D].
        gallery: Gallery tokens [M, D] on any device.

    Returns:
        Cosines [N, M], rounded so that rounding errors of float64 make no difference.
    """
    gallery = gallery.to(signals.device)
    cosines = normalise_tokens(signals) @ normalise_tokens(gallery).T
    # Number of decimals that cosines keep. Rounding errors of float64 are smaller, and
    # rounding errors of float32 are larger.
    return cosines.round(decimals=12)


def make_tokens(similarities: Tensor) -> tuple[Tensor, Tensor]:
    """Make tokens (embeddings) whose cosine similarities rank like given similarities.

    Cosines are the similarities minus their mean, times a common positive factor.

    Args:
        similarities: Similarities [N, M] of N signals to M candidate pictures.

    Returns:
        Tokens [N, M + 1] of the signals and [M, M + 1] of the candidates,
        of unit length.
    """
    # a common factor makes no row longer than 1
    centred = similarities - similarities.mean()
    scaled = centred / torch.linalg.vector_norm(centred, dim=1).max().clamp(min=1)

    # a further entry brings each row to unit length, and is 0 for candidates
    last_entries = (1 - scaled.square().sum(1, keepdim=True)).clamp(min=0).sqrt()
    one_hot = torch.eye(scaled.shape[1], device=scaled.device)
    return torch.cat([scaled, last_entries], 1), F.pad(one_hot, (0, 1))


class Correction(parts.Config):
    """Base of the configs of corrections."""

    def build(self) -> Correct:
        """Return the function that corrects similarities."""
        return self.correct

    def correct(self, similarities: Tensor, signals: Tensor, gallery: Tensor) -> Tensor:
        """Correct the similarities of all test signals.

        Args:
            similarities: Similarities [N, M] of signals to pictures.
            signals: Signal tokens [N, D].
            gallery: Gallery tokens [M, D].

        Returns:
            Corrected similarities [N, M].
        """
        raise NotImplementedError


class Assignment(Correction):
    """One-to-one assignment by the Hungarian method.

    The assignment maximises the sum of similarities. An assigned picture ranks first
    for its signal.
    """

    def correct(self, similarities: Tensor, signals: Tensor, gallery: Tensor) -> Tensor:
        """Raise the similarity of each assigned pair above all other similarities."""
        from scipy.optimize import linear_sum_assignment

        # The right assignment is often the diagonal, which the solver prefers among
        # equal sums. Shuffled rows and columns prevent this advantage.
        values = similarities.cpu().numpy()
        n_signals, n_pictures = values.shape
        rng = np.random.default_rng(0)
        rows = rng.permutation(n_signals)
        columns = rng.permutation(n_pictures)
        shuffled = values[rows][:, columns]
        assigned_rows, assigned_columns = linear_sum_assignment(shuffled, maximize=True)

        # add more than the range of all similarities to each assigned pair
        added = np.zeros_like(values)
        added[rows[assigned_rows], columns[assigned_columns]] = 1 + np.ptp(values)
        return similarities + torch.from_numpy(added).to(similarities.device)


class Csls(Correction):
    """Cross-domain similarity local scaling (CSLS).

    The corrected value is twice the similarity, minus the mean similarity of the
    signal to its nearest pictures, minus the mean similarity of the picture to
    its nearest signals.

    Source: Conneau et al. 2018 (arXiv 1710.04087), section 2.3.
    """

    neighbours: PositiveInt = Field(
        5, description="number of nearest pictures or signals that are averaged"
    )

    def correct(self, similarities: Tensor, signals: Tensor, gallery: Tensor) -> Tensor:
        """Subtract the mean similarities to the nearest pictures and signals."""
        # axis 0 gives the nearest signals of each picture, axis 1 the nearest pictures
        corrected = 2 * similarities
        for axis, size in enumerate(corrected.shape):
            nearest = similarities.topk(min(self.neighbours, size), axis).values
            corrected = corrected - nearest.mean(axis, keepdim=True)
        return corrected


class Sinkhorn(Correction):
    """Sinkhorn's balance of the similarities.

    Similarities become a transport plan: positive weights whose sum is 1 for every
    signal and for every picture.

    Source: Cuturi 2013 (arXiv 1306.0895).
    """

    temperature: PositiveFloat = Field(
        0.05, description="similarities are divided by this number"
    )

    def correct(self, similarities: Tensor, signals: Tensor, gallery: Tensor) -> Tensor:
        """Compute the logarithm [N, M] of the transport plan."""
        # in logarithms, small weights do not underflow to 0
        log_plan = similarities / self.temperature
        for _ in range(SINKHORN_ROUNDS):
            for axis in (1, 0):
                log_plan = log_plan - log_plan.logsumexp(axis, keepdim=True)
        return log_plan


class Whitening(Correction):
    """Whitening of the signal tokens by their own covariance.

    Whitening must be the first correction, because it computes the similarities again.
    """

    def correct(self, similarities: Tensor, signals: Tensor, gallery: Tensor) -> Tensor:
        """Compute the cosine similarities of whitened signal tokens to the gallery."""
        return compute_cosines(self.whiten(signals), gallery)

    def whiten(self, signals: Tensor) -> Tensor:
        """Whiten signal tokens [N, D], and scale them to unit length."""
        # for a large D, the covariance [D, D] does not fit into memory
        exact = signals.double()
        coordinates, singular_values, axes = torch.linalg.svd(
            exact - exact.mean(0), full_matrices=False
        )
        variances = singular_values.square() / len(signals)

        # shrunk variances do not amplify dimensions of little variance
        mean_variance = variances.sum() / signals.shape[1]
        shrunk = (1 - SHRINKAGE) * variances + SHRINKAGE * mean_variance
        factors = singular_values / torch.where(shrunk > 0, shrunk, 1).sqrt()
        return normalise_tokens((coordinates * factors) @ axes)


TINY = {
    "assignment": Assignment(),
    "csls": Csls(),
    "sinkhorn": Sinkhorn(),
    "whitening": Whitening(),
}
"""Correction of each kind, with settings that are small enough for tests."""
