"""Names of channels without brain signals, and channels that code the labels."""

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.signals import (
    Sensors,
    Signal,
    Trials,
    find_codes,
    list_eye_channels,
    refuse_stimulus_channels,
)

LABELS = np.tile(np.arange(4), 10)


def simulate(codes):
    """Simulate trials [n, 3, 8] of noise, whose last channel holds codes [n, 8]."""
    noise = np.random.default_rng(0).normal(size=(len(codes), 2, 8))
    return np.concatenate([noise, codes[:, None]], 1)


def pulse(levels):
    """Make codes [n, 8] that are 0 but for three samples at a random time."""
    starts = np.random.default_rng(1).integers(0, 5, len(levels))
    times = np.arange(8)
    is_high = (times >= starts[:, None]) & (times < starts[:, None] + 3)
    return levels[:, None] * is_high


@pytest.mark.parametrize(
    "codes",
    [
        np.repeat(LABELS[:, None], 8, 1),
        pulse(LABELS + 1.0),
        65280 + pulse(LABELS + 1.0),
        -pulse(LABELS + 1.0) * 1e-6,
        pulse(LABELS // 2 + 1.0),
        pulse(np.where(np.arange(40) == 5, 9, LABELS + 1.0)),
    ],
)
def test_a_code_of_the_labels_is_found(codes):
    assert find_codes(simulate(codes), LABELS).tolist() == [False, False, True]


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((40, 8)),
        np.random.default_rng(2).integers(-50, 50, (40, 8)),
        pulse(np.random.default_rng(3).permutation(LABELS) + 1.0),
        np.repeat(LABELS[:, None], 8, 1)
        + np.random.default_rng(4).normal(size=(40, 8)),
    ],
)
def test_noise_and_codes_of_something_else_are_no_codes(values):
    assert not find_codes(simulate(values), LABELS).any()


def test_trials_that_are_copies_hold_no_code():
    signal = np.random.default_rng(0).normal(size=(4, 3, 8))[LABELS]
    assert not find_codes(signal, LABELS).any()


@pytest.mark.parametrize("name", ["STI 014", "Status", "TRIGGER", "DIN1", "photodiode"])
def test_channels_of_stimuli_are_refused_by_name(name):
    with pytest.raises(BrainhiveError, match=name):
        refuse_stimulus_channels(["Oz", name], "X")


def test_channels_of_eyes_are_known_by_name():
    names = ["EEG Fp1", "HEOG", "VEOL", "xpos_left", "Pupil", "FC5", "MEG0111", "IO1"]
    eyes = ["HEOG", "VEOL", "xpos_left", "Pupil", "IO1"]
    assert list_eye_channels(names) == eyes


def make_trials(*names, **preparation):
    """Make two trials of the named channels."""
    return Trials.from_repetitions(
        np.zeros((2, 1, len(names), 1)),
        ["a", "b"],
        Sensors(names),
        np.zeros(1),
        None,
        "µV",
        provenance={"preparation": preparation},
    )


@pytest.mark.parametrize(
    ("channels", "preparation", "expected"),
    [
        (None, {}, ["Oz", "Pz"]),
        (["Oz", "HEOG"], {}, ["Oz", "HEOG"]),
        (None, {"types": ["eeg", "eog"]}, ["Oz", "HEOG", "Pz"]),
    ],
)
def test_eyes_are_read_only_if_asked_for(channels, preparation, expected):
    trials = make_trials("Oz", "HEOG", "Pz", **preparation)
    selected = Signal(channels=channels).select(trials, None, "it")
    assert list(selected.channels) == expected


def test_no_model_reads_the_channel_of_stimuli():
    trials = make_trials("Oz", "Status")
    with pytest.raises(BrainhiveError, match="Status"):
        Signal().select(trials, None, "it")
    assert Signal(channels=["Oz"]).select(trials, None, "it").width == 1
