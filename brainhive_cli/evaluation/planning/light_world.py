"""Light model of decoding: signals on noise axes, decoded by ridge regressions.

A signal is the product of a gain, random maps and the features of a picture, plus noise
of unit scale. Features are the embedding, and by a share that is unknown (the misfit)
something else about the picture. Only ratios of signal and noise matter, so the model
has no channels and no time.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from brainhive_cli.core.base import Array, Float64
from brainhive_cli.measurement import Products

N_AXES = 400
"""Number of noise axes."""
N_OTHER_FEATURES = 32
"""Number of features of a picture that its embedding does not have."""
MAX_MISFIT = 0.5
"""Largest share of the signal's variance that other features explain."""
MAX_COMPONENTS = 96
"""Largest number of principal components of embeddings."""
DEFAULT_PICTURES = 4000
DEFAULT_COMPONENTS = 64
DEFAULT_DECAY = 0.6
"""Number of random pictures, of their components, and decay of the components' standard
deviation, if nothing is known about the pictures.
"""
SHAPES = ((0.0, 0.0), (0.4, 0.5), (0.7, 0.0), (1.0, 0.8))
"""Shapes of the signal, on which the growth with training data depends: alignment and
decay. The signal's variance on an axis is the noise variance to the power of the
alignment, with white noise if it is 0. The amplitudes of the components of the signal
are their numbers to the power of minus the decay. Without decay, all features have maps
of their own.
"""
MAX_SIMULATED_SIGNALS = 600
"""Largest number of training signals that are simulated one by one. More signals have
more degrees of freedom than axes and features.
"""
NOISE_SLOPE = 1.07
"""Exponent of the decay of noise variance over axes, if no pilot measures it."""


@dataclass(frozen=True)
class PictureSpace:
    """Pictures that can be shown, as embeddings.

    Attributes:
        embeddings: Embeddings [N, D], centred, with a mean squared length of 1.
    """

    embeddings: Float64

    @classmethod
    def from_embeddings(cls, embeddings: Array | None) -> "PictureSpace":
        """Centre and scale embeddings [N, D], and reduce them to main components.

        Without embeddings, pictures are random.
        """
        if embeddings is None:
            rng = np.random.default_rng(1)
            shape = (DEFAULT_PICTURES, DEFAULT_COMPONENTS)
            decay = np.arange(1, DEFAULT_COMPONENTS + 1) ** -DEFAULT_DECAY
            embeddings = rng.standard_normal(shape) * decay
        centred = np.asarray(embeddings, np.float64)
        centred = centred - centred.mean(0)
        if centred.shape[1] > MAX_COMPONENTS:
            _, _, directions = np.linalg.svd(centred, full_matrices=False)
            centred = centred @ directions[:MAX_COMPONENTS].T
        length = np.sqrt((centred**2).sum(1).mean())
        return cls(centred / length)

    @cached_property
    def _root(self) -> Float64:
        """Matrix [K, D] that turns white noise into embeddings of this covariance."""
        _, root = np.linalg.qr(self.embeddings)
        return np.asarray(root / len(self.embeddings) ** 0.5)

    def draw(self, rng: np.random.Generator, count: int) -> Float64:
        """Draw different pictures, and random embeddings if there are not enough.

        Returns:
            Embeddings [count, D].
        """
        n_pictures = len(self.embeddings)
        pictures = self.embeddings[rng.permutation(n_pictures)[:count]]
        if count > n_pictures:
            white = rng.standard_normal((count - n_pictures, len(self._root)))
            pictures = np.concatenate([pictures, white @ self._root])
        return pictures


@dataclass(frozen=True)
class RidgeDecoder:
    """Ridge regression of a person, in the light model.

    Attributes:
        maps: Predicted tokens [features, D] for each feature, at a gain of 1.
        noise: Predicted tokens [axes, D] for unit noise on each axis.
        offset: Predicted tokens [D] for a signal of 0.
        mean: Mean [D] of the training embeddings.
        misfit: Share of the signal's variance that embeddings do not explain.
    """

    maps: Float64
    noise: Float64
    offset: Float64
    mean: Float64
    misfit: float

    def predict(
        self,
        rng: np.random.Generator,
        pictures: Float64,
        gain: float,
        repetitions: int,
    ) -> Float64:
        """Predict tokens [N, D] from new signals of pictures.

        Args:
            rng: Random generator.
            pictures: Embeddings [N, D].
            gain: Gain of the person.
            repetitions: Number of averaged repetitions.
        """
        features = add_features(rng, pictures, self.misfit)
        noise = self.draw_noise(rng, len(pictures), repetitions)
        return self.offset + gain * features @ self.maps + noise

    def draw_noise(
        self, rng: np.random.Generator, count: int, repetitions: int
    ) -> Float64:
        """Draw the noise [count, D] of tokens of signals averaged over repetitions."""
        white = rng.standard_normal((count, len(self.noise)))
        return white @ self.noise / repetitions**0.5


def add_features(rng: np.random.Generator, pictures: Float64, misfit: float) -> Float64:
    """Join embeddings [N, D] with other features of the pictures, by their share."""
    other = rng.standard_normal((len(pictures), N_OTHER_FEATURES))
    other *= (misfit / N_OTHER_FEATURES) ** 0.5
    return np.concatenate([pictures * (1 - misfit) ** 0.5, other], 1)


