"""Sessions that are held out to select the epoch."""

from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.training.alignment.training.training_data import hold_out_recordings
from tests.worlds.alignment_cells import PICTURES, make_cell_data


def test_trials_of_a_session_are_taken_out_of_training():
    first_trial = make_cell_data(
        np.random.default_rng(0).normal(size=(PICTURES, 8)).astype(np.float32)
    ).trials[0]
    trials = replace(first_trial.choose(first_trial.repetition < 2), subject=4)
    sessions = trials.repetition.astype(np.int8)
    sessions[:2] = 0  # a picture that a single session shows
    trials = replace(trials, sessions=sessions)

    learned, tested_trials = hold_out_recordings([trials, first_trial], {4: [2]})

    assert learned[1] is first_trial
    assert len(tested_trials) == 1
    assert (tested_trials[0].sessions == 1).all()
    assert (learned[0].sessions <= 0).all()
    assert len(tested_trials[0].signal) == (trials.counts == 2).sum() - 1
    assert learned[0].counts.tolist() == [2] + [1] * (len(trials.counts) - 1)
    with pytest.raises(RecipeError, match=r"sessions \[3\] of subject 4 hold none"):
        hold_out_recordings([trials], {4: [3]})
