"""Items that are alike: which they are, and how permutations move them."""

import numpy as np
import pytest

from brainhive_cli.measurement.statistics import describe
from brainhive_cli.measurement.units import Alike, Items, describe_claims


def test_pictures_of_one_concept_are_one_unit_and_pictures_of_different_ones_are_not():
    concept_of = {"cat_1": "cat", "cat_2": "cat", "owl_1": "owl"}

    others = [f"{n}" for n in range(8)]

    together = Alike("concept", concept_of).items([["cat_1", "owl_1", *others], ["cat_2"]])
    apart = Alike("concept", concept_of).items([["cat_1", "owl_1", *others]])

    assert (together.units, together.kind) == ([["cat", "owl", *others], ["cat"]], "concepts")
    assert (together.count, len(together.names), together.scope) == (10, 11, "")
    assert apart.are_independent and apart.kind == "pictures"


def test_fewer_than_ten_concepts_are_what_is_spoken_of_and_their_pictures_are_the_units():
    concept_of = {"cat_1": "cat", "cat_2": "cat", "owl_1": "owl", "fox_1": "fox"}

    items = Alike("concept", concept_of).items([["cat_1", "owl_1", "fox_1"], ["cat_2"]])

    assert (items.scope, items.kind, items.count) == ("these 3 concepts", "pictures within 3 concepts", 4)
    assert items.strata == [["cat", None, None], ["cat"]]  # concepts with one picture are one stratum


@pytest.mark.parametrize(
    ("concepts", "pictures", "subjects", "expected"),
    [
        (2, 10, 1, "2 concepts, 1 subject: statements about these 2 concepts and this subject"),
        (40, 1, 3, "40 pictures, 3 subjects: statements about pictures in general and these 3 subjects"),
        (12, 5, 10, "12 concepts, 10 subjects: statements about concepts in general and people in general"),
        (4, 1, 0, "4 pictures: statements about these 4 pictures"),
    ],
)
def test_a_design_says_which_claims_it_allows(concepts, pictures, subjects, expected):
    concept_of = dict(enumerate(np.repeat(np.arange(concepts), pictures).astype(str).tolist()))

    assert describe_claims(Alike("concept", concept_of).items([[*concept_of]]), subjects) == expected


@pytest.mark.parametrize(("clips", "blocks", "length"), [(1210, 15, 80), (480, 8, 60), (360, 6, 60)])
def test_neighbouring_clips_make_six_to_fifteen_blocks(clips, blocks, length):
    items = Alike("neighbours", medium="clip").items([list(range(clips))] * 2)

    assert (items.count, items.kind) == (blocks, f"blocks of {length} neighbouring clips")
    assert {*np.bincount(items.numbers[1]).tolist()} <= {length, length + 1}


@pytest.mark.parametrize("clips", [7, 40, 359])
def test_few_neighbouring_clips_are_one_unit_and_it_says_so(clips):
    items = Alike("neighbours", medium="clip").items([list(range(clips))])

    assert items.count == 1 and items.shortage == (
        "all items are of one unit (a block of fewer than 360 neighbouring clips)"
    )


def test_from_ten_films_on_the_films_are_the_units():
    films = dict(enumerate(np.repeat(np.arange(10), 4).astype(str).tolist()))

    items = Alike("neighbours", films, "clip").items([list(films)])

    assert (items.count, items.kind, items.scope, items.is_film) == (10, "films", "", True)


def test_the_clips_of_a_film_are_shifted_along_it_alike_for_all_subjects():
    items = Alike("neighbours", medium="clip").items([list(range(100)), list(range(100))[::-1]])

    one, other = items.permute(np.random.default_rng(0))

    shift = one[0]
    assert 0 < shift < 100 and one.tolist() == ((np.arange(100) + shift) % 100).tolist()
    assert (99 - other[::-1]).tolist() == one.tolist()


def test_a_clip_is_in_the_same_block_for_all_subjects():
    ids = list(range(400))

    items = Alike("neighbours").items([ids, ids[::-1]])

    assert items.numbers[0].tolist() == items.numbers[1].tolist()[::-1]


def test_blocks_follow_the_film_in_whatever_order_a_subject_saw_its_clips():
    order = np.random.default_rng(0).permutation(400).tolist()
    film = Alike("neighbours", dict.fromkeys(range(400), "film"), "clip")

    shuffled, in_order = film.items([order]), film.items([list(range(400))])

    assert shuffled.names == list(range(400)) and shuffled.scope == "this film"
    assert [shuffled.units[0][order.index(clip)] for clip in range(400)] == list(in_order.units[0])


