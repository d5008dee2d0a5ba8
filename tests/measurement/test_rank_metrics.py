"""The sum of ranks against that of guesses: the exact test by enumeration, and by simulation."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import norm

from brainhive_cli.measurement import ranks
from brainhive_cli.measurement.ranks import rank_sum
from brainhive_cli.measurement.units import Alike, Items


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
    monkeypatch.setattr(ranks, "LONGEST", 10)

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

    matched = rank_sum([first, second], 5, Items.independent([["a", "b"], ["b", "a"]]))

    assert matched.n == 2 and matched.better == rank_sum([first], 5).better
    assert rank_sum([first, second[:1]], 5).n == 3  # without ids, other numbers are other items


@pytest.mark.parametrize("alike_by", ["neighbours", "concept"])
def test_items_that_are_alike_are_seldom_called_better_or_worse_than_guesses(alike_by):
    """Wrongly labelled clips whose neighbours are alike, or pictures of concepts; as guesses: 0.3 to 0.5."""
    count, random, called = 800, np.random.default_rng(1), np.zeros(2)
    concept_of = dict(enumerate(np.repeat(np.arange(80), 10).tolist()))
    items = Alike(alike_by, concept_of, "clip").items([list(range(count))])
    for _ in range(200):
        if alike_by == "concept":
            common = np.repeat(random.normal(size=80), 10)
        else:
            common = random.normal(size=count)
            for place in range(1, count):
                common[place] = 0.8 * common[place - 1] + 0.6 * common[place]
        ranks = np.ceil(count * norm.cdf(np.sqrt(0.8) * common + np.sqrt(0.2) * random.normal(size=count)))
        for place, grouping in enumerate((items, None)):
            called[place] += rank_sum([ranks], count, grouping).verdict != "at chance"

    assert called[0] / 200 < 0.1 and called[1] / 200 > 0.25


def test_pictures_of_concepts_above_chance_are_called_so():
    items = Alike("concept", dict(enumerate(np.repeat(np.arange(40), 5).tolist()))).items([list(range(200))])
    ranks = np.random.default_rng(0).integers(1, 100, 200)

    found = rank_sum([ranks], 200, items)

    assert found.verdict == "above chance" and found.test == "t test of the mean rank over 40 concepts"
    assert found.n == 200
