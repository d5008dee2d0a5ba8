"""Ranks beside those of guesses: the exact test against all guesses there are, and by simulation."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import norm

from brainhive_cli.metrics import guessing
from brainhive_cli.metrics.guessing import rank_sum, ranks_of_all
from brainhive_cli.metrics.retrieval import ranks


@pytest.mark.parametrize("given", [[1, 1, 2], [3, 2, 4], [5, 5, 4]])
def test_the_test_counts_all_guesses(given):
    sums = np.array([sum(guess) for guess in product(range(1, 6), repeat=3)])

    found = rank_sum([np.array(given)], 5)

    assert found.better == pytest.approx((sums <= sum(given)).mean())
    assert found.worse == pytest.approx((sums >= sum(given)).mean())
    assert (found.n, found.pool) == (3, 5)


def test_one_item_is_above_chance_only_where_a_guess_would_seldom_be_as_good():
    """First among 5 is a guess in five: an interval of one item, which has no width, would exclude chance."""
    assert rank_sum([np.array([1])], 5).verdict == "at chance"
    assert rank_sum([np.array([1])], 200).verdict == "above chance"  # one guess in 200
    assert rank_sum([np.array([200])], 200).verdict == "below chance"


def test_no_probability_is_smaller_than_the_rounding_of_the_convolution():
    found = rank_sum([np.ones(100)], 100)  # 1e-200, of which the convolution keeps nothing

    assert (found.better, found.verdict) == (1e-12, "above chance")
    assert found.worse == 1


def test_more_sums_than_can_be_convolved_are_taken_as_normal(monkeypatch):
    given = np.random.default_rng(0).integers(1, 101, 60)
    exact = rank_sum([given], 100)
    monkeypatch.setattr(guessing, "LONGEST", 10)

    found = rank_sum([given], 100)

    assert "exact" in exact.test and "normal" in found.test
    assert (found.better, found.worse) == pytest.approx((exact.better, exact.worse), abs=1e-3)
    z = (given.sum() - 60 * 50.5) / np.sqrt(60 * (100**2 - 1) / 12)
    assert exact.better == pytest.approx(norm.cdf(z), abs=1e-3)


def wrongly_labelled(random: np.random.Generator, subjects: int, count: int = 60) -> np.ndarray:
    """Rank pictures by good decoders of several subjects, when all pictures have each other's labels."""
    pictures, labels = random.normal(size=(count, 16)), random.permutation(count)
    found = []
    for _ in range(subjects):
        signals = pictures + 0.5 * random.normal(size=pictures.shape)
        cosines = (signals @ pictures.T) / np.linalg.norm(pictures, axis=1)
        found.append((cosines >= cosines[np.arange(count), labels][:, None]).sum(1))
    return np.array(found)


def test_wrong_labels_are_seldom_called_right_however_many_subjects_share_them():
    """Five in a hundred are; counted as guesses of their own, subjects' ranks would have it in half."""
    random = np.random.default_rng(0)
    drawn = [wrongly_labelled(random, 8) for _ in range(200)]

    shared = [rank_sum(list(each), 60).verdict != "at chance" for each in drawn]
    apart = [rank_sum([each.ravel()], 60).verdict != "at chance" for each in drawn]

    assert np.mean(shared) <= 0.07 and np.mean(apart) > 0.3


def test_items_are_matched_by_their_ids():
    """Two subjects who saw the same in another order: their ranks are averaged by item."""
    first, second = np.array([1, 5]), np.array([5, 1])

    matched = rank_sum([first, second], 5, [["a", "b"], ["b", "a"]])

    assert matched.n == 2 and matched.better == rank_sum([first], 5).better
    assert rank_sum([first, second[:1]], 5).n == 3  # without ids, other numbers are other items


@pytest.mark.parametrize("random", [0, 50])
def test_all_pictures_are_ranked_as_each_is_alone(random, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    signals, gallery = torch.randn(20, 8, generator=draw), torch.randn(30, 8, generator=draw)
    gallery[3] = gallery[4]  # they tie
    more = [torch.randn(random, 8, generator=draw)] if random else []
    monkeypatch.setattr(guessing, "CANDIDATES", 7)

    found = ranks_of_all(signals, gallery, 12, more)

    for place in range(12):
        alone = ranks(signals, gallery, torch.full((20,), place), more)
        assert np.array_equal(found[:, place], alone.numpy())


def test_all_pictures_tie_for_a_constant_token():
    assert (ranks_of_all(torch.ones(3, 4), torch.ones(9, 4), 5) == 9).all()