def test_a_film_is_shifted_by_every_shift_once_and_by_none():
    film = Alike("neighbours", dict.fromkeys(range(12), "film"), "clip").items([list(range(12))])

    orders = film.permutations(500, np.random.default_rng(0))

    assert sorted(orders[:, 0].tolist()) == list(range(1, 12))
    assert len(film.permutations(5, np.random.default_rng(0))) == 5


def test_all_permutations_are_listed_where_they_are_few_and_the_identity_is_none():
    orders = Items.independent([list("abcd")]).permutations(100, np.random.default_rng(0))

    assert len({tuple(order) for order in orders.tolist()}) == 23 and [0, 1, 2, 3] not in orders.tolist()
    units = Items([list(range(4))], [[0, 0, 1, 1]]).permutations(100, np.random.default_rng(0))
    assert len({tuple(order) for order in units.tolist()}) == 2 * 2 * 2 - 1


def test_labels_are_exchanged_within_few_concepts_only():
    items = Alike("concept", dict(enumerate("aaabbbcd"))).items([list(range(8))])

    orders = items.permutations(10_000, np.random.default_rng(0))

    assert len(orders) == 6 * 6 * 2 - 1  # c and d have one picture each
    assert {*orders[:, :3].ravel().tolist()} == {0, 1, 2} and {*orders[:, 6:].ravel().tolist()} == {6, 7}


def test_labels_are_exchanged_only_within_what_was_interleaved_in_time():
    """Sessions 0 and 1 have concepts of their own; where each concept has one, only its pictures move."""
    concept = dict(enumerate(np.arange(24) // 2))
    session = {name: int(number) % 2 for name, number in concept.items()}
    items, random = Alike("concept", concept).items([[*concept]]), np.random.default_rng(0)
    for parts, is_together in (((session, session), False), ((concept, {}), True)):
        orders = items.within(*parts).permutations(50, random)
        moved = np.array([concept[name] for name in range(24)])[orders]
        assert (moved % 2 == moved[0] % 2).all() and (orders != np.arange(24)).any()
        assert (moved == np.arange(24) // 2).all() == is_together


def test_a_permutation_moves_whole_units_alike_for_all_subjects():
    """Labels are compared by name: subject two has the pictures of subject one in another order."""
    ids = [f"{concept}/{n}" for concept in "abcd" for n in range(3)]
    turned = ids[::-1]
    units = [[name[0] for name in some] for some in (ids, turned)]

    one, other = Items([ids, turned], units, "concepts").permute(np.random.default_rng(3))

    label = {name: ids[place] for name, place in zip(ids, one, strict=True)}
    assert label == {name: turned[place] for name, place in zip(turned, other, strict=True)}
    assert label != {name: name for name in ids}
    assert all(len({label[f"{concept}/{n}"][0] for n in range(3)}) == 1 for concept in "abcd")


def test_a_permutation_of_independent_items_is_any_permutation():
    items = Items.independent([list("abc")])
    random = np.random.default_rng(0)

    drawn = {tuple(items.permute(random)[0].tolist()) for _ in range(100)}

    assert len(drawn) == 6


def test_only_units_of_equal_size_are_exchanged():
    items = Items([list(range(9))], [[0, 0, 0, 1, 1, 2, 2, 3, 4]])

    orders = items.permutations(10_000, np.random.default_rng(0))

    assert len(orders) == 6 * (2 * 2 * 2) * 2 - 1
    assert {*orders[:, :3].ravel().tolist()} == {0, 1, 2} and {*orders[:, 3:7].ravel().tolist()} == {
        3,
        4,
        5,
        6,
    }


def test_intervals_over_units_hold_the_mean_where_those_over_items_do_not():
    """Of items in fours that are equal, a nominal 95 % interval over items holds in two thirds."""
    held = np.zeros(2)
    units = np.repeat(np.arange(60), 4).tolist()
    for seed in range(100):
        values = np.repeat(np.random.default_rng(seed).normal(size=60), 4)
        for place, items in enumerate((Items([list(range(240))], [units]), None)):
            interval = describe([values], items)
            held[place] += interval.low <= 0 <= interval.high

    assert held[0] > 88 > 80 > held[1]
