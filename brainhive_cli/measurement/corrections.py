"""Similarity corrections: a correction uses all test signals together, so it is a
control and no result.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from brainhive_cli.core import parts
from brainhive_cli.measurement.ranks import MIN_TOKEN_LENGTH, normalise_tokens

Correct = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From similarities [N, M], and tokens of signals [N, D] and gallery [M, D], to
corrected similarities.
"""
DECIMALS = 12
"""Tolerance of cosines: above the rounding of float64, below that of float32 tokens, as
ties of ranks are.
"""
SINKHORN_ROUNDS = 20
"""Times that rows, then columns are brought to the sum 1."""
SHRINKAGE = 0.2
"""Share of the covariance that is replaced by its mean variance before whitening, as in
published calibrations of test similarities.
"""


def compare_tokens(signals: Tensor, gallery: Tensor) -> Tensor:
    """Compute the cosines [N, M] of tokens in float64; those that differ by rounding
    alone are equal.
    """
    cosines = normalise_tokens(signals) @ normalise_tokens(gallery.to(signals.device)).T
    return cosines.round(decimals=DECIMALS)


def as_tokens(similarities: Tensor) -> tuple[Tensor, Tensor]:
    """Give unit tokens [N, M + 1] and [M, M + 1] whose cosines have the similarities'
    order, both ways.

    Whatever ranks tokens thereby ranks corrected similarities [N, M].
    """
    # rows of length 1 at most, which a last entry fills up to unit length
    centred = similarities - similarities.mean()
    scaled = centred / torch.linalg.vector_norm(centred, dim=1).max().clamp(min=1)
    rest = (1 - scaled.square().sum(1, keepdim=True)).clamp(min=0).sqrt()
    one_hot = torch.eye(scaled.shape[1], device=scaled.device)
    return torch.cat([scaled, rest], 1), F.pad(one_hot, (0, 1))


class Correction(parts.Config):
    """Base of the package's corrections: `correct` is what a Config builds."""

    def build(self) -> Correct:
        """Make the correction."""
        return self.correct

    def correct(self, similarities: Tensor, signals: Tensor, gallery: Tensor) -> Tensor:
        """Correct the similarities [N, M] of signal tokens [N, D] with gallery tokens
        [M, D].
        """
        raise NotImplementedError


class Assignment(Correction):
    """One-to-one assignment: no picture is the answer to two signals (the Hungarian
    method).

    Assignment of the largest sum of similarities; what is assigned is first, the rest
    in its order.
    """

    def correct(self, similarities: Tensor, signals: Tensor, gallery: Tensor) -> Tensor:
        """Raise the similarity of each assigned pair above all others."""
        from scipy.optimize import linear_sum_assignment

        # in a random order: of equal sums the diagonal is taken, where pictures stand
        # as their signals do
        values = similarities.cpu().numpy()
        random = np.random.default_rng(0)
        rows, columns = (random.permutation(size) for size in values.shape)
        chosen_rows, chosen_columns = linear_sum_assignment(
            values[rows][:, columns], maximize=True
        )
        # an assigned pair exceeds every other similarity; all else stays in its order
        raised = np.zeros_like(values)
        raised[rows[chosen_rows], columns[chosen_columns]] = 1 + np.ptp(values)
        return similarities + torch.from_numpy(raised).to(similarities.device)


class Csls(Correction):
    """Cross-domain similarity local scaling: what is near to everything counts less.

    Twice the similarity, less the mean similarities of signal and picture with their
    neighbours.

    Source: Conneau et al. 2018 (arXiv 1710.04087), section 2.3.
    """

    neighbours: PositiveInt = Field(
        5, description="nearest of the other side that are averaged"
    )

    def correct(self, similarities: Tensor, signals: Tensor, gallery: Tensor) -> Tensor:
        """Subtract from twice the similarities what signals and pictures have with
        their neighbours.
        """
        # topk along either axis: neighbours of signals, and of pictures
        corrected = 2 * similarities
        for axis, size in enumerate(corrected.shape):
            nearest = similarities.topk(min(self.neighbours, size), axis).values
            corrected = corrected - nearest.mean(axis, keepdim=True)
        return corrected


class Sinkhorn(Correction):
    """Sinkhorn's balance: every signal, and every picture, has as much similarity to
    give as the others.

    Published after CSLS, whose values it takes.

    Source: Cuturi 2013 (arXiv 1306.0895).
    """

    temperature: PositiveFloat = Field(
        0.05, description="similarities are divided by this"
    )

    def correct(self, similarities: Tensor, signals: Tensor, gallery: Tensor) -> Tensor:
        """Give the logarithm of the transport plan, in which no small value becomes
        0.
        """
        # rows, then columns, sum to 1; logarithms keep small shares apart
        plan = similarities / self.temperature
        for _ in range(SINKHORN_ROUNDS):
            for axis in (1, 0):
                plan = plan - plan.logsumexp(axis, keepdim=True)
        return plan


class Whitening(Correction):
    """Whitening of the signal tokens by their own covariance; the gallery stays as it
    is.

    Comes first, as similarities are computed anew.
    """

    def correct(self, similarities: Tensor, signals: Tensor, gallery: Tensor) -> Tensor:
        """Compare whitened signal tokens with the gallery anew."""
        return compare_tokens(self.whiten(signals), gallery)

    def whiten(self, signals: Tensor) -> Tensor:
        """Whiten signal tokens [N, D], and bring them to unit length."""
        # by singular values rather than the covariance, which tokens of a wide head
        # have no room for
        exact = signals.double()
        left, spread, axes = torch.linalg.svd(
            exact - exact.mean(0), full_matrices=False
        )
        variances = spread.square() / len(signals)
        # variances shrunk towards their mean over D, so that no small one is blown up
        mean_variance = variances.sum() / signals.shape[1]
        shrunk = (1 - SHRINKAGE) * variances + SHRINKAGE * mean_variance
        whitened = (left * (spread / shrunk.clamp(min=MIN_TOKEN_LENGTH).sqrt())) @ axes
        return normalise_tokens(whitened)


TINY = {
    "assignment": Assignment(),
    "csls": Csls(),
    "sinkhorn": Sinkhorn(),
    "whitening": Whitening(),
}
"""The parts of this shelf by kind, each small enough for tests."""
