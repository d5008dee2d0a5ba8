"""Ridge regression to many outputs, and principal components of features."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from brainhive_cli.core.arrays import Int64

MIN_FREEDOM = 0.01
"""Smallest share of samples beyond the effective parameters of a penalty."""
PENALTY_GRID = tuple(10.0**power for power in range(-2, 9))
"""Penalties from which cross-validation chooses, as multiples of the mean variance of a
feature.
"""
ALL_OUTPUTS = slice(None)
"""Slice that selects all outputs of a ridge regression."""
MAX_EXACT = 2000
"""Largest size of a product matrix that is factorised exactly: the number of features
or of samples, whichever is smaller.
"""


@dataclass(frozen=True)
class Products:
    """Sums of products of N training samples, from which a ridge regression is solved.

    The regression predicts Q outputs from F features. With fewer samples than features,
    the products are between samples (dual form), else between features.

    Attributes:
        gram: Products [F, F] of centred features, or [N, N] of samples in
            the dual form.
        cross: Products [F, Q] of features with outputs, or outputs [N, Q] in
            the dual form.
        squares: Sum of squares [Q] of each centred output.
        mean: Mean [Q] of each output.
        count: Number N of samples.
        samples: Centred features [N, F] in the dual form, else None.
    """

    gram: Tensor
    cross: Tensor
    squares: Tensor
    mean: Tensor
    count: int
    samples: Tensor | None = None

    @classmethod
    def from_samples(
        cls, features: Tensor, outputs: Iterator[Tensor] | Sequence[Tensor]
    ) -> Self:
        """Sum the products over the training samples.

        Args:
            features: Features [N, F], each with mean 0.
            outputs: Chunks [n, Q] of the outputs, in the order of the samples.
        """
        # in float32, rounding errors of the many eigenvalues of 0 change the penalty
        if len(features) < features.shape[1]:
            all_outputs = torch.cat(list(outputs))
            samples = features.double()
            values = all_outputs.double()
            mean = values.mean(0)
            return cls(
                gram=samples @ samples.T,
                cross=all_outputs,
                squares=(values - mean).square().sum(0),
                mean=mean,
                count=len(values),
                samples=features,
            )

        # sums of features times outputs, of outputs, and of squared outputs
        sums: tuple[Tensor, ...] = ()
        start = 0
        for chunk in outputs:
            chunk_features = features[start : start + len(chunk)].to(chunk.dtype)
            chunk_sums = (
                chunk_features.T @ chunk,
                chunk.sum(0).double(),
                chunk.double().square().sum(0),
            )
            sums = tuple(map(torch.add, sums, chunk_sums)) if sums else chunk_sums
            start += len(chunk)
        assert start == len(features)

        # `cross` needs no centred outputs, because features are centred
        cross, total, squares = sums
        mean = total / start
        return cls(
            gram=(features.T @ features).double(),
            cross=cross,
            squares=squares - start * mean.square(),
            mean=mean,
            count=start,
        )

    def select(self, features: Int64) -> Self:
        """Return the products of a model that uses only some of the features.

        Args:
            features: Column numbers [f] of the selected features.
        """
        columns = torch.from_numpy(features).to(self.gram.device)
        if self.samples is not None:
            return self.from_samples(self.samples[:, columns], [self.cross])
        gram = self.gram[columns][:, columns]
        cross = self.cross[columns]
        return type(self)(gram, cross, self.squares, self.mean, self.count)

    @cached_property
    def _factors(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues [K] and eigenvectors [K, K] of `gram`, in ascending order."""
        # a product matrix has no negative eigenvalues except by rounding
        values, vectors = torch.linalg.eigh(self.gram)
        return values.clamp(min=0), vectors

    @cached_property
    def _rotated(self) -> Tensor:
        """Coordinates [K, Q] of `cross` in eigenvectors, centred in the dual form."""
        _, vectors = self._factors
        cross = self.cross
        if self.samples is not None:
            cross = cross.double() - self.mean
        return vectors.T.to(cross) @ cross

    def choose_alpha(self, outputs: slice = ALL_OUTPUTS) -> float:
        """Choose a common ridge penalty for outputs by generalised cross-validation.

        Args:
            outputs: Slice of the output columns that share the penalty.

        Returns:
            The `alpha` of scikit-learn's `Ridge`.
        """
        # in the dual form, eigenvalues make products with features of these squares
        values, _ = self._factors
        squared = self._rotated[:, outputs].double().square()  # [K, Q]
        n_features = None
        if self.samples is not None:
            n_features = self.samples.shape[1]
            squared *= values[:, None]

        # centred features lose one degree of freedom
        degrees_of_freedom = max(1, self.count - 1)
        return choose_penalty(
            values, squared, self.squares[outputs], degrees_of_freedom, n_features
        )

    def predict(
        self, features: Tensor, alpha: float | None = None, outputs: slice = ALL_OUTPUTS
    ) -> Tensor:
        """Predict the outputs of new samples by ridge regression.

        Args:
            features: Features [M, F] of new samples, minus the mean of
                the training features.
            alpha: The `alpha` of scikit-learn's `Ridge`. If None, from `choose_alpha`.
            outputs: Slice of the Q output columns to predict.

        Returns:
            Predictions [M, Q].
        """
        if alpha is None:
            alpha = self.choose_alpha(outputs)

        values, vectors = self._factors
        scaled = (vectors / (values + alpha)).to(self._rotated)
        weights = (scaled @ self._rotated[:, outputs]).to(self.cross)  # [K, Q]

        # in the dual form, weights multiply dot products of new and training samples
        inputs = features.to(weights)
        if self.samples is not None:
            inputs = inputs @ self.samples.to(weights).T
        return inputs @ weights + self.mean[outputs].to(weights)


