"""Alignments: maps from a new subject's tokens to the tokens of training subjects."""

from collections.abc import Callable
from typing import ClassVar

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from brainhive_cli.core.recipes import parts

Alignment = Callable[[Tensor], Tensor]
"""Function that maps tokens [N, D] of the new subject to aligned tokens [N, D] of the
same type and on the same device.
"""


class AlignmentConfig(parts.Config):
    """Base of the configs of alignments."""

    is_paired: ClassVar[bool] = False
    """True if each token needs a reference of the same stimulus."""

    def fit(self, tokens: Tensor, references: Tensor) -> Alignment:
        """Fit the map to recordings of the new subject, in float64 on the CPU.

        Args:
            tokens: Tokens [n, D] of the new subject's calibration recordings. Tokens of
                test recordings would make the result transductive.
            references: Tokens [m, D] of training subjects. If `is_paired`, tokens or
                targets [n, D] of the stimuli of `tokens`, row by row.

        Returns:
            The fitted map of tokens [N, D] on any device.
        """
        align = self.learn(to_cpu_double(tokens), to_cpu_double(references))
        return lambda rows: align(to_cpu_double(rows)).to(rows)

    def learn(self, tokens: Tensor, references: Tensor) -> Alignment:
        """Fit the map to tensors in float64. Subclasses implement this method.

        Args:
            tokens: Tokens [n, D] of the new subject's calibration recordings.
            references: Tokens [m, D] of training subjects, as in `fit`.

        Returns:
            A map of tokens [N, D] in float64 on the CPU.
        """
        raise NotImplementedError


def to_cpu_double(tokens: Tensor) -> Tensor:
    """Copy tokens to the CPU in float64, because some devices have no float64."""
    return tokens.detach().to("cpu", torch.float64)


class Moments(AlignmentConfig):
    """Alignment of the mean and the standard deviation of each token dimension."""

    def learn(self, tokens: Tensor, references: Tensor) -> Alignment:
        """Match the mean and standard deviation of a new subject to training subjects.

        Args:
            tokens: Tokens [n, D] predicted from n recordings of the new subject.
            references: Tokens [m, D] predicted from recordings of training subjects.

        Returns:
            A map of tokens [N, D], fitted for each dimension. Dimensions that vary by
            rounding errors only are not scaled.
        """
        # without Bessel's correction, a single recording has a spread of 0, not NaN
        mean = tokens.mean(0)
        spread = tokens.std(0, correction=0)
        reference_mean = references.mean(0)
        reference_spread = references.std(0, correction=0)

        # Smallest standard deviation of a dimension that varies by more than rounding
        # errors, as a share of the largest standard deviation.
        is_varied = spread > 1e-6 * spread.max()
        scale = torch.where(is_varied, reference_spread / spread, 1)
        return lambda rows: (rows - mean) * scale + reference_mean


class Coral(AlignmentConfig):
    """Alignment of the covariance of tokens (CORAL).

    Tokens are multiplied by the inverse square root of the new subject's covariance,
    then by the square root of the training subjects' covariance. Means are not removed.

    Source: Sun, Feng and Saenko 2016 (arXiv 1511.05547), algorithm 1.
    """

    ridge: PositiveFloat = Field(
        1.0, description="number added to all variances of both covariances"
    )

    def learn(self, tokens: Tensor, references: Tensor) -> Alignment:
        """Fit a map that gives a new subject's tokens the covariance of the references.

        Args:
            tokens: Tokens [n, D] of the new subject.
            references: Tokens [m, D] of training subjects.

        Returns:
            A map of tokens [N, D]. It multiplies them by the inverse square root of the
            covariance of `tokens`, then by the square root of the
            covariance of `references`.
        """
        # variances along principal axes, and power, of each covariance
        covariances = (
            (_compute_variances(tokens), -0.5),
            (_compute_variances(references), 0.5),
        )

        def align(rows: Tensor) -> Tensor:
            # covariance^p = ridge^p I + axes diag(axis_factors) axes^T, because the
            # directions orthogonal to the axes have only the ridge as variance
            for (variances, axes), power in covariances:
                ridge_factor = self.ridge**power
                axis_factors = (variances + self.ridge) ** power - ridge_factor
                rows = ridge_factor * rows + ((rows @ axes) * axis_factors) @ axes.T
            return rows

        return align


