"""Simulated EEG of a person who looks at pictures, from a linear forward model.

- Low-level features drive components from about 90 ms on, semantic features from about
  170 ms on.
- Each component has a time course and a smooth pattern over the back of the head, which
  subjects share in part.

The model is not fitted to data.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from brainhive_cli.core.base import Array, Float32, Float64
from brainhive_cli.core.files import documents
from brainhive_cli.demo.pictures import (
    BACKGROUNDS,
    CATEGORIES,
    COLOURS,
    SHAPES,
    TEXTURES,
    Scene,
)

PROVENANCE = "simulated by brainhive_cli.demo.simulation: no brain was recorded"
"""Note in every file with simulated signals, and with every figure made from them."""
RATE_HZ = 250
N_SAMPLES = 250
UNIT = "uV"
CHANNELS = documents.read(
    Path(__file__).with_name("channels.json"), dict[str, tuple[float, float]]
)
"""Approximate position (x, y) of each channel on the head, seen from above. x points to
the right, y to the nose, and the ears are at x = -1 and 1.
"""
EARLY = 1
LATE = 2
"""Stages of vision. Their numbers seed the scalp patterns."""
# The peaks are as in visual evoked potentials, with P1 near 110 ms and N1 near 170 ms.
# Meaning begins at N1.
ONSETS_S = {
    EARLY: (0.092, 0.100, 0.120, 0.140, 0.170),
    LATE: (0.170, 0.190, 0.220, 0.270, 0.330),
}
"""Onset of each component, by stage."""
BACKGROUND_UV = 4.3
ALPHA_UV = 2.4
"""Standard deviation of a single trial's 1/f background and alpha rhythm."""
JITTER_SAMPLES = 2
"""Largest shift of a single response, 8 ms earlier or later."""
_MEANINGS: dict[str, tuple[float, tuple[str, ...]]] = {
    "category": (0.4, tuple(CATEGORIES)),
    "shape": (2.0, SHAPES),
    "colour": (2.1, tuple(COLOURS)),
    "texture": (0.1, TEXTURES),
    "background": (0.9, tuple(BACKGROUNDS)),
}
"""Weight and values of each factor of a scene. Shape and colour weigh most, because a
person looks for them in a reconstruction.
"""
_MODEL_SEED = 20260207


def measure_looks(image: Image.Image) -> Float32:
    """Measure the low-level features of a picture.

    They are 6x6 maps of brightness and two colour oppositions, and 4x4 maps of edges.

    Returns:
        Features [F], about zero on average and of about unit length.
    """
    # brightness and two colour oppositions, [48, 48] each
    small = image.convert("RGB").resize((48, 48), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float32) / 255
    red, green, blue = np.moveaxis(pixels, -1, 0)
    grey = (red + green + blue) / 3
    colour_planes = (grey - 0.55, red - green, blue - (red + green) / 2)
    edge_planes = (
        np.abs(np.gradient(grey, axis=0)) - 0.03,
        np.abs(np.gradient(grey, axis=1)) - 0.03,
    )

    # average the planes over coarse grids
    maps = []
    for planes, grid_size, weight in ((colour_planes, 6, 2.0), (edge_planes, 4, 45.0)):
        side = len(grey) // grid_size
        for plane in planes:
            fields = plane.reshape(grid_size, side, grid_size, side)
            maps.append(weight * fields.mean((1, 3)).ravel())
    return (np.concatenate(maps) / 7).astype(np.float32)


def measure_meaning(
    scene: Scene,
    factors: Sequence[str] = tuple(_MEANINGS),
    weights: Mapping[str, float] = MappingProxyType({}),
) -> Float32:
    """Measure the semantic features of a scene, as weighted one-hot codes.

    Args:
        scene: Scene.
        factors: Factors among category, shape, colour, texture and background.
        weights: Weights of factors that replace the usual weights.

    Returns:
        Features [F] of unit length, zero on average over a balanced set.
    """
    codes = []
    for factor in factors:
        default_weight, values = _MEANINGS[factor]
        scene_value = getattr(scene, factor)
        one_hot = np.array([scene_value == value for value in values])
        code = one_hot - 1 / len(values)
        weight = weights.get(factor, default_weight)
        codes.append(weight * code / np.linalg.norm(code))
    features = np.concatenate(codes)
    return (features / np.linalg.norm(features)).astype(np.float32)


