"""Windows of successive trials that overlap in time."""

import numpy as np
import pytest

from brainhive_cli.data.signals import Overlap, Sensors, Trials

TIMES_S = np.arange(100) / 100


def trials(onset_s):
    """Make trials of two runs with these onsets in each, and windows of a second."""
    count = 8
    return Trials.from_repetitions(
        np.zeros((2 * count, 1, 1, 100), np.float32),
        [f"{row}" for row in range(2 * count)],
        Sensors(["Oz"]),
        TIMES_S,
        100.0,
        "µV",
        runs=np.repeat(np.arange(2, dtype=np.int16), count)[:, None],
        onset_s=None if onset_s is None else np.tile(onset_s, 2)[:, None],
    )


@pytest.mark.parametrize(
    ("spacing_s", "overlap_s"),
    [(0.9, "0.10 s"), (0.2, "0.80 s"), (1.0, None), (None, None)],
)
def test_windows_longer_than_the_time_between_onsets_overlap(spacing_s, overlap_s):
    """Windows that overlap are reported with their spacing and overlap."""
    onset_s = None if spacing_s is None else 5 + spacing_s * np.arange(8)

    overlap = Overlap.measure([trials(onset_s)], TIMES_S)

    assert (overlap is None) == (overlap_s is None)
    if overlap is not None:
        assert f"{spacing_s:.2f} s" in overlap.description
        assert overlap.description.endswith(overlap_s)


def test_splits_that_share_runs_are_one_sequence():
    """Alternating training and test pictures come twice as often as either of them."""
    train, test = trials(2.0 * np.arange(8)), trials(1 + 2.0 * np.arange(8))

    assert Overlap.measure([train], TIMES_S) is None
    assert Overlap.measure([train, test], TIMES_S) is None
    close_trials = trials(0.9 + 2.0 * np.arange(8))
    overlap = Overlap.measure([train, close_trials], TIMES_S)
    assert "0.90 s" in overlap.description
    assert overlap.description.endswith("0.10 s")
