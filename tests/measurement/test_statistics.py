"""Intervals over items and subjects, each against its definition or by simulation, and
who carries them.
"""

import json
import sys

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binomtest, sem, t

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.results.measurements import (
    SELECTED_ON_TEST,
    SIMULATED,
    UNKNOWN_SELECTION,
)
from brainhive_cli.measurement import (
    Items,
    StimulusGrouping,
    crossed_t_test,
    fit_slope,
    measure,
)
from brainhive_cli.measurement.statistics import (
    estimate_interval,
    estimate_mean_variance,
)

ITEMS = 200


def interval(groups, items=None, **options):
    described = estimate_interval(groups, items, **options)
    return described.low, described.high


def simulated(subjects, item_sd, subject_sd, count, seed=0):
    """Draw hits [count, subjects, items] of half the items, whose subjects and items
    differ, in logits.
    """
    random = np.random.default_rng(seed)
    logit = random.normal(0, subject_sd, (count, subjects, 1)) + random.normal(
        0, item_sd, (count, 1, ITEMS)
    )
    return (random.random((count, subjects, ITEMS)) < 1 / (1 + np.exp(-logit))).astype(
        float
    )


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("subjects", "highest_coverage", "item_sd", "subject_sd"),
    [(5, 1.0, 1.5, 1.0), (6, 1.0, 2.5, 0.3), (10, 0.98, 1.5, 0.5)],
)
def test_intervals_cover_new_people_and_pictures_as_stated(
    subjects, highest_coverage, item_sd, subject_sd
):
    """Bounds of .92 and .98, and two Monte Carlo errors of 150 simulations; items alone
    reach .45 to .85.

    A subject sd of 1 logit is that of published values: percentiles of resampled
    subjects hold .86 to .92.
    """
    intervals = [
        interval(list(hits)) for hits in simulated(subjects, item_sd, subject_sd, 150)
    ]

    coverage = np.mean([low <= 0.5 <= high for low, high in intervals])
    assert 0.92 - 0.036 <= coverage <= highest_coverage + 0.023


def test_the_interval_of_these_subjects_is_over_items_alone():
    hits = simulated(4, 2.5, 0.5, 1)[0]

    interval_of_mean = estimate_interval(list(hits))

    # an item is one draw for all who saw it
    error = hits.mean(0).std(ddof=1) / np.sqrt(ITEMS)
    assert interval_of_mean.these_subjects == pytest.approx(
        (hits.mean() - 1.96 * error, hits.mean() + 1.96 * error), abs=0.01
    )
    assert interval_of_mean.people[0] < interval_of_mean.these_subjects[0]
    assert interval_of_mean.people[1] > interval_of_mean.these_subjects[1]


@pytest.mark.parametrize(
    ("subjects", "expected_population"), [(4, "these_subjects"), (5, "people")]
)
def test_intervals_are_about_people_in_general_from_five_people(
    subjects, expected_population
):
    random = np.random.default_rng(0)
    scores = [np.clip(random.normal(0.5, 0.1, 50), 0, 1) for _ in range(subjects)]

    estimate = estimate_interval(scores, limits=(0, 1), is_share=False)

    assert None not in (estimate.people, estimate.these_subjects)
    assert estimate.people != estimate.these_subjects
    assert (estimate.low, estimate.high) == getattr(estimate, expected_population)
    assert ("people in general" in estimate.method) == (expected_population == "people")


def test_few_subjects_get_a_t_interval_if_items_do_not_matter():
    """Items that differ by nothing leave the textbook's interval."""
    means = [0.1, 0.3, 0.4]

    low, high = estimate_interval(
        [np.full(ITEMS, mean) for mean in means], limits=(None, None)
    ).people

    reach = t.ppf(0.975, 2) * np.std(means, ddof=1) / np.sqrt(3)
    assert (low, high) == pytest.approx(
        (np.mean(means) - reach, np.mean(means) + reach)
    )


def test_the_shares_of_one_subject_have_wilsons_interval():
    for n_hits in (0, 40, 200):
        hits = np.repeat([1.0, 0.0], [n_hits, 200 - n_hits])
        assert interval([hits]) == pytest.approx(
            binomtest(n_hits, 200).proportion_ci(method="wilson")
        )