def standardise(features: Array, mean: Array, spread: Array) -> Float32:
    """Bring a network's embeddings to the scale that `simulate` expects.

    Args:
        features: Embeddings [N, F].
        mean: Mean [F] of the training embeddings, not of the test embeddings.
        spread: Standard deviation [F] of the training embeddings.
    """
    return ((features - mean) / spread / features.shape[-1] ** 0.5).astype(np.float32)


def simulate(
    low_level_features: Array,
    semantic_features: Array,
    subject: int,
    repetitions: int,
    seed: int,
    noise: float = 1.0,
    items: Sequence[int] | None = None,
) -> Float32:
    """Simulate a subject's EEG of pictures.

    Args:
        low_level_features: Low-level features [N, F] of the pictures.
        semantic_features: Semantic features [N, F], or standardised embeddings.
        subject: Number of the subject.
        repetitions: Number of repetitions R of each picture.
        seed: Seed of the trials. Training and test need different seeds.
        noise: Size of the noise. The model is calibrated for 1.
        items: Number [N] of each picture in its split, which seeds its trials, or None
            for 0, 1, …

    Returns:
        Signals [N, R, C, T] in microvolt, from the onset of the picture to 1 s. They
        are noise before 84 ms.
    """
    n_items = len(low_level_features)
    seeds_of_items = range(n_items) if items is None else items

    # responses without noise [N, C, T + 2 * JITTER_SAMPLES]
    model = ForwardModel(subject)
    responses = model.simulate_response(EARLY, low_level_features)
    responses = responses + model.simulate_response(LATE, semantic_features)

    shape = (n_items, repetitions, len(CHANNELS), N_SAMPLES)
    signal = np.empty(shape, dtype=np.float32)
    batch_size = 32
    for start in range(0, n_items, batch_size):
        batch = slice(start, min(start + batch_size, n_items))

        # each trial has its own generator, so that it does not depend on the others
        rngs = []
        for item in seeds_of_items[batch]:
            trial_seeds = [
                (_MODEL_SEED, seed, subject, item, repetition)
                for repetition in range(repetitions)
            ]
            rngs.append([np.random.default_rng(values) for values in trial_seeds])
        signal[batch] = noise * model.simulate_noise(rngs)

        # shift and scale the response in each trial
        for trials, response, trial_rngs in zip(
            signal[batch], responses[batch], rngs, strict=True
        ):
            for trial, rng in zip(trials, trial_rngs, strict=True):
                delay = rng.integers(-JITTER_SAMPLES, JITTER_SAMPLES, endpoint=True)
                strength = np.float32(np.exp(0.2 * rng.standard_normal()))
                shifted = response[:, JITTER_SAMPLES - delay :][:, :N_SAMPLES]  # [C, T]
                trial += strength * shifted
    return signal


