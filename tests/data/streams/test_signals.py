"""Replay of a signal store in the order of the recording."""

import numpy as np
import pytest

from brainhive_cli.data.signals import Sensors, Trials
from brainhive_cli.data.streams import Clock
from brainhive_cli.data.streams.signals import ReplayedTrials

NAMES = ["a", "b", "c"]


def replay(**times):
    """Replay two trials of three pictures, and list the names of their pictures."""
    trials = Trials.from_repetitions(
        np.zeros((3, 2, 1, 1)), NAMES, Sensors(["Oz"]), np.zeros(1), None, "µV", **times
    )
    stream = ReplayedTrials(trials, 1.0, Clock(1e6))
    windows = stream.read_windows(1.0)
    assert windows is not None
    return [window.name for window in windows]


SESSIONS = np.array([[1, 0], [0, 0], [1, 1]], np.int8)
RUNS = np.array([[0, 1], [0, 1], [1, 0]], np.int16)
ONSET_S = np.array([[5.0, 9.0], [2.0, 3.0], [1.0, 8.0]])


def test_trials_come_in_the_order_of_sessions_runs_and_onsets():
    order = replay(sessions=SESSIONS, runs=RUNS, onset_s=ONSET_S)
    assert order == ["b", "b", "a", "a", "c", "c"]


def test_trials_come_in_the_order_of_their_numbers():
    assert replay(trial_numbers=np.argsort(ONSET_S.ravel()).reshape(3, 2))
    numbers = np.array([[5, 0], [3, 1], [4, 2]])
    assert replay(trial_numbers=numbers) == ["a", "b", "c", "b", "c", "a"]


@pytest.mark.parametrize("times", [{}, {"sessions": SESSIONS}])
def test_trials_of_unknown_order_do_not_come_sorted(
    times,
):
    order = replay(**times)
    assert sorted(order) == sorted(NAMES * 2)
    assert order != sorted(order)
