"""CORAL: the covariance of a new subject's tokens becomes that of the training subjects.

Source: Sun, Feng and Saenko 2016 (arXiv 1511.05547), algorithm 1.
"""

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from brainhive_cli.measurement.alignments import Alignment, AlignmentConfig


class Config(AlignmentConfig):
    """Tokens are multiplied by two square roots of covariances; their means are not touched."""

    ridge: PositiveFloat = Field(1.0, description="added to all variances of either side")

    def learn(self, tokens: Tensor, references: Tensor) -> Alignment:
        """Find the main axes of either side."""
        sides = (_variances(tokens), -0.5), (_variances(references), 0.5)

        def align(rows: Tensor) -> Tensor:
            # across the axes the variance is the ridge alone, so no matrix [D, D] is needed
            for (variances, axes), power in sides:
                along = (variances + self.ridge) ** power - self.ridge**power
                rows = self.ridge**power * rows + ((rows @ axes) * along) @ axes.T
            return rows

        return align


TINY = Config(ridge=0.1)


def _variances(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Find variances [K] and axes [D, K] of tokens [n, D], K the smaller of the two; one token has none."""
    freedom = max(1, len(tokens) - 1)
    centred = tokens - tokens.mean(0)
    if len(tokens) >= tokens.shape[1]:
        variances, axes = torch.linalg.eigh(centred.T @ centred / freedom)
        return variances.clamp(min=0), axes
    _, lengths, axes = torch.linalg.svd(centred, full_matrices=False)
    return lengths.square() / freedom, axes.T
