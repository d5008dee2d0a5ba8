"""Ridge regression to many outputs at once: one factorisation, whichever of its
features are used.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from brainhive_cli.core.arrays import Int64

GRID = tuple(10.0**power for power in range(-2, 9))
"""Penalties that cross-validation chooses from, times the mean variance of a
feature.
"""
EVERY = slice(None)
"""All outputs of a ridge."""
MAX_EXACT = 2000
"""Features, or samples where these are fewer, whose products are factorised exactly."""


@dataclass(frozen=True)
class Products:
    """Statistics of N training samples that a ridge needs: sums of products of F
    features and Q outputs; or, of fewer samples than features, products of samples.

    Attributes:
        gram: [F, F] of features with features, both centred; or [N, N] of samples with
            samples.
        cross: [F, Q] of features with outputs; or the outputs [N, Q].
        squares: [Q] of outputs, centred.
        mean: [Q] of outputs.
        count: N.
        samples: The features [N, F], where samples are fewer; else None.
    """

    gram: Tensor
    cross: Tensor
    squares: Tensor
    mean: Tensor
    count: int
    samples: Tensor | None = None

    @classmethod
    def of(cls, features: Tensor, outputs: Iterator[Tensor] | Sequence[Tensor]) -> Self:
        """Sum over the training samples in one pass, so that outputs need not be in
        memory, unless samples are fewer than features.

        Args:
            features: [N, F], each of mean 0.
            outputs: Chunks [n, Q] of the outputs, in the order of the features.
        """
        # in float32, rounding of the many eigenvalues of 0 would choose the penalty
        if len(features) < features.shape[1]:
            learned = torch.cat([*outputs])
            exact = features.double()
            values = learned.double()
            mean = values.mean(0)
            squares = (values - mean).square().sum(0)
            return cls(exact @ exact.T, learned, squares, mean, len(values), features)

        # sums of products, of outputs and of their squares
        sums: tuple[Tensor, ...] = ()
        start = 0
        for chunk in outputs:
            part = features[start : start + len(chunk)].to(chunk.dtype)
            products = (
                part.T @ chunk,
                chunk.sum(0).double(),
                chunk.double().square().sum(0),
            )
            sums = tuple(map(torch.add, sums, products)) if sums else products
            start += len(chunk)
        assert start == len(features)

        # centred by the mean of the outputs; features are centred already
        cross, total, squares = sums
        mean = total / start
        return cls(
            (features.T @ features).double(),
            cross,
            squares - start * mean.square(),
            mean,
            start,
        )

    def select(self, features: Int64) -> Self:
        """Select features among F: the products of a smaller model."""
        rows = torch.from_numpy(features).to(self.gram.device)
        if self.samples is not None:
            return self.of(self.samples[:, rows], [self.cross])
        gram = self.gram[rows][:, rows]
        cross = self.cross[rows]
        return type(self)(gram, cross, self.squares, self.mean, self.count)

    @cached_property
    def _factors(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues [K] and eigenvectors [K, K] of `gram`."""
        # negative eigenvalues are rounding of a semidefinite matrix
        values, vectors = torch.linalg.eigh(self.gram)
        return values.clamp(min=0), vectors

    @cached_property
    def _rotated(self) -> Tensor:
        """`cross` [K, Q], turned to the eigenvectors; the outputs less their mean."""
        _, vectors = self._factors
        cross = self.cross
        if self.samples is not None:
            cross = cross.double() - self.mean
        return vectors.T.to(cross) @ cross

    def best_alpha(self, outputs: slice = EVERY) -> float:
        """Choose one penalty for outputs by generalised cross-validation, without
        another fit.
        """
        values, _ = self._factors
        squared = self._rotated[:, outputs].double().square()  # [K, Q]
        width = None
        if self.samples is not None:
            width = self.samples.shape[1]
            squared *= values[:, None]
        # centring takes one degree of freedom
        count = max(1, self.count - 1)
        return choose_penalty(values, squared, self.squares[outputs], count, width)

    def predict(
        self, features: Tensor, alpha: float | None = None, outputs: slice = EVERY
    ) -> Tensor:
        """Predict outputs [M, Q] of other samples [M, F]; the penalty is chosen by
        `best_alpha` if None.
        """
        # weights [K, Q] with a penalty as scikit-learn's
        alpha = self.best_alpha(outputs) if alpha is None else alpha
        values, vectors = self._factors
        scaled = (vectors / (values + alpha)).to(self._rotated)
        weights = (scaled @ self._rotated[:, outputs]).to(self.cross)
        inputs = features.to(weights)
        if self.samples is not None:
            inputs = inputs @ self.samples.to(weights).T
        return inputs @ weights + self.mean[outputs].to(weights)


