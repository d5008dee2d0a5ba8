"""Whitening is undone: what a sensor contributes is what its own recording does."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from brainhive_cli.core import parts
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.trials import Trials
from brainhive_cli.evaluation.explanation import sensor_space
from brainhive_cli.evaluation.explanation.sensor_space import SensorSpace

RANDOM = np.random.default_rng(0)
NAMES = ("Fz", "Cz", "Pz", "O1", "Oz")
PLAIN = {split: RANDOM.normal(size=(count, 6, 5, 7)) for split, count in (("train", 30), ("test", 8))}
SESSIONS = {split: RANDOM.integers(0, 3, each.shape[:2]).astype(np.int8) for split, each in PLAIN.items()}
MIXED = np.eye(5) + 0.3 * RANDOM.normal(size=(3, 5, 5))


def selection(split, normalise=None, whitened=True, channels=("Oz", "Pz", "O1"), signal=None):
    plain, own = PLAIN[split] if signal is None else signal, {}
    if whitened:
        plain = np.einsum("nrij,nrjt->nrit", MIXED[SESSIONS[split]], plain)
        own = {"sessions": SESSIONS[split], "whiteners": MIXED, "unit": "whitened"}
    ids = [f"{split}/{number}" for number in range(len(plain))]
    made = Trials(plain, ids, Sensors(NAMES), np.arange(7) / 100, 100.0, **{"unit": "V", **own})
    found = made.select(channels, None, 0.5, split)
    if normalise:
        part = parts.load("normalisations", normalise).TINY
        found = found.normalise(part.build(part.measure([selection("train").averages])))
    return found


def space(**how):
    tested, learned = (selection(split, **how) for split in ("test", "train"))
    return SensorSpace.of(tested, learned, tested.averages, learned.averages.mean(0))


CASES = [
    {"whitened": w, "normalise": n} for w in (True, False) for n in (None, "channel", "whiten", "template")
]


@pytest.mark.parametrize("how", CASES, ids=str)
def test_input_is_the_baseline_and_what_all_sensors_add(how):
    found = space(**how)
    rest = found.signal
    for sensor in range(found.deviation.shape[2]):
        rest = rest + found.without(sensor) - found.signal
    torch.testing.assert_close(rest, found.baseline, atol=1e-4, rtol=1e-4)  # of float32
    assert found.deviation.shape[2] == (5 if how["whitened"] else 3)


@pytest.mark.parametrize("normalise", (None, "channel", "whiten", "template"))
def test_without_a_sensor_is_the_recording_in_which_it_shows_its_mean(normalise):
    """By hand: the sensor's own trials are replaced before whitening, session by session."""
    found, sensor = space(normalise=normalise), NAMES.index("Cz")
    changed = PLAIN["test"].copy()
    for session in range(3):
        mean = PLAIN["train"][SESSIONS["train"] == session][:, sensor].mean(0)
        changed[SESSIONS["test"] == session, sensor] = mean
    expected = selection("test", normalise, signal=changed).averages
    np.testing.assert_allclose(found.without(sensor).numpy(), expected, atol=1e-4)


def test_averages_are_those_before_whitening_of_all_sensors():
    found = np.concatenate([*sensor_space.averages(selection("test"))])
    np.testing.assert_allclose(found, PLAIN["test"].mean(1), atol=1e-5)
    trials = [*sensor_space.repetitions(selection("test"))]
    np.testing.assert_allclose(trials, PLAIN["test"], atol=1e-5)


def test_whitening_that_is_not_known_is_one_line():
    recording = replace(selection("test").recorded, whiteners=None, sessions=None)
    assert "does not have the whiteners" in sensor_space.find_mixture(recording).in_one_line
