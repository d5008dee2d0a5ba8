"""Simulated EEG of somebody looking at pictures: a linear forward model of what is
seen, and much noise.

How it looks (low-level features) drives components from about 90 ms on, what it means
(semantic features) components from about 170 ms on; each component has a course in time
and a smooth pattern over the back of the head. Subjects share part of both. The model
is fixed: nothing is fitted to any data.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from brainhive_cli.core import documents
from brainhive_cli.core.arrays import Array, Float32, Float64
from brainhive_cli.demo.pictures import (
    BACKGROUNDS,
    CATEGORIES,
    COLOURS,
    SHAPES,
    TEXTURES,
    Scene,
)

Floats = Float32

PROVENANCE = "simulated by brainhive_cli.demo.simulation: no brain was recorded"
"""Goes into every file that holds such a signal, and with every figure made of it."""
RATE_HZ = 250
SAMPLES = 250
UNIT = "uV"
CHANNELS = documents.read(
    Path(__file__).with_name("channels.json"), dict[str, tuple[float, float]]
)
"""Channel > rough place on the head from above (x to the right, y to the nose, ears at
x = -1 and 1).
"""


EARLY, LATE = 1, 2
"""Stages of seeing, by the number that seeds their patterns."""
# Peaks as in visual evoked potentials: P1 near 110 ms, N1 near 170 ms; meaning from
# there on.
ONSETS_S = {
    EARLY: (0.092, 0.100, 0.120, 0.140, 0.170),
    LATE: (0.170, 0.190, 0.220, 0.270, 0.330),
}
RISES_S = {
    EARLY: (0.022, 0.035, 0.045, 0.060, 0.080),
    LATE: (0.040, 0.060, 0.080, 0.110, 0.150),
}
"""Stage > beginning of each of its components, and how long it takes from there to the
peak.
"""
GAIN_UV = {EARLY: 2.6, LATE: 4.2}
"""Stage > typical size of the whole response."""

# scalp patterns of a component, each driven by its own mixture of features
PATTERNS = 6
# how much of mixtures and patterns is the subject's own (0 none, 1 all)
OWN_SHARE = 0.45
SMOOTHNESS = 0.30  # reach of a scalp pattern, in units of `CHANNELS`
BACKGROUND_UV, ALPHA_UV = 4.3, 2.4  # of single trials
JITTER_SAMPLES = 2  # most that a single response comes early or late: 8 ms
_MEANINGS: dict[str, tuple[float, tuple[str, ...]]] = {
    "category": (0.4, tuple(CATEGORIES)),
    "shape": (2.0, SHAPES),
    "colour": (2.1, tuple(COLOURS)),
    "texture": (0.1, TEXTURES),
    "background": (0.9, tuple(BACKGROUNDS)),
}
"""Factor > (weight, names); shape and colour weigh most: a person looks for them in a
reconstruction.
"""
_MODEL_SEED = 20260207
_BATCH = 32


def low_level(image: Image.Image) -> Floats:
    """Measure how a picture looks: 6x6 maps of brightness and two colour oppositions,
    4x4 maps of edges.

    Returns:
        [F], about zero in the mean and of about unit length, whatever the picture's
        size.
    """
    # brightness and two colour oppositions of the picture, [48, 48] each
    pixels = (
        np.asarray(
            image.convert("RGB").resize((48, 48), Image.Resampling.BOX),
            dtype=np.float32,
        )
        / 255
    )
    red, green, blue = np.moveaxis(pixels, -1, 0)
    grey = (red + green + blue) / 3
    opponents = (grey - 0.55, red - green, blue - (red + green) / 2)

    # edges, and coarse maps of all planes
    edges = tuple(np.abs(np.gradient(grey, axis=axis)) - 0.03 for axis in (0, 1))
    maps = []
    for planes, fields, weight in ((opponents, 6, 2.0), (edges, 4, 45.0)):
        side = len(grey) // fields
        for plane in planes:
            # [fields, fields]
            means = plane.reshape(fields, side, fields, side).mean((1, 3))
            maps.append(weight * means.ravel())
    return (np.concatenate(maps) / 7).astype(np.float32)


def semantic(
    scene: Scene,
    factors: Sequence[str] = tuple(_MEANINGS),
    weights: Mapping[str, float] = MappingProxyType({}),
) -> Floats:
    """Say what a scene means: one-hot category, shape, colour, texture and background,
    or some of these.

    Args:
        scene: The scene.
        factors: Which of them.
        weights: Weights of factors instead of the usual ones.

    Returns:
        [G], zero in the mean over a balanced set and of unit length.
    """
    parts = []
    for factor in factors:
        weight, names = _MEANINGS[factor]
        part = np.array([getattr(scene, factor) == name for name in names]) - 1 / len(
            names
        )
        parts.append(weights.get(factor, weight) * part / np.linalg.norm(part))
    joined = np.concatenate(parts)
    return (joined / np.linalg.norm(joined)).astype(np.float32)


def standardise(features: Array, mean: Array, spread: Array) -> Floats:
    """Bring a network's embeddings [N, G] to the scale that `simulate` expects.

    Args:
        features: Embeddings [N, G].
        mean: Of training embeddings, [G]; never of those to be tested on.
        spread: Their standard deviation, [G].
    """
    return ((features - mean) / spread / features.shape[-1] ** 0.5).astype(np.float32)


def simulate(
    low: Array,
    semantic: Array,
    subject: int,
    repetitions: int,
    seed: int,
    noise: float = 1.0,
    items: Sequence[int] | None = None,
) -> Floats:
    """Simulate what a subject's EEG shows of pictures; before 84 ms it is all noise.

    Args:
        low: Low-level features [N, F].
        semantic: Semantic features [N, G], rows of about unit length.
        subject: Whose head.
        repetitions: R, how often each picture is shown.
        seed: Of the trials; use one for training and another for test.
        noise: Size of all noise, 1 as calibrated: the one knob of difficulty.
        items: Number of each picture in its split; a trial depends on it, not on what
            else is simulated.

    Returns:
        [N, R, C, T] in microvolt, one second from the picture's onset.
    """
    # the response without noise: early to the look, late to the meaning
    numbers = range(len(low)) if items is None else items
    head = ForwardModel(subject)
    # [N, C, T + 2 * JITTER_SAMPLES]
    evoked = head.respond(EARLY, low) + head.respond(LATE, semantic)
    signal = np.empty((len(low), repetitions, len(CHANNELS), SAMPLES), dtype=np.float32)
    for start in range(0, len(low), _BATCH):
        chunk = slice(start, min(start + _BATCH, len(low)))

        # one generator for each trial, so that a trial does not depend on the others
        rngs = [
            [
                np.random.default_rng((_MODEL_SEED, seed, subject, n, r))
                for r in range(repetitions)
            ]
            for n in numbers[chunk]
        ]
        signal[chunk] = noise * head.idle(rngs)

        # each trial varies the usual response: early or late, weak or strong
        for row, response, trial_rngs in zip(
            signal[chunk], evoked[chunk], rngs, strict=True
        ):
            for trial, rng in zip(row, trial_rngs, strict=True):
                late = rng.integers(-JITTER_SAMPLES, JITTER_SAMPLES, endpoint=True)
                strength = np.float32(np.exp(0.2 * rng.standard_normal()))
                # [C, T]
                trial += strength * response[:, JITTER_SAMPLES - late :][:, :SAMPLES]
    return signal


class ForwardModel:
    """One subject's way from features to the scalp, with all that goes on besides.

    Args:
        subject: Whose.
    """

    def __init__(self, subject: int) -> None:
        self.subject = subject

        # latency, gain and alpha rhythm of the subject
        rng = np.random.default_rng((_MODEL_SEED, subject))
        self.delay_s = 0.012 * rng.random()
        self.gain = np.exp(0.1 * rng.standard_normal())
        alpha_hz = rng.normal(10.0, 0.7)

        # spectra of the background and of alpha
        hz = np.fft.rfftfreq(SAMPLES, 1 / RATE_HZ)
        self.background = _spectrum(np.where(hz > 0, np.maximum(hz, 1) ** -0.7, 0))
        self.alpha = _spectrum(np.exp(-0.5 * ((hz - alpha_hz) / 1.2) ** 2))

        # scalp patterns of the noise
        channels = len(CHANNELS)
        self.mixing = 0.8 * self._patterns(
            rng, channels
        ) / channels**0.5 + 0.6 * np.eye(channels)
        self.alpha_patterns = self._patterns(rng, 2) / 2**0.5

    def respond(self, stage: int, features: Array) -> Floats:
        """Answer features [N, F] without noise: [N, C, T + 2 * JITTER_SAMPLES], zero
        before the onset.
        """
        # weights and patterns: a part that all subjects share, and a part of this
        # subject
        components = len(ONSETS_S[stage])
        width = features.shape[-1]
        shared = np.random.default_rng((_MODEL_SEED, stage, width))
        special = np.random.default_rng((_MODEL_SEED, stage, width, 1 + self.subject))
        shared_part = (1 - OWN_SHARE**2) ** 0.5
        own_part = OWN_SHARE
        size = (width, components, PATTERNS)
        weights = shared_part * shared.standard_normal(
            size
        ) + own_part * special.standard_normal(size)
        patterns = shared_part * self._patterns(shared, components * PATTERNS)
        patterns += own_part * self._patterns(special, components * PATTERNS)

        # from features to scalp patterns
        sources = np.tensordot(features, weights, axes=1)  # [N, components, PATTERNS]
        patterns = patterns.reshape(components, PATTERNS, -1)
        scalp = np.einsum("nkp,kpc->nck", sources, patterns)  # [N, C, components]

        # each component rises to 1 and falls again, as the gamma distribution does; it
        # is 0 before the onset
        time_s = np.arange(-JITTER_SAMPLES, SAMPLES + JITTER_SAMPLES) / RATE_HZ
        courses = np.empty((components, len(time_s)))
        for course, onset_s, rise_s in zip(
            courses, ONSETS_S[stage], RISES_S[stage], strict=True
        ):
            way = np.maximum(time_s - onset_s - self.delay_s, 0) / rise_s
            course[:] = (way * np.exp(1 - way)) ** 3
        gain = GAIN_UV[stage] * self.gain / (components * PATTERNS) ** 0.5
        return (gain * scalp @ courses).astype(np.float32)

    def idle(self, rngs: list[list[np.random.Generator]]) -> Floats:
        """Make the noise of trials, one generator each [N][R]: 1/f background and
        alpha, [N, R, C, T].
        """
        # complex noise of each trial: channels, then alpha patterns
        bins = len(self.background)
        rows = len(CHANNELS) + len(self.alpha_patterns)
        shape = (rows, 2 * bins)
        drawn = np.array(
            [
                [rng.standard_normal(shape, dtype=np.float32) for rng in row]
                for row in rngs
            ]
        )
        waves = drawn.view(np.complex64)  # [N, R, rows, bins]

        # shape the spectra, and go back to the time domain
        background = self.mixing.astype(np.float32) @ (
            waves[..., : len(CHANNELS), :] * self.background
        )
        alpha = self.alpha_patterns.T.astype(np.float32) @ (
            waves[..., len(CHANNELS) :, :] * self.alpha
        )
        return np.fft.irfft(
            BACKGROUND_UV * background + ALPHA_UV * alpha, SAMPLES
        ).astype(np.float32)

    def _patterns(self, rng: np.random.Generator, count: int) -> Float64:
        """Draw smooth scalp patterns of unit mean square, [count, C]."""
        positions = np.array(list(CHANNELS.values()))
        distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
        patterns = rng.standard_normal((count, len(positions))) @ np.exp(
            -0.5 * (distance / SMOOTHNESS) ** 2
        )
        return patterns / np.sqrt((patterns**2).mean(-1, keepdims=True))


def _spectrum(amplitude: Float64) -> Floats:
    """Scale an amplitude spectrum so that its inverse transform with normal phases has
    unit variance.
    """
    # a bin counts twice and has a complex of variance 2
    power = 4 * (amplitude**2).sum() / SAMPLES**2
    return (amplitude / power**0.5).astype(np.float32)
