"""Procrustes: the rotation that brings tokens nearest to references of the same stimuli.

Source: Schönemann 1966, Psychometrika 31.
"""

import torch
from pydantic import Field
from torch import Tensor

from brainhive_cli.measurement.alignments import Alignment, AlignmentConfig


class Config(AlignmentConfig):
    """The polar factor of X^T Y + rho ||X^T Y|| I; for few pairs, as lengths and angles stay."""

    is_paired = True

    rho: float = Field(
        0.3, ge=0, description="pull towards no rotation, in units of the largest singular value of X^T Y"
    )

    def learn(self, tokens: Tensor, references: Tensor) -> Alignment:
        """Find the rotation of the directions that pairs have; all others stay as they are."""
        # a basis of these directions [D, K], where they are fewer than D
        count, width = tokens.shape
        if 2 * count < width:
            basis = torch.linalg.qr(torch.cat([tokens, references]).T).Q
        else:
            basis = torch.eye(width, dtype=tokens.dtype)

        # the rotation in it
        cross = (tokens @ basis).T @ (references @ basis)  # [K, K]
        identity = torch.eye(len(cross), dtype=tokens.dtype)
        left, _, right = torch.linalg.svd(cross + self.rho * torch.linalg.matrix_norm(cross, 2) * identity)
        change = left @ right - identity
        return lambda rows: rows + ((rows @ basis) @ change) @ basis.T


TINY = Config(rho=0.1)
