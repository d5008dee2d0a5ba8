"""Contributions of sensors to whitened signals."""

import numpy as np
import pytest

from brainhive_cli.core.recipes import parts
from brainhive_cli.data.signals import Sensors, Trials
from brainhive_cli.evaluation.explanation.sensor_space import SensorSpace

RANDOM = np.random.default_rng(0)
NAMES = ("Fz", "Cz", "Pz", "O1", "Oz")
PLAIN = {
    split: RANDOM.normal(size=(count, 6, 5, 7))
    for split, count in (("train", 30), ("test", 8))
}
SESSIONS = {
    split: RANDOM.integers(0, 3, each.shape[:2]).astype(np.int8)
    for split, each in PLAIN.items()
}
MIXED = np.eye(5) + 0.3 * RANDOM.normal(size=(3, 5, 5))


def selection(
    split, normalise=None, whitened=True, channels=("Oz", "Pz", "O1"), signal=None
):
    plain_einsum, own = PLAIN[split] if signal is None else signal, {}
    if whitened:
        plain_einsum = np.einsum(
            "nrij,nrjt->nrit", MIXED[SESSIONS[split]], plain_einsum
        )
        own = {"sessions": SESSIONS[split], "whiteners": MIXED, "unit": "whitened"}
    ids = [f"{split}/{number}" for number in range(len(plain_einsum))]
    trials = Trials.from_repetitions(
        plain_einsum,
        ids,
        Sensors(NAMES),
        np.arange(7) / 100,
        100.0,
        **{"unit": "V", **own},
    )
    found = trials.select(channels, None, 0.5, split)
    if normalise:
        TINY = parts.load("normalisations", normalise).TINY
        found = found.normalise(TINY.build(TINY.measure([selection("train").averages])))
    return found


def space(**fields):
    tested, learned = (selection(split, **fields) for split in ("test", "train"))
    return SensorSpace.from_trials(
        tested, learned, tested.averages, learned.averages.mean(0)
    )


@pytest.mark.parametrize("normalise", ("whiten", "template"))
def test_a_removed_sensor_has_its_mean_training_signal(normalise):
    """By hand, the trials of the sensor are replaced before whitening."""
    head_space, sensor = space(normalise=normalise), NAMES.index("Cz")
    changed = PLAIN["test"].copy()
    for session in range(3):
        mean = PLAIN["train"][SESSIONS["train"] == session][:, sensor].mean(0)
        changed[SESSIONS["test"] == session, sensor] = mean
    expected = selection("test", normalise, signal=changed).averages
    np.testing.assert_allclose(
        head_space.remove_sensor(sensor).numpy(), expected, atol=1e-4
    )