def _compute_variances(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the variances of tokens [n, D] along their principal axes.

    Returns:
        Variances [K], and axes [D, K] of unit length in the columns. K is the smaller
        of n and D. The variances of a single token are 0.
    """
    degrees_of_freedom = max(1, len(tokens) - 1)
    centred = tokens - tokens.mean(0)

    # decompose the covariance [D, D] only if it is not larger than the tokens [n, D]
    if len(tokens) >= tokens.shape[1]:
        covariance = centred.T @ centred / degrees_of_freedom
        variances, axes = torch.linalg.eigh(covariance)
        return variances.clamp(min=0), axes
    _, singular_values, axes = torch.linalg.svd(centred, full_matrices=False)
    return singular_values.square() / degrees_of_freedom, axes.T


class Procrustes(AlignmentConfig):
    """Rotation of tokens to references of the same stimuli.

    The rotation is the polar factor of X^T Y + rho ||X^T Y|| I, for tokens X and
    references Y. A few pairs suffice, because a rotation keeps lengths and angles.

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
        """Fit the rotation of a new subject's tokens to their references.

        Args:
            tokens: Tokens [n, D] of the new subject.
            references: Tokens or targets [n, D] of the same stimuli, row by row.

        Returns:
            A rotation of tokens [N, D], which may include a reflection. Directions that
            are orthogonal to all tokens and references stay unchanged.
        """
        # orthonormal basis [D, K] of the space that tokens and references span
        n_pairs, width = tokens.shape
        if 2 * n_pairs < width:
            basis = torch.linalg.qr(torch.cat([tokens, references]).T).Q
        else:
            basis = torch.eye(width, dtype=tokens.dtype)

        # U V^T of the SVD is the best rotation. The added identity shrinks it.
        cross = (tokens @ basis).T @ (references @ basis)  # [K, K]
        identity = torch.eye(len(cross), dtype=tokens.dtype)
        largest_singular_value = torch.linalg.matrix_norm(cross, 2)
        u, _, vh = torch.linalg.svd(
            cross + self.rho * largest_singular_value * identity
        )
        change = u @ vh - identity
        return lambda rows: rows + ((rows @ basis) @ change) @ basis.T


class RidgeAlignment(AlignmentConfig):
    """Linear map of tokens to references of the same stimuli, near the identity.

    The map is I + (X^T X + penalty I)^-1 X^T (Y - X), for tokens X and references Y. It
    needs hundreds of pairs, because every entry of the map is free.
    """

    is_paired = True

    penalty: PositiveFloat = Field(
        5.0,
        description=(
            "pull towards the identity, as a number of pairs whose tokens have length 1"
        ),
    )

    def learn(self, tokens: Tensor, references: Tensor) -> Alignment:
        """Fit the linear map of a new subject's tokens to their references.

        Args:
            tokens: Tokens [n, D] of the new subject.
            references: Tokens or targets [n, D] of the same stimuli, row by row.

        Returns:
            A map of tokens [N, D]. It adds to each token the difference to its
            reference that ridge regression predicts.
        """
        # with fewer pairs than dimensions, the dual form has the smaller matrix
        n_pairs, width = tokens.shape
        difference = references - tokens
        if n_pairs < width:
            identity = torch.eye(n_pairs, dtype=tokens.dtype)
            gram = tokens @ tokens.T + self.penalty * identity
            weights = torch.linalg.solve(gram, difference)  # [n, D]
            return lambda rows: rows + (rows @ tokens.T) @ weights
        identity = torch.eye(width, dtype=tokens.dtype)
        gram = tokens.T @ tokens + self.penalty * identity
        change = torch.linalg.solve(gram, tokens.T @ difference)  # [D, D]
        return lambda rows: rows + rows @ change


TINY = {
    "coral": Coral(ridge=0.1),
    "moments": Moments(),
    "procrustes": Procrustes(rho=0.1),
    "ridge": RidgeAlignment(penalty=1.0),
}
"""Alignment of each kind, with settings that are small enough for tests."""
