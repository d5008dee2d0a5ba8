"""Intervals over items and subjects, each against its definition or by simulation, and who carries them."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, t

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.measurements import SELECTED_ON_TEST, SIMULATED, UNKNOWN_SELECTION
from brainhive_cli.measurement.statistics import describe, interval, measure, measure_each
from brainhive_cli.measurement.units import Alike, Items

ITEMS = 200


def simulated(
    subjects: int, item_sd: float, subject_sd: float, count: int, seed: int = 0
) -> NDArray[np.float64]:
    """Draw hits [count, subjects, items] of half the items, whose subjects and items differ, in logits."""
    random = np.random.default_rng(seed)
    logit = random.normal(0, subject_sd, (count, subjects, 1)) + random.normal(0, item_sd, (count, 1, ITEMS))
    return (random.random((count, subjects, ITEMS)) < 1 / (1 + np.exp(-logit))).astype(float)


@pytest.mark.parametrize(("subjects", "most"), [(2, 1.0), (4, 1.0), (6, 1.0), (10, 0.98)])
@pytest.mark.parametrize(("item_sd", "subject_sd"), [(1.5, 0.5), (2.5, 0.3), (1.5, 1.0)])
def test_an_interval_holds_people_and_pictures_in_general_as_often_as_it_says(
    subjects, most, item_sd, subject_sd
):
    """Bounds of .92 and .98, and two Monte Carlo errors of 300 simulations; items alone reach .45 to .85.

    A subject sd of 1 logit is that of published values: percentiles of resampled subjects hold .86 to .92.
    """
    found = [interval(list(hits)) for hits in simulated(subjects, item_sd, subject_sd, 300)]

    coverage = np.mean([low <= 0.5 <= high for low, high in found])
    assert 0.92 - 0.025 <= coverage <= most + 0.017


def test_the_interval_of_these_subjects_is_over_items_alone():
    hits = simulated(4, 2.5, 0.5, 1)[0]

    found = describe(list(hits))

    error = hits.mean(0).std(ddof=1) / np.sqrt(ITEMS)  # an item is one draw for all who saw it
    assert found.these_subjects == pytest.approx(
        (hits.mean() - 1.96 * error, hits.mean() + 1.96 * error), abs=0.01
    )
    assert found.low < found.these_subjects[0] and found.high > found.these_subjects[1]


def test_items_that_subjects_share_are_resampled_together_and_others_apart():
    """Subjects with the same values: shared items leave one's error, others an eighth of its square."""
    values = np.random.default_rng(0).normal(size=ITEMS)
    names = [[f"{subject}/{n}" for n in range(ITEMS)] for subject in range(8)]

    def width(**how):
        low, high = describe([values] * 8, **how).these_subjects
        return high - low

    apart = width(items=Items.independent(names))
    assert (
        width()
        == width(items=Items.independent([names[0]] * 8))
        == pytest.approx(apart * np.sqrt(8), rel=0.1)
    )


def test_ids_match_items_in_any_order():
    values = np.random.default_rng(0).normal(size=50)
    names = [f"{n}" for n in range(50)]
    turned = [values, values[::-1]] * 3

    found = interval(turned, items=Items.independent([names, names[::-1]] * 3))

    assert found == pytest.approx(interval([values] * 6))
    assert found[1] - found[0] > 1.2 * np.subtract(*interval(turned)[::-1])


def test_subjects_that_share_some_items_lie_between_all_and_none():
    values = np.random.default_rng(0).normal(size=300)
    places = [np.arange(start, start + 200) for start in (0, 50, 100)]

    def width(ids):
        low, high = describe([values[place] for place in places], Items.independent(ids)).these_subjects
        return high - low

    own = width([[(subject, n) for n in range(200)] for subject in range(3)])
    error = np.sqrt(sum((sum((n in place) / 200 for place in places) / 3) ** 2 for n in range(300)))
    assert width(places) == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert width(places) > 1.2 * own


def test_without_ids_subjects_with_other_numbers_of_items_share_none():
    values = np.random.default_rng(0).normal(size=201)
    low, high = describe([values, values[:200]]).these_subjects

    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(400), rel=0.15)


def test_few_subjects_get_the_t_interval_over_subjects_where_items_do_not_matter():
    """Items that differ by nothing leave the textbook's interval."""
    means = [0.1, 0.3, 0.4]

    low, high = interval([np.full(ITEMS, mean) for mean in means], limits=(None, None))

    reach = t.ppf(0.975, 2) * np.std(means, ddof=1) / np.sqrt(3)
    assert (low, high) == pytest.approx((np.mean(means) - reach, np.mean(means) + reach))


def test_two_subjects_who_happen_to_agree_are_not_told_to_be_certain():
    """Their means are equal, which says nothing of people in general."""
    hits = np.tile([0.0, 1.0], 100)
    found = describe([hits, np.roll(hits, 50)])

    assert found.high - found.low > found.these_subjects[1] - found.these_subjects[0]


