"""Paired comparison of two runs: each statistic against a worked example, its
definition or a simulation.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from brainhive_cli.measurement.comparison import (
    benjamini_hochberg,
    compare_hits,
    compare_values,
    crossed_t_test,
)
from brainhive_cli.measurement.units import Items, fold_null_inflation


def draw_differences(random, subjects, pictures, varying, effect=0.0):
    """Draw differences [S, N]: noise of sd .7, subjects by .1 and pictures by .35 where
    they vary.

    The effect counts standard errors of a mean of such people and pictures; subjects of
    few are equal.
    """
    of_subjects = 0.1 * ("subjects" in varying) * random.normal(size=(subjects, 1))
    if subjects < 5:
        of_subjects -= of_subjects.mean()
    of_pictures = 0.35 * ("pictures" in varying) * random.normal(size=(1, pictures))
    error = 0.01 / subjects * (
        "subjects" in varying and subjects > 4
    ) + 0.1225 / pictures * ("pictures" in varying)
    error += 0.49 / subjects / pictures
    return (
        of_subjects
        + of_pictures
        + 0.7 * random.normal(size=(subjects, pictures))
        + effect * error**0.5
    )


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("subjects", "varying"),
    [(3, "pictures"), (5, "subjects"), (10, "subjects and pictures")],
)
def test_a_true_null_is_rejected_as_seldom_as_it_says(subjects, varying):
    """Bound .05 and two Monte Carlo errors of 200 simulations."""
    random, rejected = np.random.default_rng(subjects), 0
    for _ in range(200):
        values = draw_differences(random, subjects, 60, varying)
        rejected += compare_values(list(values), list(0 * values)).p_value <= 0.05

    assert rejected / 200 <= 0.081


def test_three_subjects_are_compared_by_a_test_over_items():
    """A test over people, and its interval on top, found .18 where a t test over items
    finds .6.
    """
    random, n_found = np.random.default_rng(0), np.zeros(2)
    for _ in range(200):
        values = draw_differences(random, 3, 200, "pictures", effect=2.2)
        n_found += [
            compare_values(list(values), list(0 * values)).p_value <= 0.05,
            ttest_1samp(values.mean(0), 0).pvalue < 0.05,
        ]

    assert n_found[1] > 80
    assert n_found[0] >= 0.9 * n_found[1]


@pytest.mark.parametrize("subjects", [4, 5])
def test_test_and_interval_never_disagree(subjects):
    random = np.random.default_rng(subjects)
    for effect in np.linspace(0, 4, 50):
        values = draw_differences(random, subjects, 20, "pictures", effect)
        difference = compare_values(list(values), list(0 * values))
        assert (difference.p_value <= 0.05) == (
            not difference.low <= 0 <= difference.high
        )


def test_from_five_subjects_the_test_equals_a_paired_t_test():
    """Subjects whose items do not differ leave the textbook's t over subjects."""
    differences = [np.full(20, mean) for mean in (0.1, 0.4, 0.2, 0.5, -0.1, 0.3)]

    p, low, high = crossed_t_test(differences, Items.from_sizes([20] * 6))

    expected = ttest_1samp([values[0] for values in differences], 0)
    assert p == pytest.approx(expected.pvalue)
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval()))


def test_false_discovery_control_repeats_the_papers_example():
    """The 15 p values of Benjamini and Hochberg 1995, section 3: four are rejected at
    0.05.
    """
    p_values = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
    p_values += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]

    adjusted = benjamini_hochberg(list(p_values[::-1]) + [None])

    assert sum(p <= 0.05 for p in adjusted if p is not None) == 4
    assert adjusted[-1] is None
    assert adjusted[-2] == pytest.approx(0.0001 * 15)
    assert adjusted[-5] == pytest.approx(0.0095 * 15 / 4)


def test_a_comparison_is_of_the_mean_difference_of_hits():
    first_ranks = [np.array([[1, 1, 1, 2] * 2]), np.array([[1, 5, 1, 1] * 2])]
    second = [np.array([[1, 3, 4, 2] * 2]), np.array([[7, 1, 1, 2] * 2])]

    difference = compare_hits(first_ranks, second)

    assert (difference.n, difference.subjects) == (16, 2)
    assert difference.difference == pytest.approx((0.5 + 0.25) / 2)
    assert difference.low <= difference.difference <= difference.high
    assert difference.cohens_dz == pytest.approx(0.375 / np.std([0.5, 0.25], ddof=1))


@pytest.mark.parametrize("seeds", [(3, 1), (1, 1)])
def test_unequal_numbers_of_seeds_do_not_make_equal_runs_differ(seeds):
    """Equal hit rates of .8; McNemar's test on majorities rejected 78 to 100 % of such
    nulls.
    """
    random, rejected = np.random.default_rng(0), 0
    for _ in range(100):
        first_ranks, second = (
            2 - (random.random((count, 200)) < 0.8).astype(int) for count in seeds
        )
        compared = compare_hits([first_ranks], [second])
        rejected += compared.p_value <= 0.05

    assert rejected / 100 < 0.094