def test_intervals_and_p_values_do_not_import_scipy_stats(monkeypatch):
    """Its import takes .6 s, for two quantiles."""
    monkeypatch.setitem(sys.modules, "scipy.stats", None)  # its import now fails
    random = np.random.default_rng(0)
    nearest, score = random.normal(size=(2, 20))
    hits = [(random.random(40) < 0.4).astype(float) for _ in range(5)]

    assert estimate_interval(hits).people
    assert estimate_interval([nearest], limits=(None, None)).low
    assert crossed_t_test(hits, Items.from_sizes([40] * 5))[0] < 0.05
    assert fit_slope(nearest, score, protocol="", split="test", seeds=()).low


def test_items_of_one_unit_scatter_together():
    """A unit's items count as often as they are, and its error is that of their sum
    (CR2, by its formula).

    The degrees of freedom are those of Satterthwaite, from the covariance of the units'
    adjusted residuals.
    """
    random, sizes = np.random.default_rng(0), np.array([9, 3, 2, 2, 1, 1, 1])
    values, unit = random.normal(size=19), np.repeat(np.arange(7), sizes)

    low, high = interval([values], Items([list(range(19))], [unit.tolist()]))

    residual = np.eye(19) - 1 / 19
    is_of = (unit == np.arange(7)[:, None]).astype(float)
    # each row gives a unit's part
    adjusted = is_of @ residual / np.sqrt(1 - sizes / 19)[:, None] / 19
    variance = ((adjusted @ values) ** 2).sum()
    covariance = adjusted @ adjusted.T
    freedom = np.trace(covariance) ** 2 / (covariance**2).sum()
    reach = t.ppf(0.975, freedom) * np.sqrt(variance)
    assert (low, high) == pytest.approx((values.mean() - reach, values.mean() + reach))
    assert freedom < 4


def test_each_subject_with_units_of_its_own_costs_a_degree():
    """Issue 60, row 18: runs of a single subject each counted as runs that all share.

    As many as there are runs, less a mean for each of the subjects.
    """
    random, people, runs = np.random.default_rng(0), 4, 3
    ids = [[(person, trial) for trial in range(6 * runs)] for person in range(people)]
    units = [
        [(person, trial % runs) for person, trial in subject_ids] for subject_ids in ids
    ]
    values = [random.normal(size=6 * runs) for _ in range(people)]

    scatter = estimate_mean_variance(values, Items(ids, units, "runs"))

    means = np.array(
        [subject_values.reshape(6, runs).mean(0) for subject_values in values]
    )  # [4, 3]
    assert scatter.dof == pytest.approx(people * runs - people)
    assert scatter.variance == pytest.approx(means.var(1, ddof=1).sum() / runs / 16)


@pytest.mark.parametrize(
    ("count", "lowest_coverage", "strength"),
    [(6, 0.90, 1.0), (10, 0.93, 0.3), (20, 0.93, 0.0)],
)
def test_intervals_of_shares_cover_the_mean_of_few_items(
    count, lowest_coverage, strength
):
    """Two-way identification among the items themselves; two Monte Carlo errors of 400
    below the bound.

    A t interval on the logit scale holds .08 to .57 of them where nearly all are found.
    """
    random, shares = np.random.default_rng(count), []
    for _ in range(400):
        features = random.normal(size=(count, 20))
        similarity = (
            strength * features + random.normal(size=features.shape)
        ) @ features.T
        shares.append(
            (similarity < similarity.diagonal()[:, None]).sum(1) / (count - 1)
        )
    truth = np.mean(shares)
    is_covered = [
        low <= truth <= high
        for low, high in (
            interval([subject_shares], limits=(0, 1)) for subject_shares in shares
        )
    ]

    assert np.mean(is_covered) >= lowest_coverage - 0.03