class ForwardModel:
    """Linear model of a subject's EEG.

    Args:
        subject: Number of the subject, which seeds the model.
    """

    def __init__(self, subject: int) -> None:
        self.subject = subject

        # latency, gain and alpha rhythm of the subject
        rng = np.random.default_rng((_MODEL_SEED, subject))
        self.delay_s = 0.012 * rng.random()
        self.gain = np.exp(0.1 * rng.standard_normal())
        alpha_hz = rng.normal(10.0, 0.7)

        # spectra of the background and of alpha
        hz = np.fft.rfftfreq(N_SAMPLES, 1 / RATE_HZ)
        self.background = _scale_spectrum(
            np.where(hz > 0, np.maximum(hz, 1) ** -0.7, 0)
        )
        self.alpha = _scale_spectrum(np.exp(-0.5 * ((hz - alpha_hz) / 1.2) ** 2))

        # scalp patterns of the noise
        n_channels = len(CHANNELS)
        shared_noise = 0.8 * self._draw_patterns(rng, n_channels) / n_channels**0.5
        self.mixing = shared_noise + 0.6 * np.eye(n_channels)
        self.alpha_patterns = self._draw_patterns(rng, 2) / 2**0.5

    def simulate_response(self, stage: int, features: Array) -> Float32:
        """Simulate responses to features, without noise.

        Args:
            stage: `EARLY` or `LATE`.
            features: Features [N, F].

        Returns:
            Responses [N, C, T + 2 * JITTER_SAMPLES], zero before the first onset.
        """
        # weights and scalp patterns, in part shared by subjects
        n_components = len(ONSETS_S[stage])
        width = features.shape[-1]
        shared_rng = np.random.default_rng((_MODEL_SEED, stage, width))
        subject_rng = np.random.default_rng(
            (_MODEL_SEED, stage, width, 1 + self.subject)
        )
        # Share of mixtures and patterns that differs between subjects, from 0 to 1.
        subject_share = 0.45
        shared_share = (1 - subject_share**2) ** 0.5
        # Number of scalp patterns of a component, each driven by a mixture of features.
        n_scalp_patterns = 6
        shape = (width, n_components, n_scalp_patterns)
        weights = shared_share * shared_rng.standard_normal(shape)
        weights = weights + subject_share * subject_rng.standard_normal(shape)
        n_patterns = n_components * n_scalp_patterns
        patterns = shared_share * self._draw_patterns(shared_rng, n_patterns)
        patterns += subject_share * self._draw_patterns(subject_rng, n_patterns)

        # project the features to the scalp
        sources = np.tensordot(features, weights, axes=1)  # [N, components, patterns]
        patterns = patterns.reshape(n_components, n_scalp_patterns, -1)
        scalp = np.einsum("nkp,kpc->nck", sources, patterns)  # [N, C, components]

        # each component follows a gamma function with a peak of 1
        time_s = np.arange(-JITTER_SAMPLES, N_SAMPLES + JITTER_SAMPLES) / RATE_HZ
        courses = np.empty((n_components, len(time_s)))
        # Time from the onset to the peak of each component, by stage.
        rises_s = {
            EARLY: (0.022, 0.035, 0.045, 0.060, 0.080),
            LATE: (0.040, 0.060, 0.080, 0.110, 0.150),
        }
        for course, onset_s, rise_s in zip(
            courses, ONSETS_S[stage], rises_s[stage], strict=True
        ):
            progress = np.maximum(time_s - onset_s - self.delay_s, 0) / rise_s
            course[:] = (progress * np.exp(1 - progress)) ** 3
        # Typical size of the whole response, by stage.
        gain_uv = {EARLY: 2.6, LATE: 4.2}
        gain = gain_uv[stage] * self.gain / n_patterns**0.5
        return (gain * scalp @ courses).astype(np.float32)

    def simulate_noise(self, rngs: list[list[np.random.Generator]]) -> Float32:
        """Simulate the noise [N, R, C, T] of trials: 1/f background and alpha.

        Args:
            rngs: Random generators [N][R] of the trials.
        """
        # complex noise for each channel, and then for each pattern of alpha rhythm
        n_bins = len(self.background)
        n_channels = len(CHANNELS)
        n_rows = n_channels + len(self.alpha_patterns)
        shape = (n_rows, 2 * n_bins)
        draws = []
        for item_rngs in rngs:
            draws.append(
                [rng.standard_normal(shape, dtype=np.float32) for rng in item_rngs]
            )
        waves = np.array(draws).view(np.complex64)  # [N, R, rows, bins]

        # shape the spectra, and return to the time domain
        background_waves = waves[..., :n_channels, :] * self.background
        background = self.mixing.astype(np.float32) @ background_waves
        alpha_waves = waves[..., n_channels:, :] * self.alpha
        alpha = self.alpha_patterns.T.astype(np.float32) @ alpha_waves
        spectrum = BACKGROUND_UV * background + ALPHA_UV * alpha
        return np.fft.irfft(spectrum, N_SAMPLES).astype(np.float32)

    def _draw_patterns(self, rng: np.random.Generator, n_patterns: int) -> Float64:
        """Draw smooth scalp patterns [n_patterns, C] of unit mean square."""
        positions = np.array(list(CHANNELS.values()))
        distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
        # Reach of a scalp pattern, in units of `CHANNELS`.
        smoothing = np.exp(-0.5 * (distances / 0.30) ** 2)
        patterns = rng.standard_normal((n_patterns, len(positions))) @ smoothing
        return patterns / np.sqrt((patterns**2).mean(-1, keepdims=True))


def _scale_spectrum(amplitude: Float64) -> Float32:
    """Scale an amplitude spectrum so that normal phases give noise of unit variance."""
    # a bin counts twice, and a complex number has variance 2
    power = 4 * (amplitude**2).sum() / N_SAMPLES**2
    return (amplitude / power**0.5).astype(np.float32)