@pytest.mark.nightly
def test_comparisons_do_not_treat_items_of_a_unit_as_independent():
    """Ten pictures of 40 concepts; methods suit concepts by chance."""
    random, rejected = np.random.default_rng(0), np.zeros(2)
    items = Items(
        [list(range(400))], [np.repeat(np.arange(40), 10).tolist()], "concepts"
    )
    for _ in range(100):
        easy = np.repeat(random.normal(0, 1.0, (2, 40)), 10, axis=1)
        ranks = 2 - (random.random((2, 400)) < 1 / (1 + np.exp(-easy))).astype(int)
        for row, grouping in enumerate((items, None)):
            rejected[row] += (
                compare_hits([ranks[0]], [ranks[1]], items=grouping).p_value <= 0.05
            )

    assert rejected[0] / 100 < 0.094
    assert rejected[1] / 100 > 0.2


def fold_scores(random, categories):
    """Score noise in six folds by the mean signals of categories: [N, K], and labels,
    10 of each a fold.
    """
    labels, signals = (
        np.tile(np.arange(categories), 60),
        random.normal(size=(60 * categories, 40)),
    )
    fold = np.arange(len(labels)) // (10 * categories)
    kernel = signals @ signals.T * (fold[:, None] != fold)
    return kernel @ np.eye(categories)[labels], labels


def test_ranks_over_folds_vary_as_the_inflation_factor_says():
    """Issue 60, row 19: folds counted as independent. Variance of the mean rank of 600
    simulations: a standard error of 6 %.
    """
    random, means, categories = np.random.default_rng(0), [], 8
    for _ in range(600):
        scores, labels = fold_scores(random, categories)
        ranks = 1 + (scores > scores[np.arange(len(labels)), labels][:, None]).sum(1)
        means.append(ranks.mean())

    independent = (categories**2 - 1) / 12 / len(labels)
    assert np.var(means) / independent == pytest.approx(
        fold_null_inflation([ranks], categories), rel=0.15
    )


def test_equal_learners_rarely_differ_significantly():
    """Issue 60, row 19. Two learners of other features; without the inflation .11 of
    a subject differ.
    """
    random, rejected, subjects = np.random.default_rng(0), 0, 1
    for _ in range(150):
        hits = np.empty((2, subjects, 120))
        for learner, subject in np.ndindex(2, subjects):
            scores, labels = fold_scores(random, 2)
            hits[learner, subject] = scores.argmax(1) == labels
        items = replace(Items.from_sizes([120] * subjects), inflation=1.4)
        rejected += compare_values(*hits, items=items).p_value <= 0.05

    assert rejected / 150 < 0.086


@pytest.mark.parametrize(("subjects", "seeds"), [(1, 1), (6, 1)])
def test_intervals_near_a_limit_hold_and_agree_with_their_test(subjects, seeds):
    """Issue 60, row 15. Hit rates of .95 and .9 of 10 items: before, .61 held of one
    subject, and a third had no width.
    """
    random, n_covered = np.random.default_rng(0), 0
    for _ in range(100):
        hits = [random.random((subjects, seeds, 10)) < rate for rate in (0.95, 0.9)]
        difference = compare_hits(
            *(list(2 - run_hits.astype(int)) for run_hits in hits)
        )
        n_covered += difference.low <= 0.05 <= difference.high
        assert difference.low < difference.high
        assert (difference.p_value <= 0.05) == (
            not difference.low <= 0 <= difference.high
        )

    assert n_covered / 100 >= 0.92


def newcombe(n_both, n_first, second, n_none):
    """Give Newcombe's interval of paired shares by counts of hits (1998, method 10)."""
    total = n_both + n_first + second + n_none
    counts = n_both + n_first, n_both + second
    wilson = [binomtest(hits, total).proportion_ci(method="wilson") for hits in counts]
    (margin_below, margin_above), (other_below, other_above) = (
        (hits / total - ends.low, ends.high - hits / total)
        for hits, ends in zip(counts, wilson, strict=True)
    )
    margins = np.prod(list(counts) + [total - hits for hits in counts], dtype=float)
    product = n_both * n_none - n_first * second
    # a correction for continuity where it is above 0
    product = max(product - total / 2, 0) if product > 0 else product
    phi = product / margins**0.5 if margins else 0.0
    low = margin_below**2 - 2 * phi * margin_below * other_above + other_above**2
    high = other_below**2 - 2 * phi * other_below * margin_above + margin_above**2
    difference = (n_first - second) / total
    return difference - low**0.5, difference + high**0.5


@pytest.mark.parametrize(
    "counts",
    [(36, 12, 4, 8), (30, 20, 5, 5), (56, 0, 0, 4), (54, 0, 0, 0), (50, 3, 1, 0)],
)
def test_an_interval_of_hits_contains_newcombes(counts):
    hits = [np.repeat(is_hit, counts) for is_hit in ([1, 1, 0, 0], [1, 0, 1, 0])]

    difference = compare_hits([2 - hits[0]], [2 - hits[1]])

    low, high = newcombe(*counts)
    assert difference.low <= low + 0.0015
    assert difference.high >= high - 0.0015
    if counts[0] >= 50:  # nearly all are hits, so nothing else widens it
        assert (difference.low, difference.high) == pytest.approx(
            (low, high), abs=0.001
        )