def test_intervals_cover_new_concepts_of_unequal_size():
    """By the number of concepts less one, .76 to .88 hold."""
    random, is_covered, widths, sizes = (
        np.random.default_rng(0),
        [],
        [],
        [100] + [5] * 20,
    )
    concept = np.repeat(np.arange(len(sizes)), sizes)
    items = StimulusGrouping("concept", dict(enumerate(map(str, concept)))).make_items(
        [list(range(len(concept)))]
    )
    for _ in range(300):
        logits = 1.5 * random.normal(size=len(sizes))[concept] + random.normal(
            size=len(concept)
        )
        low, high = interval(
            [(random.random(len(concept)) < 1 / (1 + np.exp(-logits))) * 1.0], items
        )
        is_covered.append(low <= 0.5 <= high)
        widths.append(high - low)

    assert np.mean(is_covered) >= 0.92 - 0.03
    assert np.mean(widths) <= 0.6


@pytest.mark.nightly
@pytest.mark.parametrize("subjects", [1, 10])
def test_intervals_cover_new_concepts_with_several_pictures(subjects):
    """Ten pictures of 40 concepts; taken for independent, they hold .55 of a
    single subject, .80 of ten.
    """
    random, n_covered = np.random.default_rng(subjects), np.zeros(2)
    ids = [list(range(400))] * subjects
    concepts = Items(
        ids, [np.repeat(np.arange(40), 10).tolist()] * subjects, "concepts"
    )
    for _ in range(100):
        easy = np.repeat(random.normal(0, 1.5, 40), 10)
        hits = random.random((subjects, 400)) < 1 / (1 + np.exp(-easy))
        for row, items in enumerate((concepts, None)):
            low, high = interval(list(hits * 1.0), items)
            n_covered[row] += low <= 0.5 <= high

    assert n_covered[0] / 100 > 0.91
    assert n_covered[1] / 100 < 0.85


def test_intervals_of_clips_hold_films_in_general():
    """Issue 60, row 17. Five films of 240 clips; over single clips, .55 hold where
    neighbours correlate by .9.
    """
    random, n_covered, neighbours_correlate = np.random.default_rng(0), 0, 0.9
    items = StimulusGrouping("neighbours", medium="clip").make_items(
        [list(range(1200))]
    )
    for _ in range(200):
        logits = random.normal(size=(5, 240))
        for clip in range(1, 240):
            innovation = np.sqrt(1 - neighbours_correlate**2) * logits[:, clip]
            logits[:, clip] = neighbours_correlate * logits[:, clip - 1] + innovation
        hits = random.random(1200) < 1 / (1 + np.exp(-1.5 * logits.ravel()))
        low, high = interval([hits * 1.0], items)
        n_covered += low <= 0.5 <= high

    assert n_covered / 200 > 0.89


def test_shares_over_seeds_have_wilsons_interval():
    """Ten items at .9; the percentiles of resampled items hold .84 of three seeds."""
    random, n_covered = np.random.default_rng(0), 0
    logits = random.normal(3.0, 1.5, (600, 10))
    truth = np.mean(1 / (1 + np.exp(-random.normal(3.0, 1.5, 200_000))))
    for item_logits in logits:
        hits = (random.random((3, 10)) < 1 / (1 + np.exp(-item_logits))) * 1.0
        low, high = interval([hits])
        n_covered += low <= truth <= high

    assert n_covered / 600 > 0.92


@pytest.mark.parametrize("subjects", [1, 2, 4, 6])
@pytest.mark.parametrize("is_share", [True, False])
def test_intervals_move_and_grow_with_the_scale_of_values(subjects, is_share):
    random = np.random.default_rng(subjects)
    easy = random.normal(size=40)
    logits = random.normal(size=(subjects, 1)) / 3 + random.normal(size=(subjects, 40))
    shares = list(1 / (1 + np.exp(-easy - logits)))
    options = {"is_share": is_share}

    estimate = estimate_interval(shares, limits=(0, 1), **options)
    moved = estimate_interval(
        [2 * subject_shares - 1 for subject_shares in shares], limits=(-1, 1), **options
    )
    turned = estimate_interval(
        [1 - subject_shares for subject_shares in shares], limits=(0, 1), **options
    )

    assert estimate.low is not None
    assert (estimate.people is None) == (subjects < 3)
    for name in ("these_subjects", "people"):
        ends = getattr(estimate, name)
        assert (ends is None) == (getattr(moved, name) is None)
        if ends is not None:
            assert getattr(moved, name) == pytest.approx([2 * end - 1 for end in ends])
            mirrored = [1 - end for end in reversed(ends)]
            assert getattr(turned, name) == pytest.approx(mirrored)
    assert (moved.low, moved.high) == pytest.approx(
        (2 * estimate.low - 1, 2 * estimate.high - 1)
    )


