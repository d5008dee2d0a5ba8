"""Simulated EEG recordings in BrainVision files, as an amplifier writes them.

Responses follow the forward model of the demo. Continuous noise, alpha rhythm, blinks
and line noise are added.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np

from brainhive_cli.core.base import Array, Bool, Float64, Int64
from brainhive_cli.demo.simulation import (
    CHANNELS,
    EARLY,
    JITTER_SAMPLES,
    LATE,
    PROVENANCE,
    RATE_HZ,
    ForwardModel,
)

FRONTAL = {
    "Fp1": (-0.28, 0.9),
    "Fp2": (0.28, 0.9),
    "F7": (-0.76, 0.53),
    "F3": (-0.4, 0.48),
    "Fz": (0.0, 0.46),
    "F4": (0.4, 0.48),
    "F8": (0.76, 0.53),
    "T7": (-0.94, 0.0),
    "C3": (-0.48, 0.0),
    "Cz": (0.0, 0.0),
    "C4": (0.48, 0.0),
    "T8": (0.94, 0.0),
}
"""Positions (x, y) of the channels without a response, in the units of `CHANNELS`."""
POSITIONS = FRONTAL | CHANNELS
N_COMPONENTS = 12
"""Number of semantic features."""
SEMANTIC_GAIN = 1.2
"""Length of the semantic features. The low-level features have about 1."""


def choose_components(embeddings: Array, is_training: Bool) -> Float64:
    """Choose the semantic features of pictures that drive their responses.

    They are the first principal components of the training embeddings. A linear model
    of few pictures can learn these, but not hundreds of independent features.

    Args:
        embeddings: Embeddings [N, D] of the pictures.
        is_training: True [N] for training pictures.

    Returns:
        Features [N, F], about zero on average and of about the length `SEMANTIC_GAIN`.
    """
    training = embeddings[is_training]
    mean = training.mean(0)
    directions = np.linalg.svd(training - mean, full_matrices=False)[2]
    scores = (embeddings - mean) @ directions[:N_COMPONENTS].T
    spread = scores[is_training].std(0)
    return np.asarray(SEMANTIC_GAIN * scores / spread / N_COMPONENTS**0.5, np.float64)


@dataclass(frozen=True)
class SimulatedStudy:
    """Pictures of a simulated study, and how often they are shown.

    Attributes:
        image_ids: Path [N] of each picture below the image folder, without extension.
            The marker of a picture is its number in this list, from 1.
        low_level: Low-level features [N, F].
        semantic: Semantic features [N, F].
        repetitions: Number of repetitions [N] of each picture in a session.
    """

    image_ids: Sequence[str]
    low_level: Array
    semantic: Array
    repetitions: Sequence[int]


def write_study(
    folder: Path, study: SimulatedStudy, n_subjects: int, n_sessions: int
) -> list[Path]:
    """Write the recordings of a study, its table of events, and a description.

    Args:
        folder: Folder of the recordings.
        study: Pictures and repetitions.
        n_subjects: Number of subjects.
        n_sessions: Number of sessions of each subject.

    Returns:
        Header file of each recording.
    """
    import pybv

    folder.mkdir(parents=True, exist_ok=True)
    headers = []
    for subject in range(1, n_subjects + 1):
        for session in range(1, n_sessions + 1):
            signal_uv, onsets, rows = simulate_session(study, subject, session)
            events = []
            for onset, row in zip(onsets.tolist(), rows.tolist(), strict=True):
                events.append({"onset": onset, "description": row + 1})
            name = f"sub-{subject:02d}_ses-{session:02d}"
            pybv.write_brainvision(
                data=signal_uv * 1e-6,
                sfreq=RATE_HZ,
                ch_names=list(POSITIONS),
                fname_base=name,
                folder_out=folder,
                events=events,
                # Step of the stored whole numbers.
                resolution=0.1,
                fmt="binary_int16",
            )
            headers.append(folder / f"{name}.vhdr")

    table = StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["event", "picture"])
    for number, image_id in enumerate(study.image_ids, 1):
        writer.writerow([number, f"{image_id}.jpg"])
    (folder / "events.csv").write_text(table.getvalue(), "utf-8")
    # commands read this key, and mark all results as simulated
    description = {"Name": "Photographs, with simulated EEG", "Simulated": PROVENANCE}
    text = json.dumps(description, indent=2) + "\n"
    (folder / "dataset_description.json").write_text(text, "utf-8")
    return headers


def simulate_session(
    study: SimulatedStudy, subject: int, session: int
) -> tuple[Float64, Int64, Int64]:
    """Simulate a session with all pictures in random order.

    Args:
        study: Pictures and repetitions.
        subject: Number of the subject.
        session: Number of the session.

    Returns:
        Signal [C, T] of the channels of `POSITIONS` in µV, and onset (sample) [trials]
        and row in the study [trials] of each trial.
    """
    seed = 20261129
    rng = np.random.default_rng((seed, subject, session))
    rows = rng.permutation(
        np.repeat(np.arange(len(study.image_ids)), study.repetitions)
    )
    # Shortest and longest time from a picture to the next.
    interval_s = (1.2, 1.4)
    intervals_s = rng.uniform(*interval_s, len(rows))
    # Time before the first picture, and after the last.
    margin_s = 3.0
    onsets_s = margin_s + np.cumsum(intervals_s) - intervals_s[0]
    onsets = np.rint(onsets_s * RATE_HZ).astype(np.int64)
    n_times = int(onsets[-1] + margin_s * RATE_HZ)
    signal = _simulate_noise(rng, n_times)

    # responses are posterior, and shifted and scaled in each trial
    model = ForwardModel(subject)
    responses = model.simulate_response(EARLY, study.low_level)
    responses = responses + model.simulate_response(LATE, study.semantic)
    first = len(FRONTAL)
    for onset, row in zip(onsets.tolist(), rows.tolist(), strict=True):
        delay = int(rng.integers(-JITTER_SAMPLES, JITTER_SAMPLES, endpoint=True))
        strength = np.exp(0.2 * rng.standard_normal())
        response = strength * responses[row]  # [C, T], from `JITTER_SAMPLES` earlier
        start = onset - JITTER_SAMPLES + delay
        signal[first:, start : start + response.shape[1]] += response
    return signal, onsets, rows


def _simulate_noise(rng: np.random.Generator, n_times: int) -> Float64:
    """Simulate the continuous noise [C, T] of all channels in µV."""
    positions = np.array(list(POSITIONS.values()))
    n_channels = len(positions)
    times_s = np.arange(n_times) / RATE_HZ
    hz = np.fft.rfftfreq(n_times, 1 / RATE_HZ)

    # the 1/f background is shared by neighbours, and in part by no channel
    amplitude = np.maximum(hz, 0.5) ** -0.7
    sources = _shape_noise(rng, amplitude, n_channels, n_times)
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    mixing = np.exp(-0.5 * (distances / 0.35) ** 2)
    mixing /= np.linalg.norm(mixing, axis=1, keepdims=True)
    own_noise = _shape_noise(rng, amplitude, n_channels, n_times)
    # Standard deviation of the 1/f background. The demo has more noise, and
    # more training pictures.
    background_uv = 2.6
    signal = background_uv * (0.8 * mixing @ sources + 0.6 * own_noise)

    # the alpha rhythm is strongest at the back
    alpha = _shape_noise(rng, np.exp(-0.5 * ((hz - 10) / 0.8) ** 2), 1, n_times)
    strength = 1 / (1 + np.exp(4 * positions[:, 1:]))  # [C, 1]
    alpha_uv = 1.8
    signal += alpha_uv * strength * alpha

    line_uv = 1.2
    # line noise differs between channels
    gains = line_uv * rng.uniform(0.3, 1, (n_channels, 1))
    line_hz = 50.0
    signal += gains * np.sin(2 * np.pi * line_hz * times_s + rng.uniform(0, 6.28))

    # Duration of a blink.
    blink_s = 0.35
    # blinks decrease from the eyes to the back
    blink = np.hanning(round(blink_s * RATE_HZ))
    topography = np.exp(-(1 - positions[:, 1:]) / 0.35)  # [C, 1]
    # Mean time between blinks.
    blink_interval_s = 5.0
    n_blinks = int(times_s[-1] / blink_interval_s)
    blink_uv = 60.0
    for start in rng.integers(0, n_times - len(blink), n_blinks).tolist():
        height_uv = blink_uv * rng.uniform(0.7, 1.3)
        signal[:, start : start + len(blink)] += height_uv * topography * blink
    return signal


def _shape_noise(
    rng: np.random.Generator, amplitude: Float64, n_rows: int, n_times: int
) -> Float64:
    """Draw noise [n_rows, T] of unit variance with an amplitude spectrum [bins]."""
    spectrum = np.fft.rfft(rng.standard_normal((n_rows, n_times)))
    noise = np.fft.irfft(spectrum * amplitude, n_times)
    return np.asarray(noise / noise.std(1, keepdims=True), np.float64)
