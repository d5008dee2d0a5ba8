"""Whitening of the signal tokens by their own covariance; the gallery stays as it is."""

import torch
from pydantic import Field

from brainhive_cli.measurement.corrections import Compared, Correction
from brainhive_cli.measurement.ranks import SHORTEST, unit


class Config(Correction):
    """Comes first, as similarities are computed anew."""

    shrinkage: float = Field(
        0.2, gt=0, le=1, description="share of the covariance that is replaced by its mean variance"
    )

    def correct(self, compared: Compared) -> Compared:
        """Whiten signal tokens, and bring them to unit length."""
        signals = compared.signals.double()

        # by singular values rather than the covariance, which tokens of a wide head have no room for
        left, spread, axes = torch.linalg.svd(signals - signals.mean(0), full_matrices=False)
        variances = spread.square() / len(signals)
        shrunk = (1 - self.shrinkage) * variances + self.shrinkage * variances.sum() / signals.shape[1]
        whitened = (left * (spread / shrunk.clamp(min=SHORTEST).sqrt())) @ axes
        return Compared.of(unit(whitened), compared.gallery)


TINY = Config()
