"""Ridge regression to many outputs, on principal components of the features."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Self

import torch
from torch import Tensor

MIN_FREEDOM = 0.01
"""Smallest share of samples beyond the effective parameters of a penalty."""
PENALTY_GRID = tuple(10.0**power for power in range(-2, 9))
"""Penalties from which cross-validation chooses, as multiples of the mean variance of a
feature.
"""
ALL_OUTPUTS = slice(None)
"""Slice that selects all outputs of a ridge regression."""
MAX_EXACT = 5000
"""Largest number of samples, or of features if these are fewer, for which all
components are exact. The time grows with its cube, to half a minute for 5,000.
"""
POWER_ITERATIONS = 4
"""Number of power iterations of the approximation, as in scikit-learn's PCA."""
BLOCK_NUMBERS = 1 << 23
"""Number of feature values that are converted to float64 at once. They take 64 MB,
which glibc returns to the system when they are freed.
"""


@dataclass(frozen=True)
class Components:
    """Principal components of N samples of F features (singular value decomposition).

    Attributes:
        mean: Mean [F] of each feature, or 0 if samples are not centred.
        basis: Directions [F, K] of unit length.
        singular: Singular values [K] in float64, the largest first.
        scores: Coordinates [N, K] of the samples, of unit length over the samples.
    """

    mean: Tensor
    basis: Tensor
    singular: Tensor
    scores: Tensor

    @classmethod
    def fit(
        cls,
        features: Tensor,
        max_components: int | None = None,
        *,
        is_centred: bool = True,
        max_exact: int = MAX_EXACT,
        seed: int = 0,
    ) -> Self:
        """Decompose features, with sums in float64.

        Args:
            features: Features [N, F].
            max_components: Largest number of components. Default: all. Directions
                without variance are no components.
            is_centred: If True, subtract the mean of each feature.
            max_exact: Largest number of samples or features, whichever are fewer, for
                which few components are exact.
            seed: Seed of the approximation.

        Source: Halko et al. 2011, Finding structure with randomness (approximation).
        """
        n_samples, n_features = features.shape
        size = min(n_samples, n_features)
        n_components = min(max_components or size, size)
        dtype = torch.promote_types(features.dtype, torch.float32)
        mean = torch.zeros(n_features, dtype=torch.float64, device=features.device)
        if is_centred:
            for block in features.split(max(1, BLOCK_NUMBERS // n_features)):
                mean += block.double().sum(0) / n_samples

        if is_approximate(n_samples, n_features, n_components, max_exact):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                scores, singular, basis = torch.svd_lowrank(
                    features - mean.to(dtype), n_components, niter=POWER_ITERATIONS
                )
            return cls(mean.to(dtype), basis, singular.double(), scores)

        # eigenvectors of the smaller Gram matrix
        gram = torch.zeros(size, size, dtype=torch.float64, device=features.device)
        for block in _centre_in_blocks(features, mean):
            _add_products(gram, block)
        singular, vectors = _find_singular(gram, n_components)
        del gram

        # vectors of the longer side follow from these
        scaled = vectors / singular
        long_vectors = torch.empty(
            max(features.shape), len(singular), dtype=dtype, device=features.device
        )
        start = 0
        for block in _centre_in_blocks(features, mean):
            stop = start + len(block)
            long_vectors[start:stop] = block @ scaled
            start = stop
        short_vectors = vectors.to(dtype)
        if n_features > n_samples:
            return cls(mean.to(dtype), long_vectors, singular, short_vectors)
        return cls(mean.to(dtype), short_vectors, singular, long_vectors)


def _centre_in_blocks(features: Tensor, mean: Tensor) -> Iterator[Tensor]:
    """Centre features [N, F] in float64, in blocks of the longer side.

    Yields:
        Blocks [n, F] of samples, or blocks [f, N] of features if F > N.
    """
    block_size = max(1, BLOCK_NUMBERS // min(features.shape))
    if features.shape[1] <= len(features):
        for rows in features.split(block_size):
            yield rows.double() - mean
        return
    means = mean.split(block_size)
    for columns, column_means in zip(features.split(block_size, 1), means, strict=True):
        yield (columns.double() - column_means).T


def _add_products(gram: Tensor, block: Tensor) -> None:
    """Add block.T @ block of a block [n, S] to a Gram matrix [S, S] in place.

    On the CPU only the lower triangle is updated, in half of the time.
    """
    if gram.device.type != "cpu":
        gram.addmm_(block.T, block)
        return
    from scipy.linalg.blas import dsyrk

    # transposed matrices are in Fortran's order, so that nothing is copied
    dsyrk(1.0, block.numpy().T, beta=1.0, c=gram.numpy().T, overwrite_c=1)


def _find_singular(gram: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the largest singular values of features from products of their vectors.

    Args:
        gram: Products [S, S] in float64, whose lower triangle is read. It is
            overwritten.
        count: Largest number of singular values.

    Returns:
        Singular values [K] in descending order, and singular vectors [S, K]. Values of
        0 are left out.
    """
    size = len(gram)
    if gram.device.type == "cpu" and count < size:
        from scipy.linalg import eigh

        eigenvalues, eigenvectors = eigh(
            gram.numpy().T,
            lower=False,
            subset_by_index=(size - count, size - 1),
            overwrite_a=True,
            check_finite=False,
        )
        variances = torch.from_numpy(eigenvalues)
        vectors = torch.from_numpy(eigenvectors)
    else:
        variances, vectors = torch.linalg.eigh(gram)
        variances = variances[-count:]
        vectors = vectors[:, -count:]

    # the smallest variances are rounding errors of 0
    rounding = torch.finfo(gram.dtype).eps * size * variances[-1]
    rank = int((variances > rounding).sum())
    first = count - rank
    return variances[first:].flip(0).sqrt(), vectors[:, first:].flip(1)


def is_approximate(
    n_samples: int, n_features: int, n_components: int, max_exact: int = MAX_EXACT
) -> bool:
    """Return True if components are approximated, as in scikit-learn's PCA."""
    size = min(n_samples, n_features)
    return size > max_exact and n_components < 0.8 * size


def count_fit_bytes(n_samples: int, n_features: int, n_components: int) -> int:
    """Estimate the bytes of memory that components take beyond features [N, F]."""
    size = min(n_samples, n_features)
    n_kept = min(n_components, size)
    basis_and_scores = 4 * (n_samples + n_features) * n_kept
    if is_approximate(n_samples, n_features, n_components):
        # centred features, and basis and scores before and after orthogonalisation
        return 4 * n_samples * n_features + 2 * basis_and_scores
    # Gram matrix, eigenvectors and a copy, basis and scores, and a block. Finding all
    # eigenvectors takes as much again.
    eigenvectors = 8 * size * (2 * size if n_kept == size else n_kept)
    return 8 * size**2 + 2 * eigenvectors + basis_and_scores + 8 * BLOCK_NUMBERS


def count_fit_operations(n_samples: int, n_features: int, n_components: int) -> float:
    """Estimate the operations in float64 of a fit. Operations in float32 count half."""
    size = min(n_samples, n_features)
    if is_approximate(n_samples, n_features, n_components):
        n_products = 2 * POWER_ITERATIONS + 2
        return float(n_samples) * n_features * n_components * n_products
    return 2.0 * n_samples * n_features * size + 10.0 * size**3


class OutputSums:
    """Sums over the outputs of samples, which are added in blocks.

    They are sums of differences from the first output, because the mean of outputs may
    be much larger than their spread.

    Attributes:
        rotated: Products [K, Q] of the scores and the outputs.
        count: Number of samples so far.
    """

    def __init__(
        self, scores: Tensor, rotated: Tensor, is_centred: bool = True
    ) -> None:
        """Start the sums.

        Args:
            scores: Scores [N, K], each with mean 0 if outputs are centred.
            rotated: Zeros [K, Q], which are changed in place.
            is_centred: If True, subtract the mean of each output.
        """
        self.scores = scores
        self.rotated = rotated
        self.is_centred = is_centred
        self.count = 0
        self._first = rotated.new_zeros(rotated.shape[1])
        self._sums = torch.zeros(
            2, rotated.shape[1], dtype=torch.float64, device=rotated.device
        )

    def add(self, outputs: Tensor) -> None:
        """Add the outputs [n, Q] of the next samples."""
        if self.is_centred and not self.count:
            self._first = outputs[0].clone()
        shifted = outputs - self._first
        scores = self.scores[self.count : self.count + len(outputs)]
        self.rotated += scores.T.to(shifted) @ shifted
        self._sums[0] += shifted.sum(0, dtype=torch.float64)
        norms = torch.linalg.vector_norm(shifted, dim=0, dtype=torch.float64)
        self._sums[1] += norms.square()
        self.count += len(outputs)

    @classmethod
    def from_chunks(
        cls,
        scores: Tensor,
        outputs: Iterator[Tensor] | Sequence[Tensor],
        is_centred: bool = True,
    ) -> Self:
        """Sum over the outputs of all samples, given in chunks [n, Q]."""
        chunks = iter(outputs)
        first = next(chunks)
        rotated = first.new_zeros(scores.shape[1], first.shape[1])
        sums = cls(scores, rotated, is_centred)
        for chunk in chain([first], chunks):
            sums.add(chunk)
        return sums

    @property
    def mean(self) -> Tensor:
        """Mean [Q] of each output in float64, or 0 if they are not centred."""
        return self._first + self.is_centred * self._sums[0] / self.count

    @property
    def squares(self) -> Tensor:
        """Sum of squares [Q] of each output, in float64."""
        squares = self._sums[1] - self.is_centred * self._sums[0].square() / self.count
        return squares.clamp(min=0)


@dataclass(frozen=True)
class Products:
    """Products of N training samples, from which a ridge regression is solved.

    The regression predicts Q outputs from K components of F features.

    Attributes:
        feature_mean: Mean [F] of each feature.
        basis: Directions [F, K] of the components.
        singular: Singular values [K] of the features.
        rotated: Products [K, Q] of the scores and the centred outputs.
        squares: Sum of squares [Q] of each centred output.
        mean: Mean [Q] of each output.
        freedom: Degrees of freedom of N samples: N - 1, or N if they are not centred.
    """

    feature_mean: Tensor
    basis: Tensor
    singular: Tensor
    rotated: Tensor
    squares: Tensor
    mean: Tensor
    freedom: int

    @classmethod
    def from_samples(
        cls,
        features: Tensor,
        outputs: Iterator[Tensor] | Sequence[Tensor],
        is_centred: bool = True,
    ) -> Self:
        """Decompose the features of the training samples, and rotate their outputs.

        Args:
            features: Features [N, F].
            outputs: Chunks [n, Q] of the outputs, in the order of the samples.
            is_centred: If True, subtract the means of features and outputs.
        """
        components = Components.fit(features, is_centred=is_centred)
        sums = OutputSums.from_chunks(components.scores, outputs, is_centred)
        return cls(
            feature_mean=components.mean,
            basis=components.basis,
            singular=components.singular,
            rotated=sums.rotated,
            squares=sums.squares,
            mean=sums.mean.to(sums.rotated),
            freedom=max(1, len(features) - is_centred),
        )

    @classmethod
    def from_gram(
        cls, gram: Tensor, cross: Tensor, squares: Tensor, mean: Tensor, freedom: int
    ) -> Self:
        """Decompose features by their products.

        Args:
            gram: Products [F, F] of centred features, in float64.
            cross: Products [F, Q] of centred features and outputs.
            squares: Sum of squares [Q] of each centred output.
            mean: Mean [Q] of each output.
            freedom: Degrees of freedom of the samples.
        """
        singular, basis = _find_singular(gram, len(gram))
        return cls(
            feature_mean=basis.new_zeros(len(basis)),
            basis=basis,
            singular=singular,
            rotated=(basis / singular).T.to(cross) @ cross,
            squares=squares,
            mean=mean,
            freedom=freedom,
        )

    def choose_alpha(self, outputs: slice = ALL_OUTPUTS) -> float:
        """Choose the penalty that some outputs share, the `alpha` of scikit-learn."""
        return choose_penalty(
            self.singular,
            self.rotated[:, outputs],
            self.squares[outputs],
            self.freedom,
            len(self.basis),
        )

    def solve(self, alpha: float | None = None, outputs: slice = ALL_OUTPUTS) -> Tensor:
        """Compute the weights [K, Q] of the components.

        Args:
            alpha: The `alpha` of scikit-learn's `Ridge`. If None, from `choose_alpha`.
            outputs: Slice of the Q output columns.
        """
        if alpha is None:
            alpha = self.choose_alpha(outputs)
        rotated = self.rotated[:, outputs]
        return shrink(self.singular, alpha)[:, None].to(rotated) * rotated

    def predict(
        self, features: Tensor, alpha: float | None = None, outputs: slice = ALL_OUTPUTS
    ) -> Tensor:
        """Predict the outputs [M, Q] of new samples [M, F]. Arguments as in `solve`."""
        weights = self.solve(alpha, outputs)
        centred = (features - self.feature_mean).to(self.basis)
        return (centred @ self.basis).to(weights) @ weights + self.mean[outputs]


def shrink(singular: Tensor, alpha: float) -> Tensor:
    """Compute the factors [K] of rotated outputs in ridge weights of components."""
    return singular / (singular.square() + alpha)


def choose_penalty(
    singular: Tensor, rotated: Tensor, squares: Tensor, freedom: int, n_features: int
) -> float:
    """Choose the penalty of a ridge regression that all outputs share.

    The penalty of the grid with the smallest unexplained variance / (1 - effective
    parameters / degrees of freedom)^2 is chosen, with the unexplained variance averaged
    over outputs. Of equal scores, the largest penalty is.

    Both are sums of what each component leaves, because 1 - explained variance would be
    rounding errors where the components explain nearly all.

    Args:
        singular: Singular values [K] of the training features.
        rotated: Products [K, Q] of the components' scores and the outputs.
        squares: Sum of squares [Q] of each centred output.
        freedom: Number of training samples, minus 1 if they are centred.
        n_features: Number of features. Directions beyond K have no variance.

    Returns:
        The `alpha` of scikit-learn's `Ridge`.

    Source: Golub, Heath and Wahba 1979.
    """
    # divide by the sum of squares of each output, so that all have the same weight
    weights = 1 / torch.where(squares > 0, squares, 1).double()
    power = torch.zeros_like(singular)  # [K]
    # Number of outputs whose products are squared in float64 at once.
    outputs_per_block = 4096
    for start in range(0, rotated.shape[1], outputs_per_block):
        block = slice(start, start + outputs_per_block)
        power += rotated[:, block].double().square() @ weights[block]
    power /= rotated.shape[1]

    # components of all samples leave nothing outside of them
    n_outside = freedom - len(singular)
    outside = max(0.0, 1 - float(power.sum())) if n_outside > 0 else 0.0
    variances = singular.square()
    mean_variance = float(variances.sum()) / n_features or 1.0
    scores = []
    for penalty in PENALTY_GRID:
        alpha = mean_variance * penalty / freedom
        remaining = alpha / (variances + alpha)
        unexplained = outside + float((power * remaining.square()).sum())
        share_of_freedom = (n_outside + float(remaining.sum())) / freedom
        score = math.inf
        if share_of_freedom > MIN_FREEDOM:
            score = unexplained / share_of_freedom**2
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
        seed: Seed of the approximation, used if F and N are both larger than four times
            `components`.

    Returns:
        Components [N, K] of the training features, and [M, K] of the test features. If
        F or N is at most `components`, the centred and scaled features themselves.
    """
    mean = train.mean(0)
    centred = train - mean
    test = test - mean
    if components < min(train.shape):
        decomposition = Components.fit(
            centred, components, max_exact=4 * components, seed=seed
        )
        centred = centred @ decomposition.basis
        test = test @ decomposition.basis

    # scale both by the training features, so that the variances sum to 1
    spread = float(centred.square().sum(1).mean().sqrt()) or 1.0
    return centred / spread, test / spread
