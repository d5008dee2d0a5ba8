"""Selected signals that are read when needed, and averages of selected trials."""

import numpy as np
import pytest

from brainhive_cli.data.signals import MAX_STIMULI_PER_READ, Sensors, Trials
from brainhive_cli.data.signals.normalisations import Whiten
from brainhive_cli.data.stores.signal_store import SignalStore
from tests.worlds.array_trials import make_trials

CHANNELS = ("P7", "Oz", "Cz")


def recorded(path, seed=0):
    """Select signals of a subject's store, with different numbers of repetitions."""
    count, random = MAX_STIMULI_PER_READ + 7, np.random.default_rng(seed)
    signal = random.normal(size=(count, 3, 3, 8)).astype(np.float32)
    repetitions = np.resize([3, 1, 2], count)
    ids = [f"c/p{number}" for number in range(count)]
    trials = Trials.from_repetitions(
        signal,
        ids,
        Sensors(CHANNELS),
        np.arange(8) / 100,
        100.0,
        "µV",
        repetitions=repetitions,
    )
    SignalStore.write(path, {"train": trials})
    return SignalStore.open(path)["train"].select(["Oz", "P7"], (10, 60), 2.0, "here")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sub-01.h5"


def test_rows_that_are_read_late_are_those_in_memory(path):
    whole_recorded = recorded(path)
    normaliser = Whiten().build(Whiten().measure([whole_recorded.averages]))
    for is_chosen in (
        whole_recorded,
        recorded(path).take(np.arange(0, 200, 3)),
        recorded(path).normalise(normaliser),
    ):
        rows = np.random.default_rng(0).permutation(len(is_chosen.counts))[:20]
        late, singles = is_chosen.read(rows), is_chosen.read_trials(rows)
        assert is_chosen.averages.shape == (len(is_chosen.counts), 2, 5)
        np.testing.assert_array_equal(late, is_chosen.averages[rows])
        np.testing.assert_array_equal(singles, is_chosen.singles[rows])


COUNTS = np.array([3, 1, 2, 3, 2])
IS_CHOSEN = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 1, 0]], np.bool_)
CHOSEN = {0: [1, 2], 2: [0], 3: [0, 2], 4: [1]}
"""Columns of the selected trials by row. Row 1 has none."""


def presented_trials():
    """Make five stimuli with up to three trials. Absent trials are NaN, so that using
    them is seen.
    """
    random, is_there = np.random.default_rng(0), np.arange(3) < COUNTS[:, None]
    single = random.normal(size=(5, 3, 2, 4)).astype(np.float32)
    single[~is_there] = np.nan
    onset_s = np.where(is_there, random.permutation(15).reshape(5, 3), np.nan)
    numbers = np.where(is_there, random.integers(0, 9, (5, 3)), -1)
    fields = {
        "sessions": numbers.astype(np.int8),
        "runs": numbers.astype(np.int16),
        "onset_s": onset_s,
    }
    return make_trials(
        3, single, np.arange(10, 15), ("P7", "Oz"), 100.0, COUNTS, **fields
    )


def test_selected_trials_are_averaged_and_empty_stimuli_left_out():
    trials = presented_trials()

    chosen_trials = trials.choose(IS_CHOSEN[np.arange(3) < COUNTS[:, None]])

    assert chosen_trials.stimulus.tolist() == [
        10,
        12,
        13,
        14,
    ]
    assert chosen_trials.counts.tolist() == [
        2,
        1,
        2,
        1,
    ]
    by_hand = [
        trials.as_repetitions()[row, chosen_rows].mean(0)
        for row, chosen_rows in CHOSEN.items()
    ]
    np.testing.assert_allclose(chosen_trials.averages, by_hand, atol=1e-6)
    assert chosen_trials.averages.dtype == chosen_trials.singles.dtype == np.float32
