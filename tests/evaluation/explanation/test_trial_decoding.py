"""Decoding of held-out trials: chance, and permutations of labels."""

import numpy as np

from brainhive_cli.evaluation.explanation.trial_decoding import (
    compute_majority_accuracy,
    permute_stimuli,
)
from brainhive_cli.measurement.interleaving import Interleaving


def test_chance_is_the_share_of_the_most_frequent_category():
    """With categories of 80 and 20 %, decoding of noise has an accuracy of .80."""
    equal, unequal = np.repeat([0, 1], 50), np.repeat([0, 3], [80, 20])
    assert (
        compute_majority_accuracy([equal]) == 0.5
        and compute_majority_accuracy([unequal]) == 0.8
    )
    assert compute_majority_accuracy([equal, unequal]) == 0.65


def test_blocks_exchange_labels_as_a_whole_within_their_part():
    shown, blocks = np.array([0, 0, 1, 1, 2, 2, 3, 4]), [0, 0, 1, 1, 2, 2, 3, 4]
    permuted = permute_stimuli(shown, Interleaving([*"aaaabbbb"], blocks), 50, 0)
    assert permuted.shape == (50, 8) and (permuted[:, :6:2] == permuted[:, 1:6:2]).all()
    assert {*permuted[:, :4].flat} == {0, 1} and {*permuted[:, 4:].flat} == {2, 3, 4}
