"""Profiles look up right and permuted labels; p values hold when there is nothing to find."""

import numpy as np
import pytest

from brainhive_cli.explanation.profiles import Labels, PermutationTest, Profile


def test_values_are_those_of_the_own_labels_and_the_control_those_of_permuted_ones():
    matrix, labels = np.arange(12.0).reshape(3, 4), Labels.of(np.array([2, 0, 3]), 50, 0)
    found = Profile.of("margin", "sensor", ["Oz"], [matrix], labels)
    assert found.values.tolist() == [[2, 4, 11]]
    expected = [[matrix[range(3), each].mean() for each in labels.permuted]]
    assert pytest.approx(np.array(expected)) == found.null.T
    assert {tuple(sorted(each)) for each in labels.permuted} == {(0, 2, 3)}


def test_ranks_become_shares_with_their_chance():
    ranks = np.array([[1, 2, 3], [3, 1, 2], [1, 3, 2]])
    found = Profile.of_ranks("ms", [100.0], [ranks], Labels.of(np.arange(3), 10, 0))
    assert found["top1"].values.tolist() == [[1, 1, 0]] and found["top1"].chance == pytest.approx(1 / 3)
    assert found["two_way"].values.tolist() == [[1, 1, 0.5]] and found["two_way"].chance == 0.5


def test_profiles_come_back_from_plain_arrays():
    labels = Labels.of(np.arange(3), 4, 0)
    made = Profile.of("r", "sensor", ["Oz", "Pz"], [np.eye(3), np.ones((3, 3))], labels, pool=3)
    back = Profile.from_arrays(made.with_shuffled(made.values).as_arrays())
    assert (back.metric, back.at, back.pool) == ("r", ("Oz", "Pz"), 3)
    assert (back.values == made.values).all() and (back.null == made.null).all()
    assert (back.shuffled == made.values).all()


def test_the_largest_of_many_places_is_above_its_control_in_one_of_twenty_at_most():
    """Of 400 simulations of noise the standard error of a rate of .05 is .011."""
    random = np.random.default_rng(0)
    false = [
        PermutationTest.of(x[0], x[1:]).corrected.min() < 0.05 for x in random.normal(size=(400, 101, 20))
    ]
    alone = [
        (PermutationTest.of(x[0], x[1:]).p_values < 0.05).mean() for x in random.normal(size=(400, 101, 20))
    ]
    assert np.mean(false) < 0.05 + 3 * 0.011 and abs(np.mean(alone) - 0.04) < 0.011
    assert PermutationTest.of(np.array([9.0, 0]), random.normal(size=(100, 2))).corrected[0] == pytest.approx(
        1 / 101
    )
