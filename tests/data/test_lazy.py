"""Trials grouped by stimulus."""

import numpy as np

from brainhive_cli.data.trials import group_trials


def test_trials_of_a_stimulus_keep_their_order_and_missing_ones_are_marked() -> None:
    stimuli, trials, counts = group_trials(np.array([7, 2, 7, 9, 7, 2]))
    assert stimuli.tolist() == [2, 7, 9] and counts.tolist() == [2, 3, 1]
    assert trials.tolist() == [[1, 5, -1], [0, 2, 4], [3, -1, -1]]


def test_no_trials_are_no_stimuli() -> None:
    assert [len(each) for each in group_trials(np.array([], np.int64))] == [0, 0, 0]