def choose_penalty(
    eigenvalues: Tensor,
    squared_products: Tensor,
    squares: Tensor,
    count: int,
    n_features: int | None = None,
) -> float:
    """Choose the penalty of a ridge regression that all outputs share.

    The penalty of the grid with the smallest (1 - explained variance) / (1 - effective
    parameters / count)^2 is chosen, with the explained variance averaged over outputs.
    Of equal scores, the largest penalty is.

    Args:
        eigenvalues: Eigenvalues [K] of X.T @ X for the training features X.
        squared_products: Squares [K, Q] of V.T @ X.T @ Y for eigenvectors V
            and outputs Y.
        squares: Sum of squares [Q] of each centred output.
        count: Number of training samples, minus 1 if features are centred.
        n_features: Number of features, or None if it is K. Further eigenvalues are 0.

    Returns:
        The `alpha` of scikit-learn's `Ridge`.

    Source: Golub, Heath and Wahba 1979.
    """
    # divide by the sum of squares of each output, so that all have the same weight
    power = (squared_products / squares.clamp(min=1e-30)).mean(1)  # [K]

    size = n_features or len(eigenvalues)
    mean_eigenvalue = float(eigenvalues.sum()) / size or 1.0
    scores = []
    for penalty in PENALTY_GRID:
        alpha = mean_eigenvalue * penalty / count
        shares = (eigenvalues + 2 * alpha) / (eigenvalues + alpha).square()
        explained = float((power * shares).sum())
        n_parameters = float((eigenvalues / (eigenvalues + alpha)).sum())
        unexplained = max(0.0, 1 - explained)
        # a fit of all samples leaves rounding errors, whose score means nothing
        freedom = 1 - n_parameters / count
        score = unexplained / freedom**2 if freedom > MIN_FREEDOM else math.inf
        scores.append((score, -alpha))
    return -min(scores)[1]


@dataclass(frozen=True)
class FeatureScaler:
    """Standardisation of features by their training mean and standard deviation.

    Attributes:
        mean: Mean [F] of each training feature.
        spread: Standard deviation [F] of each training feature. 1 if it is constant.
    """

    mean: Tensor
    spread: Tensor

    @classmethod
    def fit(cls, features: Tensor) -> Self:
        """Compute mean and standard deviation of training features [N, F]."""
        spread = features.std(0, correction=0)
        # the mean of a constant is off by rounding
        rounding = torch.finfo(spread.dtype).eps * features.abs().amax(0)
        return cls(features.mean(0), torch.where(spread > rounding, spread, 1))

    def __call__(self, features: Tensor) -> Tensor:
        """Standardise features [M, F]."""
        return (features - self.mean) / self.spread


def project(
    train: Tensor, test: Tensor, components: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Project features to the principal components of the training features.

    All components are scaled by one factor, so that their variances over the training
    samples sum to 1.

    Args:
        train: Training features [N, F].
        test: Test features [M, F].
        components: Largest number of components.
        seed: Seed of the randomised decomposition, used if F and N are both larger than
            four times `components`, or F is larger than N.

    Returns:
        Components [N, K] of the training features, and [M, K] of the test features. If
        F or N is at most `components`, the centred and scaled features themselves.
    """
    mean = train.mean(0)
    centred = train - mean
    test = test - mean

    # principal components, exact if the product matrix is small enough
    n_samples, n_features = train.shape
    n_components = min(components, n_samples, n_features)
    if n_components < min(n_samples, n_features):
        is_small = min(n_samples, n_features) <= 4 * components
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            if is_small and n_features <= n_samples:
                scatter = centred.T.double() @ centred.double()
                _, vectors = torch.linalg.eigh(scatter)
                basis = vectors[:, -n_components:].to(train)
            else:
                _, _, basis = torch.svd_lowrank(centred, n_components, niter=4)
        centred = centred @ basis
        test = test @ basis

    # scale both by the training features, so that the variances sum to 1
    spread = float(centred.square().sum(1).mean().sqrt()) or 1.0
    return centred / spread, test / spread


def principal_axes(features: Tensor, components: int) -> Tensor:
    """Compute the directions of largest variance of features (principal axes).

    Args:
        features: Features [N, F] of N samples. Each column has the mean 0.
        components: Largest number of directions.

    Returns:
        Directions [F, K] of unit length in the columns, sorted by descending variance.
        K is the smallest of `components`, N - 1 and F.
    """
    n_samples, n_features = features.shape
    n_axes = min(components, n_samples - 1, n_features)
    if min(n_samples, n_features) > MAX_EXACT:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            _, _, axes = torch.svd_lowrank(features, n_axes, niter=2)
            return axes

    # PyTorch sorts eigenvectors by ascending eigenvalue, so they are flipped
    if n_features <= n_samples:
        _, vectors = torch.linalg.eigh((features.T @ features).double())
        return vectors[:, -n_axes:].flip(1).to(features)
    values, vectors = torch.linalg.eigh((features @ features.T).double())
    lengths = values[-n_axes:].clamp(min=1e-9 * float(values[-1])).sqrt()
    return features.T @ (vectors[:, -n_axes:] / lengths).flip(1).to(features)