def choose_penalty(
    values: Tensor,
    rotated: Tensor,
    squares: Tensor,
    count: int,
    width: int | None = None,
) -> float:
    """Choose one penalty of a ridge for all outputs by generalised cross-validation.

    Args:
        values: [K] eigenvalues of the products of features with features.
        rotated: [K, Q] squared products of the features, turned to their eigenvectors,
            with outputs.
        squares: [Q] of outputs, centred.
        count: Degrees of freedom: the training samples, less one where they are
            centred.
        width: Features, of which those beyond K have eigenvalues of 0; default: K.

    Source: Golub, Heath and Wahba 1979.
    """
    # score of each penalty: what is left unexplained, by the freedom that is left
    # [K], outputs count by their spread alike
    power = (rotated / squares.clamp(min=1e-30)).mean(1)
    scale = float(values.sum()) / (width or len(values)) or 1.0
    scores = []
    for alpha in (scale * penalty / count for penalty in GRID):
        explained = float(
            (power * (values + 2 * alpha) / (values + alpha).square()).sum()
        )
        freedom = float((values / (values + alpha)).sum())
        scores.append(
            (max(0.0, 1 - explained) / max(1e-9, 1 - freedom / count) ** 2, alpha)
        )
    return min(scores)[1]


@dataclass(frozen=True)
class FeatureScaler:
    """Mean and spread of training features [F], which bring them and others to one
    scale.
    """

    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """Measure training features [N, F]; one that does not vary keeps its scale."""
        spread = features.std(0, correction=0)
        return cls(features.mean(0), torch.where(spread > 0, spread, 1))

    def __call__(self, features: Tensor) -> Tensor:
        """Standardise features [M, F]."""
        return (features - self.mean) / self.spread


def project(
    train: Tensor, test: Tensor, components: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Project features to principal components of the training ones, whose variances
    sum to 1.

    So no level of several has more weight than another because it has more, or larger,
    numbers.

    Args:
        train: [N, F].
        test: [M, F].
        components: How many are kept at most.
        seed: Of the approximation that is used where there are thousands of features.
    """
    # centre by the training features
    mean = train.mean(0)
    centred = train - mean
    test = test - mean

    # principal components, exact ones where they are few enough
    count = min(components, *train.shape)
    if count < min(train.shape):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            exact = min(train.shape) <= 4 * components
            basis = (
                torch.linalg.eigh(centred.T.double() @ centred.double())[1][
                    :, -count:
                ].to(train)
                if exact and train.shape[1] <= len(train)
                else torch.svd_lowrank(centred, count, niter=4)[2]
            )
        centred = centred @ basis
        test = test @ basis

    # variances sum to 1
    total = centred.square().sum(1).mean().sqrt().clamp(min=1e-12)
    return centred / total, test / total


def principal_axes(features: Tensor, components: int) -> Tensor:
    """Find the directions of largest variance, the largest first: [F, K] of unit
    length, K at most N - 1.

    Args:
        features: [N, F], each of mean 0.
        components: How many are kept at most.
    """
    # an approximation where both sides are thousands
    count = min(components, len(features) - 1, features.shape[1])
    if min(features.shape) > MAX_EXACT:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return torch.svd_lowrank(features, count, niter=2)[2]

    # eigenvectors of the smaller one of the two products
    if features.shape[1] <= len(features):
        return (
            torch.linalg.eigh((features.T @ features).double())[1][:, -count:]
            .flip(1)
            .to(features)
        )
    values, vectors = torch.linalg.eigh((features @ features.T).double())
    lengths = values[-count:].clamp(min=1e-9 * float(values[-1])).sqrt()
    return features.T @ (vectors[:, -count:] / lengths).flip(1).to(features)