def test_between_limits_a_t_interval_is_one_of_logits():
    values = np.random.default_rng(0).uniform(0.6, 1, 30)

    low, high = interval([values], limits=(0, 1), is_share=False)

    mean, reach = values.mean(), t.ppf(0.975, 29) * sem(values)
    steps = np.array([-1, 1]) * reach / (mean * (1 - mean))
    assert (low, high) == pytest.approx(list(expit(logit(mean) + steps)))
    free = interval([values])
    assert free == pytest.approx((mean - reach, mean + reach))


def test_only_hits_and_shares_have_wilsons_interval():
    values = np.array([0, 1, 1, 0, 1, 0.5, 1])
    assert estimate_interval([values]).method.startswith("t over")
    assert estimate_interval([values.round()]).method.startswith("Wilson over")
    assert estimate_interval([values], limits=(0, 1)).method.startswith("Wilson over")
    assert estimate_interval([values], limits=(-1, 1)).method.startswith("t over")
    # of two subjects both have to have hits alone
    assert estimate_interval([values.round(), values]).method.startswith("t over")
    for value in (0.1 + 0.2, 0.1e9 + 0.7):  # whose sums are rounded
        constant = estimate_interval([np.full(7, value)])
        assert constant.low is None
        assert constant.method.startswith("none")


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_finite_number_is_refused(spoilt):
    values = np.arange(8.0)
    with pytest.raises(BrainhiveError) as caught:
        estimate_interval([values, np.where(values == 3, spoilt, values)])
    assert "1 of 8" in str(caught.value)
    for empty in ([], [values, np.empty(0)]):
        with pytest.raises(BrainhiveError) as caught:
            estimate_interval(empty)
        assert "split" in str(caught.value.hint)


def test_a_metric_carries_its_circumstances_as_plain_values():
    selected = [
        measure(
            "top1", [np.ones(3)], protocol="intra", split="test", caveats=[caveat]
        ).selected
        for caveat in (SELECTED_ON_TEST, UNKNOWN_SELECTION, SIMULATED)
    ]
    assert selected == [True, None, False]
    metric = measure(
        "top1",
        [np.ones(6), np.zeros(4)],
        protocol="cosine",
        split="test",
        pool=5,
        chance=0.2,
        seeds=[1],
    )

    plain_values = json.loads(json.dumps(metric.as_dict()))
    ends = binomtest(5, 10).proportion_ci(method="wilson")
    # of ten items
    assert plain_values.pop("these_subjects") == pytest.approx(list(ends), abs=0.002)
    assert (plain_values.pop("low"), plain_values.pop("high")) == pytest.approx(
        tuple(ends), abs=0.002
    )
    assert plain_values == {
        "name": "top1",
        "value": 0.5,  # the mean over subjects, not over items
        "n": 10,
        "pool": 5,
        "chance": 0.2,
        "seeds": [1],
        "protocol": "cosine",
        "split": "test",
        "interval": "Wilson over 10 items; for these 2 subjects",
        "people": None,
        "seed_sd": None,
        "selected": False,
        "caveats": [],
    }


def test_the_spread_over_seeds_stands_beside_the_interval():
    """Two subjects, three seeds, whose means over subjects are .25, .5 and .75."""
    hits = [np.array([[0.0, 1], [0, 1], [1, 1]]), np.array([[0.0, 0], [0, 1], [0, 1]])]

    metric = measure("top1", hits, protocol="cosine", split="test", seeds=[1, 2, 3])

    assert metric.seed_sd == pytest.approx(np.std([0.25, 0.5, 0.75], ddof=1))
    assert (metric.value, metric.n) == (pytest.approx(0.5), 4)  # an item counts once
    assert (
        measure("top1", hits, protocol="cosine", split="test", seeds=[1, 2]).seed_sd
        is None
    )
