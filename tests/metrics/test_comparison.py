"""Paired comparison of two runs: each statistic against a worked example or its definition."""

from itertools import product
from math import comb

import numpy as np
import pytest

from brainhive_cli.errors import BrainhiveError
from brainhive_cli.metrics.comparison import benjamini_hochberg, compare, mcnemar, over_subjects

DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
"""Darwin's plants: heights of crossed minus self-fertilised, in eighths of an inch (Fisher 1935, § 17)."""


def signed_rank_by_enumeration(differences: list[float]) -> float:
    """Two-sided p of Wilcoxon's test without ties: all 2^n signs, counted."""
    sizes = np.argsort(np.argsort(np.abs(differences))) + 1
    observed = abs(float(np.sign(differences) @ sizes))
    sums = [abs(float(np.dot(signs, sizes))) for signs in product((-1, 1), repeat=len(sizes))]
    return float(np.mean([total >= observed for total in sums]))


@pytest.mark.parametrize(("first", "second"), [(10, 2), (2, 10), (5, 5), (0, 6), (0, 0)])
def test_mcnemar_is_the_binomial_sum(first, second):
    n = first + second
    tail = sum(comb(n, k) for k in range(min(first, second) + 1)) / 2**n

    assert mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail))


def test_the_t_test_is_fishers_own_example():
    """Fisher gives t = 2.148 with 14 degrees of freedom; 5 % lies at 2.145."""
    _, p, effect = over_subjects(np.array(DARWIN, float))

    assert p == pytest.approx(0.0497, abs=5e-5)
    assert effect * np.sqrt(15) == pytest.approx(2.148, abs=5e-4)  # t is d_z times the root of n


@pytest.mark.parametrize("count", [5, 8, 10])
def test_the_signed_rank_test_counts_all_signs(count):
    differences = np.random.default_rng(count).normal(0.5, 1, count)

    assert over_subjects(differences)[0] == pytest.approx(signed_rank_by_enumeration(list(differences)))


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
    assert found.mcnemar_p == pytest.approx(0.375)
    assert found.low <= found.difference <= found.high
    assert found.cohens_dz == pytest.approx(0.375 / np.std([0.5, 0.25], ddof=1))


def test_of_several_seeds_the_majority_decides_what_was_found():
    first, second = np.array([[1, 1], [1, 2], [3, 2]]), np.array([[2, 2]])

    found = compare([first], [second])

    assert (found.only_first, found.only_second) == (1, 0)
    assert found.difference == pytest.approx(0.5)  # shares of seeds, not votes


def test_a_run_does_not_differ_from_itself():
    ranks = [np.array([[1, 2, 1]]), np.array([[1, 1, 9]])]

    found = compare(ranks, ranks)

    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert (found.mcnemar_p, found.wilcoxon_p, found.t_p, found.cohens_dz) == (1, 1, 1, 0)


def test_what_one_subject_cannot_tell_is_none():
    found = compare([np.array([[1, 2]])], [np.array([[2, 2]])])

    assert (found.wilcoxon_p, found.t_p, found.cohens_dz) == (None, None, None)


def test_subjects_that_all_differ_by_the_same_have_no_t():
    signed_rank, t, effect = over_subjects(np.full(6, 0.1))

    assert (t, effect) == (None, None)
    assert signed_rank == pytest.approx(2 / 2**6)


def test_items_that_cannot_be_paired_are_refused():
    with pytest.raises(BrainhiveError, match=r"\[2\] and \[3\] cannot be paired"):
        compare([np.ones((1, 2), int)], [np.ones((1, 3), int)])
