"""Paired comparison of two runs: each statistic against a worked example, its definition or a simulation."""

from collections.abc import Callable
from itertools import product
from math import comb

import numpy as np
import pytest
from scipy.stats import f, f_oneway

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.measurement.comparison import (
    benjamini_hochberg,
    compare,
    compare_values,
    mcnemar,
    min_f,
    over_subjects,
    sign_flip,
)
from brainhive_cli.measurement.units import Items

DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
"""Darwin's plants: heights of crossed minus self-fertilised, in eighths of an inch (Fisher 1935, § 17)."""


def signed_rank_by_enumeration(differences: list[float]) -> float:
    """Two-sided p of Wilcoxon's test without ties: all 2^n signs, counted."""
    sizes = np.argsort(np.argsort(np.abs(differences))) + 1
    observed = abs(float(np.sign(differences) @ sizes))
    sums = [abs(float(np.dot(signs, sizes))) for signs in product((-1, 1), repeat=len(sizes))]
    return float(np.mean([total >= observed for total in sums]))


def two_methods(count: int, by_item: float, gain: float = 0.0) -> list[np.ndarray]:
    """Draw ranks [count, subjects, items] of two methods that differ by subject and item, in logits."""
    random = np.random.default_rng(5)
    both = random.normal(0, 0.3, (count, 10, 1)) + random.normal(0, 1.5, (count, 1, 200))
    ranks = []
    for better in (gain, 0.0):
        own = random.normal(0, 0.2, (count, 10, 1)) + random.normal(0, by_item, (count, 1, 200))
        hits = random.random((count, 10, 200)) < 1 / (1 + np.exp(-better - both - own))
        ranks.append(2 - hits.astype(int))
    return ranks


@pytest.mark.parametrize("by_item", [0.0, 1.0])
def test_the_headline_rejects_a_true_null_as_seldom_as_it_says(by_item):
    """Of 300 simulations; McNemar's test pooled over subjects rejects a sixth and more of them."""
    hits = [ranks == 1 for ranks in two_methods(300, by_item)]

    def rejected(p_of: Callable[[np.ndarray, np.ndarray], float | None]) -> float:
        return float(np.mean([p_of(one, other) < 0.05 for one, other in zip(*hits, strict=True)]))

    assert rejected(lambda one, other: min_f(list(one * 1.0 - other))) <= 0.07
    assert rejected(lambda one, other: mcnemar((one & ~other).sum(), (other & ~one).sum())) > 0.12


def test_the_headline_over_subjects_is_min_f():
    first, second = (ranks[0] for ranks in two_methods(1, 0.3))

    found = compare(list(first), list(second))

    assert found.p_value == min_f(list((first == 1) * 1.0 - (second == 1)))
    assert found.test == "minF′ over subjects and items"


def test_a_method_that_is_better_for_people_and_pictures_is_found():
    pairs = zip(*two_methods(10, 0.3, gain=1.0), strict=True)
    assert all(compare(list(one), list(other)).p_value < 0.05 for one, other in pairs)


def test_min_f_is_clarks_formula_of_both_analyses_of_variance():
    """F over subjects and over items are those of a one-way test of the differences against their negatives.

    With two levels of a within factor, F₁ is the squared paired t: here from scipy, by another road.
    """
    random = np.random.default_rng(3)
    differences = random.normal(0.2, 1, (6, 1)) + random.normal(0, 1, (1, 30)) + random.normal(0, 1, (6, 30))

    def squared_t(values: np.ndarray) -> float:
        return float(values.mean() ** 2 / (values.var(ddof=1) / len(values)))

    one, two = squared_t(differences.mean(1)), squared_t(differences.mean(0))
    ratio = one * two / (one + two)
    freedom = (one + two) ** 2 / (one**2 / 29 + two**2 / 5)
    assert min_f(list(differences)) == pytest.approx(f.sf(ratio, 1, freedom))
    # of two independent groups, f_oneway is the squared t: that squared_t is an F
    halves = differences.mean(1) / 2
    pooled = f_oneway(halves, -halves).statistic
    assert pooled == pytest.approx(2 * halves.mean() ** 2 / halves.var(ddof=1) * len(halves))


