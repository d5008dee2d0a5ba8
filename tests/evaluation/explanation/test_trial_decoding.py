"""Decoding of held-out trials: chance, and permutations of labels."""

import numpy as np

from brainhive_cli.evaluation.explanation.trial_decoding import (
    compute_majority_accuracy,
    permute_stimuli,
)
from brainhive_cli.measurement.design import LabelDesign


def test_chance_is_the_share_of_the_most_frequent_category():
    """With categories of 80 and 20 %, decoding of noise has an accuracy of .80."""
    equal, unequal = np.repeat([0, 1], 50), np.repeat([0, 3], [80, 20])
    assert compute_majority_accuracy([equal]) == 0.5
    assert compute_majority_accuracy([unequal]) == 0.8
    assert compute_majority_accuracy([equal, unequal]) == 0.65


def test_series_exchange_labels_as_a_whole_in_their_run():
    """Units 0 and 1 are trials of another subject, which keep their labels."""
    array = np.array([0, 0, 1, 1, 2, 2, 3, 4])
    units = np.array([2, 2, 3, 3, 4, 4, 5, 6])
    finished_array = np.array([0, 0, 0, 0, 1, 1, 1])
    design = LabelDesign.free(np.array([7, 8, 0, 1, 2, 3, 4]), finished_array)

    permuted = permute_stimuli(array, units, design, draws=50, seed=0)

    # two series and three units have 2! · 3! orders with the true order
    assert permuted.shape == (11, 8)
    assert (permuted[:, :6:2] == permuted[:, 1:6:2]).all()
    assert set(permuted[:, :4].flat) == {0, 1}
    assert set(permuted[:, 4:].flat) == {
        2,
        3,
        4,
    }
    assert permute_stimuli(array, units, design, draws=5, seed=0).shape == (5, 8)
    assert permute_stimuli(array, units, design, draws=0, seed=0).shape == (0, 8)
