"""The encoding model finds the sensors and times of the demo's simulated responses."""

import numpy as np
import pytest
import torch

from brainhive_cli.data.signals import Sensors, Trials, average_repetitions
from brainhive_cli.demo import pictures, simulation
from brainhive_cli.evaluation.explanation.encoding_model import (
    predict_signals,
    profile_correlation,
    profile_unique_correlation,
)
from brainhive_cli.evaluation.explanation.profiles import (
    Axis,
    Labels,
    correct_p_values,
    standardise,
)
from brainhive_cli.measurement.units import Items

FRONTAL = ("Fp1", "Fp2", "F3", "Fz", "F4")
NAMES = tuple(FRONTAL) + tuple(simulation.CHANNELS)
COUNTS = {"train": 200, "test": 60}
EVERY = 10
"""Step from sample to sample: 40 ms."""


def features(split):
    scenes = pictures.list_scenes(split)[: COUNTS[split]]
    low = np.stack(
        [simulation.measure_looks(pictures.draw_scene(scene)) for scene in scenes]
    )
    return low, np.stack([simulation.measure_meaning(scene) for scene in scenes])


def labels_of(count, draws):
    return Labels.draw(np.arange(count), Items.from_sizes([count]), draws, 0)


def whitened(split, low, meaning):
    """Simulate EEG with frontal sensors of noise, whitened by session."""
    random = np.random.default_rng(0)
    posterior = simulation.simulate(low, meaning, 1, 2, seed=len(low), noise=0.3)[
        ..., ::EVERY
    ]
    frontal = (
        random.normal(
            size=tuple(posterior.shape[:2]) + (len(FRONTAL), posterior.shape[3])
        )
        * posterior.std()
    )
    plain_joined_array = np.concatenate([frontal, posterior], 2)
    whiteners = np.eye(len(NAMES)) + 0.2 * np.random.default_rng(1).normal(
        size=(2, len(NAMES), len(NAMES))
    )
    sessions = random.integers(0, 2, plain_joined_array.shape[:2]).astype(np.int8)
    signal = np.einsum(
        "nrij,nrjt->nrit", whiteners[sessions], plain_joined_array
    ).astype(np.float32)
    ids, times = (
        [f"{split}{row}" for row in range(len(low))],
        np.arange(signal.shape[3]) * EVERY / 250,
    )
    given = {"sessions": sessions, "whiteners": whiteners}
    recording = Trials.from_repetitions(
        signal, ids, Sensors(NAMES), times, 250 / EVERY, "whitened", **given
    )
    return recording.select(where=split)


@pytest.fixture(scope="module")
def predicted():
    """Predictions from looks and meaning, and signals, both without whitening."""
    features_by_name = {split: features(split) for split in COUNTS}
    levels = [
        {"looks": torch.from_numpy(a), "meaning": torch.from_numpy(b)}
        for a, b in features_by_name.values()
    ]
    train, test = (whitened(split, *each) for split, each in features_by_name.items())
    joined_array = np.concatenate(list(average_repetitions(test))).astype(np.float64)

    def signals():
        return (
            torch.from_numpy(repetition.reshape(len(repetition), -1))
            for repetition in average_repetitions(train)
        )

    wrong_rolls = tuple(
        np.roll(np.arange(count), count // 2) for count in COUNTS.values()
    )
    return tuple(
        predict_signals(*levels, signals, joined_array.shape[1:], wrong_rolls, 40)
    ) + (joined_array,)


def test_posterior_sites_are_predicted_and_frontal_ones_are_not(predicted):
    rows = [np.s_[:, [row]] for row in range(len(NAMES))]
    labels = labels_of(COUNTS["test"], 100)

    full, _, measured = predicted
    correlation = profile_correlation(
        full, measured, Axis("sensor", NAMES), rows, labels
    )

    values = dict(zip(NAMES, correlation.values.mean(1), strict=True))
    (corrected,) = correct_p_values(
        [
            standardise(
                correlation.values.mean(1),
                correlation.null,
            )
        ]
    )
    names = {name for name, p in zip(NAMES, corrected, strict=True) if p < 0.05}
    assert names == set(simulation.CHANNELS)
    assert min(values[name] for name in simulation.CHANNELS) > 2 * max(
        abs(values[name]) for name in FRONTAL
    )


def test_looks_contribute_early_and_meaning_contributes_late(predicted):
    full, partial, measured = predicted
    full, measured = (each[:, len(FRONTAL) :] for each in (full, measured))
    sides = {
        name: tuple(each[:, len(FRONTAL) :] for each in pair)
        for name, pair in partial.items()
    }
    rows = range(measured.shape[2])

    looks, meaning = (
        profile_unique_correlation(
            full,
            sides[level],
            measured,
            Axis("ms", [40.0 * row for row in rows]),
            [np.s_[..., [row]] for row in rows],
        )
        for level in ("looks", "meaning")
    )

    array = np.array(looks.axis.at)
    course = {"looks": looks.values.mean(1), "meaning": meaning.values.mean(1)}
    assert (
        100
        <= array[course["looks"].argmax()]
        <= 200
        < array[course["meaning"].argmax()]
    )
    half = {
        name: array[(each > each.max() / 2).argmax()] for name, each in course.items()
    }
    assert half["looks"] < half["meaning"]
    # of other pictures' looks
    assert np.abs(looks.shuffled.mean(1)).max() < course["looks"].max() / 2