@pytest.mark.parametrize(("first", "second"), [(10, 2), (2, 10), (5, 5), (0, 6), (0, 0)])
def test_mcnemar_is_the_binomial_sum(first, second):
    n = first + second
    tail = sum(comb(n, k) for k in range(min(first, second) + 1)) / 2**n

    assert mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail))


def test_the_t_test_is_fishers_own_example():
    """Fisher gives t = 2.148 with 14 degrees of freedom; 5 % lies at 2.145."""
    *_, p, _, effect = over_subjects(np.array(DARWIN, float))

    assert p == pytest.approx(0.0497, abs=5e-5)
    assert effect * np.sqrt(15) == pytest.approx(2.148, abs=5e-4)  # t is d_z times the root of n


def test_the_sign_flip_test_is_fishers_own_example():
    """Fisher counts 1,726 of 2¹⁵ sums as large as the observed 314 (1935, § 21)."""
    assert sign_flip(np.array(DARWIN, float)) == pytest.approx(1726 / 2**15)


def test_the_sign_flips_of_many_subjects_are_drawn():
    differences = np.random.default_rng(0).normal(0.4, 1, 24)

    p = sign_flip(differences)

    assert p == pytest.approx(over_subjects(differences)[2], abs=0.01)  # of so many, t is about the same
    assert p == sign_flip(differences)


@pytest.mark.parametrize("count", [5, 8, 10])
def test_the_signed_rank_test_counts_all_signs(count):
    differences = np.random.default_rng(count).normal(0.5, 1, count)

    assert over_subjects(differences)[1] == pytest.approx(signed_rank_by_enumeration(list(differences)))


def test_the_least_p_of_few_subjects_is_what_the_clearest_difference_gets():
    flipped, signed_rank, _, least, _ = over_subjects(np.array([0.3, 0.4, 0.5]))

    assert flipped == signed_rank == least == 0.25


def test_false_discoveries_are_controlled_as_in_the_papers_example():
    """The 15 p values of Benjamini and Hochberg 1995, section 3: four are rejected at 0.05."""
    given = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
    given += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]

    adjusted = benjamini_hochberg([*given[::-1], None])

    assert sum(p <= 0.05 for p in adjusted if p is not None) == 4
    assert adjusted[-1] is None and adjusted[-2] == pytest.approx(0.0001 * 15)
    assert adjusted[-5] == pytest.approx(0.0095 * 15 / 4)


def test_a_comparison_counts_what_only_one_run_found():
    first = [np.array([[1, 1, 1, 2]]), np.array([[1, 5, 1, 1]])]
    second = [np.array([[1, 3, 4, 2]]), np.array([[7, 1, 1, 2]])]

    found = compare(first, second)

    assert (found.only_first, found.only_second, found.n, found.subjects) == (4, 1, 8, 2)
    assert found.difference == pytest.approx((0.5 + 0.25) / 2)
    assert found.low <= found.difference <= found.high
    assert found.cohens_dz == pytest.approx(0.375 / np.std([0.5, 0.25], ddof=1))


def test_one_subject_is_compared_by_mcnemars_test():
    found = compare([np.array([1, 1, 1, 1, 1, 1, 2])], [np.array([2, 2, 2, 2, 2, 1, 1])])

    assert (found.only_first, found.only_second) == (5, 1)
    assert found.p_value == mcnemar(5, 1) and found.test == "McNemar's over items"


def test_several_seeds_are_compared_by_their_shares_of_hits_over_items():
    """A majority of three seeds is right more often than one seed: as hits, equal runs would differ."""
    first, second = np.array([[1, 1], [1, 2], [3, 2]]), np.array([[2, 2]])

    compared = compare([first], [second])

    assert (compared.only_first, compared.only_second, compared.test) == (None, None, "t over items")
    assert compared.difference == pytest.approx(0.5)


