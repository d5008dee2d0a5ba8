"""Items that are alike: which they are, and how permutations move them."""

import numpy as np
import pytest

from brainhive_cli.measurement.statistics import describe
from brainhive_cli.measurement.units import Alike, Items


def test_pictures_of_one_concept_are_one_unit_and_pictures_of_different_ones_are_not():
    concept_of = {"cat_1": "cat", "cat_2": "cat", "owl_1": "owl"}

    together = Alike("concept", concept_of).items([["cat_1", "owl_1"], ["cat_2"]])
    apart = Alike("concept", concept_of).items([["cat_1", "owl_1"]])

    assert (together.units, together.kind) == ([["cat", "owl"], ["cat"]], "concepts")
    assert (together.count, together.size) == (2, 3)
    assert apart.are_independent and apart.kind == "pictures"


@pytest.mark.parametrize(
    ("clips", "blocks", "length"), [(1210, 20, 60), (480, 20, 24), (240, 10, 24), (40, 10, 4)]
)
def test_neighbouring_clips_make_ten_to_twenty_blocks_and_few_clips_none(clips, blocks, length):
    films = Alike("neighbours", medium="clip")

    items = films.items([list(range(clips))] * 2)

    assert (items.count, items.kind) == (blocks, f"blocks of {length} neighbouring clips")
    assert {*np.bincount(items.numbers[1]).tolist()} <= {length, length + 1}
    assert films.items([list(range(19))]).are_independent


def test_the_clips_of_a_film_are_shifted_along_it_alike_for_all_subjects():
    items = Alike("neighbours", medium="clip").items([list(range(100)), list(range(100))[::-1]])

    one, other = items.permute(np.random.default_rng(0))

    shift = one[0]
    assert 0 < shift < 100 and one.tolist() == ((np.arange(100) + shift) % 100).tolist()
    assert (99 - other[::-1]).tolist() == one.tolist()


def test_a_clip_is_in_the_same_block_for_all_subjects():
    ids = list(range(80))

    items = Alike("neighbours").items([ids, ids[::-1]])

    assert items.numbers[0].tolist() == items.numbers[1].tolist()[::-1]


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


def test_units_of_unequal_size_leave_neighbours_together():
    items = Items([list(range(6))], [[0, 0, 0, 1, 1, 2]])

    orders = [items.permute(np.random.default_rng(seed))[0] for seed in range(20)]

    assert all(sorted(order.tolist()) == list(range(6)) for order in orders)
    assert all(np.isin(1, np.diff(order)) for order in orders)


@pytest.mark.parametrize("units", [[[0, 0, 1, 1], [0, 1]], [[0, 1, 2, 3], [0, 1]]])
def test_units_average_over_items_and_subjects(units):
    items = Items([list("abcd"), list("ab")], units)
    values = [np.array([1.0, 2, 3, 4]), np.array([5.0, 6])]

    expected = {0: [], 1: [], 2: [], 3: []}
    for group, some in zip(values, units, strict=True):
        for value, unit in zip(group, some, strict=True):
            expected[unit].append(value)
    assert items.means(values).tolist() == [np.mean(some) for some in expected.values() if some]


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