@pytest.mark.parametrize("found", [0, 3, 40, 200])
def test_the_shares_of_one_subject_have_wilsons_interval(found):
    hits = np.repeat([1.0, 0.0], [found, 200 - found])

    assert interval([hits]) == pytest.approx(binomtest(found, 200).proportion_ci(method="wilson"))


def test_hits_of_all_are_certain_neither_for_one_nor_for_several_subjects():
    assert interval([np.ones(20)] * 3) == interval([np.ones(20)])
    assert interval([np.ones(20)])[0] < 0.9


def test_subjects_who_do_not_differ_have_an_interval_for_themselves_only():
    found = describe([np.ones(20)] * 3)

    assert "for these subjects" in found.method and "people" not in found.method
    assert found.these_subjects == (found.low, found.high) == pytest.approx(interval([np.ones(20)]))


def test_one_item_has_no_interval():
    assert interval([np.ones(1)]) == (None, None)
    assert interval([np.zeros(1), np.ones(1)]) == (None, None)

    metric = measure("top1", [np.ones(1)], protocol="cosine", split="test")
    assert metric.interval_text() == "–" and metric.interval == "none: one item"


def test_an_interval_over_items_agrees_with_the_normal_theory():
    """The mean of 400 values of deviation 1 has a standard error of 0.05."""
    values = np.random.default_rng(0).normal(size=400)

    low, high = interval([values])

    spread = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - spread, values.mean() + spread), abs=0.01)


def test_an_interval_takes_the_median_of_subjects_of_unequal_size():
    groups = [np.array([1.0] * 9 + [1000.0]), np.full(3, 1.0)]

    assert describe(groups, statistic=np.median).these_subjects == (1.0, 1.0)
    assert describe(groups).these_subjects[1] > 50  # the mean would move


def test_hits_may_be_lists_or_one_array_of_truth_values():
    hits = simulated(3, 1.5, 0.5, 1)[0]

    assert interval(hits == 1) == interval(hits.astype(int).tolist()) == interval(list(hits))


def test_ends_stay_within_what_a_share_can_be():
    low, high = interval([np.repeat([1.0, 0.0], [19, 1]), np.repeat([1.0, 0.0], [9, 11])])
    assert 0 <= low < 1e-5 < 1 - 1e-5 < high <= 1

    low, high = interval([np.array([1.0, 0.9]), np.array([0.2, 0.1])], limits=(0, 1))
    assert 0 <= low < 1e-5 < 1 - 1e-5 < high <= 1


def test_items_of_one_unit_scatter_together():
    """A unit's items count as often as they are, and its error is that of their sum (cluster-robust)."""
    values = np.array([0.0, 1.0, 0.2, 0.8, 0.6])
    units = Items([list("abcde")], [["one", "one", "two", "two", "three"]])

    low, high = interval([values], units)

    sums = np.array([1.0 - 2 * 0.52, 1.0 - 2 * 0.52, 0.6 - 0.52]) / 5
    reach = t.ppf(0.975, 2) * np.sqrt((sums**2).sum() * 3 / 2)
    assert (low, high) == pytest.approx((0.52 - reach, 0.52 + reach))


def test_items_that_are_all_of_one_unit_have_no_interval():
    described = describe([np.array([0.0, 1.0])], Items([["a", "b"]], [["one", "one"]]))

    assert (described.low, described.method) == (None, "none: all items are of one unit")


@pytest.mark.parametrize("subjects", [1, 10])
def test_intervals_of_several_pictures_a_concept_hold_concepts_in_general(subjects):
    """Ten pictures of 40 concepts; taken for independent, they hold .55 of one subject, .80 of ten."""
    random, held = np.random.default_rng(subjects), np.zeros(2)
    ids = [list(range(400))] * subjects
    concepts = Items(ids, [np.repeat(np.arange(40), 10).tolist()] * subjects, "concepts")
    for _ in range(200):
        easy = np.repeat(random.normal(0, 1.5, 40), 10)
        hits = random.random((subjects, 400)) < 1 / (1 + np.exp(-easy))
        for place, items in enumerate((concepts, None)):
            low, high = interval(list(hits * 1.0), items)
            held[place] += low <= 0.5 <= high

    assert held[0] / 200 > 0.91 and held[1] / 200 < 0.85


@pytest.mark.parametrize("neighbours_correlate", [0.0, 0.9])
def test_intervals_of_clips_hold_films_in_general(neighbours_correlate):
    """Five films of 240 clips; over single clips, .55 hold where neighbours correlate by .9."""
    random, held = np.random.default_rng(0), 0
    items = Alike("neighbours", medium="clip").items([list(range(1200))])
    for _ in range(200):
        logits = random.normal(size=(5, 240))
        for place in range(1, 240):
            new = np.sqrt(1 - neighbours_correlate**2) * logits[:, place]
            logits[:, place] = neighbours_correlate * logits[:, place - 1] + new
        hits = random.random(1200) < 1 / (1 + np.exp(-1.5 * logits.ravel()))
        low, high = interval([hits * 1.0], items)
        held += low <= 0.5 <= high

    assert held / 200 > 0.89


