"""Alignments: maps of a new subject's tokens to those of training subjects."""

from collections.abc import Callable
from typing import ClassVar

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from brainhive_cli.core import parts

Alignment = Callable[[Tensor], Tensor]
"""Maps tokens [N, D] of the new subject to tokens [N, D] of the same dtype on the same
device.
"""
SMALLEST = 1e-6
"""Share of the largest standard deviation below which a dimension holds rounding: only
its mean is moved.
"""


class AlignmentConfig(parts.Config):
    """Base of alignments' Configs."""

    is_paired: ClassVar[bool] = False
    """Whether it needs references of the same stimuli, row by row, and so the labels of
    the new subject.
    """

    def fit(self, tokens: Tensor, references: Tensor) -> Alignment:
        """Fit the map to recordings of the new subject, in float64 on the CPU.

        Args:
            tokens: Of the new subject's calibration recordings [n, D]. Those of test
                recordings would make the result transductive.
            references: Tokens [m, D] of training subjects; if `is_paired`, tokens or
                targets [n, D] of the stimuli of `tokens`.

        Returns:
            The map.
        """
        # the map is fitted and applied in float64, and returns the dtype of its input
        aligned = self.learn(in_double(tokens), in_double(references))
        return lambda rows: aligned(in_double(rows)).to(rows)

    def learn(self, tokens: Tensor, references: Tensor) -> Alignment:
        """Fit the map in float64: what a part defines."""
        raise NotImplementedError


def in_double(tokens: Tensor) -> Tensor:
    """Copy tokens to the CPU in float64, which not every device has."""
    return tokens.detach().to("cpu", torch.float64)


class Moments(AlignmentConfig):
    """Moments: each token dimension gets the mean and the standard deviation that
    training subjects have.
    """

    def learn(self, tokens: Tensor, references: Tensor) -> Alignment:
        """Measure mean and standard deviation of either side."""
        # without Bessel's correction one recording has a spread of 0, and not NaN
        (mean, spread), (reference_mean, reference_spread) = (
            (side.mean(0), side.std(0, correction=0)) for side in (tokens, references)
        )
        # a dimension that holds rounding alone is moved, not scaled up
        varies = spread > SMALLEST * spread.max()
        scale = torch.where(varies, reference_spread / spread, 1)
        return lambda rows: (rows - mean) * scale + reference_mean


class Coral(AlignmentConfig):
    """CORAL: the covariance of a new subject's tokens becomes that of the training
    subjects.

    Tokens are multiplied by two square roots of covariances; their means are not
    touched.

    Source: Sun, Feng and Saenko 2016 (arXiv 1511.05547), algorithm 1.
    """

    ridge: PositiveFloat = Field(
        1.0, description="added to all variances of either side"
    )

    def learn(self, tokens: Tensor, references: Tensor) -> Alignment:
        """Find the main axes of either side."""
        # inverse root of the new subject's covariance, root of the training subjects'
        sides = (_variances(tokens), -0.5), (_variances(references), 0.5)

        def align(rows: Tensor) -> Tensor:
            # across the axes the variance is the ridge alone, so no matrix [D, D] is
            # needed
            for (variances, axes), power in sides:
                along = (variances + self.ridge) ** power - self.ridge**power
                rows = self.ridge**power * rows + ((rows @ axes) * along) @ axes.T
            return rows

        return align


def _variances(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Find variances [K] and axes [D, K] of tokens [n, D], K the smaller of the two;
    one token has none.
    """
    freedom = max(1, len(tokens) - 1)
    centred = tokens - tokens.mean(0)
    # the smaller of the two products, [D, D] or by singular values of [n, D]
    if len(tokens) >= tokens.shape[1]:
        variances, axes = torch.linalg.eigh(centred.T @ centred / freedom)
        return variances.clamp(min=0), axes
    _, lengths, axes = torch.linalg.svd(centred, full_matrices=False)
    return lengths.square() / freedom, axes.T


class Procrustes(AlignmentConfig):
    """Procrustes: the rotation that brings tokens nearest to references of the same
    stimuli.

    The polar factor of X^T Y + rho ||X^T Y|| I; for few pairs, as lengths and angles
    stay.

    Source: Schönemann 1966, Psychometrika 31.
    """

    is_paired = True

    rho: float = Field(
        0.3,
        ge=0,
        description=(
            "pull towards no rotation, in units of the largest singular value of X^T Y"
        ),
    )

    def learn(self, tokens: Tensor, references: Tensor) -> Alignment:
        """Find the rotation of the directions that pairs have; all others stay as they
        are.
        """
        # a basis of these directions [D, K], where they are fewer than D
        count, width = tokens.shape
        if 2 * count < width:
            basis = torch.linalg.qr(torch.cat([tokens, references]).T).Q
        else:
            basis = torch.eye(width, dtype=tokens.dtype)

        # the rotation in it
        cross = (tokens @ basis).T @ (references @ basis)  # [K, K]
        identity = torch.eye(len(cross), dtype=tokens.dtype)
        u, _, vh = torch.linalg.svd(
            cross + self.rho * torch.linalg.matrix_norm(cross, 2) * identity
        )
        change = u @ vh - identity
        return lambda rows: rows + ((rows @ basis) @ change) @ basis.T


class RidgeAlignment(AlignmentConfig):
    """Ridge: the linear map of tokens to references of the same stimuli, shrunk towards
    the identity.

    I + (X^T X + penalty I)^-1 X^T (Y - X); for hundreds of pairs, as every entry of the
    map is free.
    """

    is_paired = True

    penalty: PositiveFloat = Field(
        5.0,
        description=(
            "pull towards the identity; of tokens of length 1, the weight of so many "
            "pairs"
        ),
    )

    def learn(self, tokens: Tensor, references: Tensor) -> Alignment:
        """Solve the normal equations, by pairs or by dimensions, whichever are
        fewer.
        """
        # the change is X^T `weights`, with the smaller one of the two products of
        # tokens
        count, width = tokens.shape
        difference = references - tokens
        if count < width:
            gram = tokens @ tokens.T + self.penalty * torch.eye(
                count, dtype=tokens.dtype
            )
            weights = torch.linalg.solve(gram, difference)  # [n, D]
            return lambda rows: rows + (rows @ tokens.T) @ weights
        gram = tokens.T @ tokens + self.penalty * torch.eye(width, dtype=tokens.dtype)
        change = torch.linalg.solve(gram, tokens.T @ difference)  # [D, D]
        return lambda rows: rows + rows @ change


TINY = {
    "coral": Coral(ridge=0.1),
    "moments": Moments(),
    "procrustes": Procrustes(rho=0.1),
    "ridge": RidgeAlignment(penalty=1.0),
}
"""The parts of this shelf by kind, each small enough for tests."""