@pytest.mark.parametrize("seeds", [(1, 3), (3, 1), (5, 2), (1, 1)])
def test_unequal_numbers_of_seeds_do_not_make_equal_runs_differ(seeds):
    """Equal hit rates of .8; McNemar's test on majorities rejected 78 to 100 % of such nulls."""
    random, rejected = np.random.default_rng(0), 0
    for _ in range(200):
        first, second = (2 - (random.random((count, 200)) < 0.8).astype(int) for count in seeds)
        rejected += compare([first], [second]).p_value < 0.05

    assert rejected / 200 < 0.09


def test_items_of_one_unit_are_not_compared_as_if_they_were_independent():
    """Ten pictures of 40 concepts; methods suit concepts by chance."""
    random, rejected = np.random.default_rng(0), np.zeros(2)
    items = Items([list(range(400))], [np.repeat(np.arange(40), 10).tolist()], "concepts")
    for _ in range(200):
        easy = np.repeat(random.normal(0, 1.0, (2, 40)), 10, axis=1)
        ranks = 2 - (random.random((2, 400)) < 1 / (1 + np.exp(-easy))).astype(int)
        for place, grouping in enumerate((items, None)):
            compared = compare([ranks[0]], [ranks[1]], items=grouping)
            rejected[place] += compared.p_value < 0.05

    assert rejected[0] / 200 < 0.09 and rejected[1] / 200 > 0.2
    assert compare([ranks[0]], [ranks[1]], items=items).test == "t over concepts"


def test_values_of_one_subject_are_compared_by_a_t_test_over_items():
    first, second = np.array(DARWIN, float), np.zeros(15)

    found = compare_values([first], [second])

    assert found.p_value == pytest.approx(0.0497, abs=5e-5)
    assert (found.test, found.only_first) == ("t over items", None)


def test_values_of_several_subjects_are_compared_over_subjects_and_items():
    values = np.random.default_rng(0).normal(0.5, 1, (2, 4, 20))

    found = compare_values(list(values[0] + 1), list(values[1]))

    assert found.p_value == min_f(list(values[0] + 1 - values[1]))
    assert found.low < found.difference < found.high


def test_a_run_does_not_differ_from_itself():
    ranks = [np.array([[1, 2, 1]]), np.array([[1, 1, 9]])]

    found = compare(ranks, ranks)

    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert (found.p_value, found.sign_flip_p, found.wilcoxon_p, found.t_p, found.cohens_dz) == (1, 1, 1, 1, 0)
    assert compare(ranks[:1], ranks[:1]).p_value == compare_values(ranks[:1], ranks[:1]).p_value == 1


def test_what_one_subject_cannot_tell_is_none():
    found = compare([np.array([[1, 2]])], [np.array([[2, 2]])])

    told = (found.sign_flip_p, found.wilcoxon_p, found.t_p, found.least_p, found.cohens_dz)
    assert told == (None,) * 5


def test_one_item_of_several_subjects_tells_nothing_of_items():
    found = compare([np.array([1])] * 3, [np.array([2])] * 3)

    assert (found.p_value, found.low, found.difference) == (None, None, 1)


def test_subjects_and_items_that_all_differ_by_the_same_have_the_least_p_of_signs():
    found = compare([np.ones(8, int)] * 4, [np.full(8, 2)] * 4)

    assert found.p_value == found.sign_flip_p == found.least_p == 1 / 8
    assert compare_values([np.ones(8)], [np.zeros(8)]).p_value == 1 / 2**7


def test_subjects_that_all_differ_by_the_same_have_no_t():
    flipped, signed_rank, t, _, effect = over_subjects(np.full(6, 0.1))

    assert (t, effect) == (None, None)
    assert flipped == signed_rank == pytest.approx(2 / 2**6)


def test_items_that_cannot_be_paired_are_refused():
    with pytest.raises(BrainhiveError, match=r"\[2\] and \[3\] cannot be paired"):
        compare([np.ones((1, 2), int)], [np.ones((1, 3), int)])
