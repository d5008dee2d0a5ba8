"""Decoding of held-out trials: its chance."""

import numpy as np

from brainhive_cli.evaluation.explanation.trial_decoding import guess_most_frequent


def test_chance_is_that_of_always_naming_the_most_frequent_category():
    equal, unequal = np.repeat([0, 1], 50), np.repeat([0, 3], [80, 20])
    assert guess_most_frequent([equal]) == 0.5 and guess_most_frequent([unequal]) == 0.8
    assert guess_most_frequent([equal, unequal]) == 0.65
