"""Items that are alike: which they are, and how permutations move them."""

from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.measurement.comparison import compare_values
from brainhive_cli.measurement.statistics import describe
from brainhive_cli.measurement.units import (
    Alike,
    Items,
    describe_claims,
    fold_null_inflation,
    widen,
)


def test_pictures_of_one_concept_are_one_unit_and_pictures_of_different_ones_are_not():
    concept_of = {"cat_1": "cat", "cat_2": "cat", "owl_1": "owl"}

    others = [f"{n}" for n in range(8)]

    together = Alike("concept", concept_of).items(
        [["cat_1", "owl_1", *others], ["cat_2"]]
    )
    apart = Alike("concept", concept_of).items([["cat_1", "owl_1", *others]])

    assert (together.units, together.kind) == (
        [["cat", "owl", *others], ["cat"]],
        "concepts",
    )
    assert (together.count, len(together.names), together.scope) == (10, 11, "")
    assert apart.are_independent and apart.kind == "pictures"


def test_pictures_of_fewer_than_ten_concepts_are_the_units():
    concept_of = {"cat_1": "cat", "cat_2": "cat", "owl_1": "owl", "fox_1": "fox"}

    items = Alike("concept", concept_of).items([["cat_1", "owl_1", "fox_1"], ["cat_2"]])

    assert (items.scope, items.kind, items.count) == (
        "these 3 concepts",
        "pictures within 3 concepts",
        4,
    )
    # concepts with one picture are one stratum
    assert items.strata == [["cat", None, None], ["cat"]]


@pytest.mark.parametrize(
    ("concepts", "pictures", "subjects", "expected"),
    [
        (
            40,
            1,
            3,
            (
                "40 pictures, 3 subjects: statements about pictures in general and "
                "these 3 subjects"
            ),
        ),
        (
            12,
            5,
            10,
            (
                "12 concepts, 10 subjects: statements about concepts in general and "
                "people in general"
            ),
        ),
    ],
)
def test_a_design_says_which_claims_it_allows(concepts, pictures, subjects, expected):
    concept_of = dict(
        enumerate(np.repeat(np.arange(concepts), pictures).astype(str).tolist())
    )

    assert (
        describe_claims(Alike("concept", concept_of).items([[*concept_of]]), subjects)
        == expected
    )


@pytest.mark.parametrize("group_of", [{}, {"a": "run 1", "b": "run 2"}])
def test_items_of_folds_vary_more_than_their_units_say(group_of):
    """Issue 60, row 19: folds counted as independent, so that equal learners, and a
    model and its plain baselines, differed in .05 to .10.
    """
    alone = Alike(group_of=group_of, groups="runs")

    assert alone.items([["a", "b"]]).inflation == 1
    assert replace(alone, has_folds=True).items([["a", "b"]]).inflation == 1.4


@pytest.mark.parametrize(
    ("pool", "expected"), [(2, 1.63662), (4, 1.763944), (np.inf, 1.95493)]
)
def test_ranks_over_folds_vary_more_the_more_candidates(pool, expected):
    ranks = [np.array([1, 2, 1.0]), np.array([2, 1.0])]

    assert fold_null_inflation(ranks, pool) == pytest.approx(expected, abs=1e-5)
    # means over seeds may have all of the increase
    assert fold_null_inflation([ranks[0], ranks[1] / 2], pool) == 2


def test_sums_are_widened_around_their_middle_and_over_their_step():
    random = np.random.default_rng(0)
    hits = random.binomial(8, 0.5, 5000) / 4

    alone = widen(hits, 1.5, 1.0)
    wider = widen(hits, 1.5, 4.0)

    assert np.abs(alone - hits).max() == pytest.approx(0.125, rel=0.01)
    assert len(np.unique(alone)) == len(hits)
    np.testing.assert_allclose(wider - 1.5, 2 * (alone - 1.5))
    # middles may differ from sum to sum, and equal sums stay equal
    middles = random.normal(size=5000)
    np.testing.assert_allclose(widen(hits, middles, 1.0), alone)
    assert (widen(np.ones(3), 0.0, 1.0) == 1).all()


def test_neighbouring_clips_make_six_to_fifteen_blocks_and_fewer_are_one_unit():
    """Issue 60, row 17: six or seven clips counted as independent, whose intervals held
    .35 to .77 and whose differences were false in .21 to .60.
    """
    clips, blocks, length = 1210, 15, 80
    items = Alike("neighbours", medium="clip").items([list(range(clips))] * 2)

    assert (items.count, items.kind) == (
        blocks,
        f"blocks of {length} neighbouring clips",
    )
    assert {*np.bincount(items.numbers[1]).tolist()} <= {length, length + 1}
    few = Alike("neighbours", medium="clip").items([list(range(359))])
    assert few.count == 1 and few.shortage == (
        "all items are of one unit (a block of fewer than 360 neighbouring clips)"
    )
    hits = 1.0 * (np.random.default_rng(0).random((2, 359)) < 0.5)
    interval = describe([hits[0]], few)
    difference = compare_values([hits[0]], [hits[1]], items=few)
    assert interval.low is interval.high is difference.low is difference.p_value is None


def test_labels_are_exchanged_only_within_what_was_interleaved_in_time():
    """Sessions 0 and 1 have concepts of their own; where each concept has one, only its
    pictures move.
    """
    concept = dict(enumerate(np.arange(24) // 2))
    session = {name: int(number) % 2 for name, number in concept.items()}
    items, random = (
        Alike("concept", concept).items([[*concept]]),
        np.random.default_rng(0),
    )
    for parts, is_together in (((session, session), False), ((concept, {}), True)):
        orders = items.within(*parts).permutations(50, random)
        moved = np.array([concept[name] for name in range(24)])[orders]
        assert (moved % 2 == moved[0] % 2).all() and (orders != np.arange(24)).any()
        assert (moved == np.arange(24) // 2).all() == is_together


def test_intervals_over_units_hold_the_mean_where_those_over_items_do_not():
    """Of items in fours that are equal, a nominal 95 % interval over items holds in two
    thirds.
    """
    held = np.zeros(2)
    units = np.repeat(np.arange(60), 4).tolist()
    for seed in range(100):
        values = np.repeat(np.random.default_rng(seed).normal(size=60), 4)
        for place, items in enumerate((Items([list(range(240))], [units]), None)):
            interval = describe([values], items)
            held[place] += interval.low <= 0 <= interval.high

    assert held[0] > 88 > 80 > held[1]