def fit_ridge(signals: Array, targets: Array) -> tuple[Float64, Float64, Float64]:
    """Fit the ridge regression of the evaluation, with its choice of the penalty.

    Args:
        signals: Signals [N, F].
        targets: Embeddings [N, D].

    Returns:
        Weights [F, D], mean signal [F] and mean embedding [D].
    """
    features = torch.from_numpy(np.asarray(signals, np.float64))
    products = Products.from_samples(features, [torch.from_numpy(targets)])
    weights = products.basis @ products.solve()
    return weights.numpy(), products.feature_mean.numpy(), products.mean.numpy()


@dataclass(frozen=True)
class LightWorld:
    """Light model of decoding for a set of pictures and a kind of recording.

    Attributes:
        pictures: Pictures that can be shown.
        noise_slope: Exponent of the decay of noise variance over axes.
    """

    pictures: PictureSpace = field(
        default_factory=lambda: PictureSpace.from_embeddings(None)
    )
    noise_slope: float = NOISE_SLOPE

    def make_noise(self, shape: tuple[float, float]) -> Float64:
        """Make the standard deviation [axes] of noise."""
        alignment, _ = shape
        slope = self.noise_slope if alignment else 0.0
        return np.arange(1.0, N_AXES + 1) ** (-slope / 2)

    def draw_maps(
        self, rng: np.random.Generator, shape: tuple[float, float]
    ) -> Float64:
        """Draw the signal [features, axes] of each feature for a gain of 1.

        The mean over axes of the squared ratio of signal and noise is about 1.
        """
        alignment, decay = shape
        noise = self.make_noise(shape)
        signal = noise**alignment
        signal /= np.sqrt((signal**2 / noise**2).mean())
        width = self.pictures.embeddings.shape[1] + N_OTHER_FEATURES
        if not decay:
            return rng.standard_normal((width, N_AXES)) * signal
        # Number of components of a signal whose amplitudes decay.
        n_signal_components = 96
        amplitudes = np.arange(1.0, n_signal_components + 1) ** -decay
        amplitudes /= np.sqrt((amplitudes**2).sum())
        mixing = rng.standard_normal((width, n_signal_components)) * amplitudes
        return mixing @ rng.standard_normal((n_signal_components, N_AXES)) * signal

    def draw_decoder(
        self,
        rng: np.random.Generator,
        gain: float,
        shape: tuple[float, float],
        n_pictures: int,
        repetitions: int,
    ) -> RidgeDecoder:
        """Draw a person, simulate the training signals, and fit the decoder."""
        noise = self.make_noise(shape)
        maps = self.draw_maps(rng, shape)
        misfit = rng.uniform(0, MAX_MISFIT)
        pictures = self.pictures.draw(rng, n_pictures)
        features = add_features(rng, pictures, misfit)
        mean_noise = noise / repetitions**0.5
        if n_pictures > MAX_SIMULATED_SIGNALS:
            # features begin with the embeddings, scaled by their share
            n_tokens = pictures.shape[1]
            products, mean = _draw_products(
                rng, features, n_tokens, gain * maps, mean_noise
            )
            weights = (products.basis @ products.solve()).numpy() / (1 - misfit) ** 0.5
            target_mean = pictures.mean(0)
        else:
            white = rng.standard_normal((n_pictures, N_AXES))
            signals = gain * features @ maps + mean_noise * white
            weights, mean, target_mean = fit_ridge(signals, pictures)
        return RidgeDecoder(
            maps=maps @ weights,
            noise=noise[:, None] * weights,
            offset=-mean @ weights,
            mean=target_mean,
            misfit=misfit,
        )


def _draw_products(
    rng: np.random.Generator,
    features: Float64,
    n_outputs: int,
    maps: Float64,
    noise: Float64,
) -> tuple[Products, Float64]:
    """Draw the products of training signals with themselves and with features.

    They are distributed as the products of simulated signals, without the cost of many
    signals. The products of the noise follow a Wishart distribution.

    Args:
        rng: Random generator.
        features: Features [N, K] of the training pictures.
        n_outputs: Number of features that are predicted, from the first on.
        maps: Signal [K, axes] of each feature.
        noise: Standard deviation [axes] of the noise of each training signal.

    Returns:
        The products, with these features as outputs, and the mean signal [axes].

    Source: Bartlett 1933 (decomposition of Wishart matrices).
    """
    n_pictures, n_features = features.shape
    n_axes = len(noise)
    feature_mean = features.mean(0)
    centred = features - feature_mean
    scatter = centred.T @ centred

    # noise in the space of features, and outside it
    root = np.linalg.cholesky(scatter + 1e-9 * np.trace(scatter) * np.eye(n_features))
    inside = rng.standard_normal((n_features, n_axes)) * noise
    freedom = n_pictures - 1 - n_features
    outside = np.triu(rng.standard_normal((n_axes, n_axes)), 1)
    outside += np.diag(np.sqrt(rng.chisquare(freedom - np.arange(n_axes))))
    outside *= noise

    signals = scatter @ maps + root @ inside  # products of features and signals
    gram = maps.T @ signals + (root @ inside).T @ maps
    gram += inside.T @ inside + outside.T @ outside
    mean_noise = noise * rng.standard_normal(n_axes) / n_pictures**0.5
    products = Products.from_gram(
        gram=torch.from_numpy(gram),
        cross=torch.from_numpy(signals[:n_outputs].T.copy()),
        squares=torch.from_numpy(np.diagonal(scatter)[:n_outputs].copy()),
        mean=torch.zeros(n_outputs, dtype=torch.float64),
        freedom=n_pictures - 1,
    )
    return products, feature_mean @ maps + mean_noise