@pytest.mark.parametrize("seeds", [1, 3])
def test_shares_of_few_items_over_seeds_have_wilsons_interval_of_an_effective_number(seeds):
    """Ten items at .9; the percentiles of resampled items hold .84 of three seeds."""
    random, held = np.random.default_rng(0), 0
    logits = random.normal(3.0, 1.5, (600, 10))
    truth = np.mean(1 / (1 + np.exp(-random.normal(3.0, 1.5, 200_000))))
    for some in logits:
        hits = (random.random((seeds, 10)) < 1 / (1 + np.exp(-some))) * 1.0
        low, high = interval([hits])
        held += low <= truth <= high

    assert held / 600 > 0.92


def test_an_interval_near_a_limit_is_asymmetric_and_stays_within():
    low, high = interval([np.full(20, each) for each in (0.9, 0.95, 0.99)], limits=(0, 1))

    centre = np.mean([0.9, 0.95, 0.99])
    assert 0 < low < centre < high < 1
    assert centre - low > 1.5 * (high - centre)


def test_a_metric_carries_its_circumstances_as_plain_values():
    metric = measure(
        "top1", [np.ones(3), np.zeros(2)], protocol="cosine", split="test", pool=5, chance=0.2, seeds=[1]
    )

    told = json.loads(json.dumps(metric.as_dict()))
    assert told.pop("these_subjects") == pytest.approx([0.17, 0.83], abs=0.001)  # Wilson's of five items
    assert (told.pop("low"), told.pop("high")) == pytest.approx((0, 1), abs=1e-9)
    assert told == {
        "name": "top1",
        "value": 0.5,  # the mean over subjects, not over items
        "n": 5,
        "pool": 5,
        "chance": 0.2,
        "seeds": [1],
        "protocol": "cosine",
        "split": "test",
        "interval": "t over 2 subjects and 5 items; for people in general",
        "seed_sd": None,
        "selected": False,
    }


@pytest.mark.parametrize(
    ("caveat", "selected"), [(SELECTED_ON_TEST, True), (UNKNOWN_SELECTION, None), (SIMULATED, False)]
)
def test_a_metric_says_whether_anything_was_selected_on_test(caveat, selected):
    assert measure("top1", [np.ones(3)], protocol=f"intra, {caveat}", split="test").selected is selected


def test_the_spread_over_seeds_stands_beside_the_interval():
    """Two subjects, three seeds, whose means over subjects are .25, .5 and .75."""
    hits = [np.array([[0.0, 1], [0, 1], [1, 1]]), np.array([[0.0, 0], [0, 1], [0, 1]])]

    metric = measure("top1", hits, protocol="cosine", split="test", seeds=[1, 2, 3])

    assert metric.seed_sd == pytest.approx(np.std([0.25, 0.5, 0.75], ddof=1))
    assert (metric.value, metric.n) == (pytest.approx(0.5), 4)  # an item counts once
    assert measure("top1", hits, protocol="cosine", split="test", seeds=[1, 2]).seed_sd is None


@pytest.mark.parametrize("groups", [[], [np.array([])], [np.ones((2, 2, 2))]])
def test_nothing_to_measure_is_an_error(groups):
    with pytest.raises(BrainhiveError, match="nothing to measure"):
        measure("top1", groups, protocol="cosine", split="test")


def test_a_value_that_is_not_a_number_is_an_error():
    with pytest.raises(BrainhiveError, match="not a finite number"):
        interval([np.array([1.0, np.nan])])


def test_names_that_do_not_belong_to_the_values_are_an_error():
    with pytest.raises(BrainhiveError, match=r"with \[2, 2\] values have \[2, 1\] item names"):
        interval([np.ones(2), np.ones(2)], Items.independent([["a", "b"], ["a"]]))


@pytest.mark.parametrize("subjects", (1, 3, 7))
def test_many_places_have_the_metrics_that_each_has_alone(subjects):
    random = np.random.default_rng(0)
    groups = [random.normal(0.3, 1, (4, 25)) for _ in range(subjects)]
    hits = [(group > 0).astype(float) for group in groups]
    how = {"protocol": "p", "split": "test", "seeds": (1,)}
    for each in (groups, hits):
        found = measure_each("x", each, **how)
        alone = [measure("x", [group[place] for group in each], **how) for place in range(4)]
        for one, other in zip(found, alone, strict=True):
            numbers = [(each.value, each.low, each.high) for each in (one, other)]
            assert numbers[0] == pytest.approx(numbers[1], abs=1e-12)  # sums in another order
            assert one.interval == other.interval and one.n == other.n
