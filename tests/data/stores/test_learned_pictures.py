"""Pictures that a model was trained on."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.media import BadPicture, StimulusSet
from brainhive_cli.data.signals.holdout import SEPARATE_TEST, Holdout
from brainhive_cli.data.stores import learned_pictures as module
from brainhive_cli.data.stores.learned_pictures import (
    LearnedPictures,
    PixelComparison,
    find_similar_pictures,
    hash_concepts,
    hash_names,
)
from tests.worlds.learned_histories import edit_pixels, make_pixels

PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)


def test_names_are_hashed_with_their_data_set():
    names = hash_names("a", ["1", "2", "1"])
    assert names[0] == names[2] != names[1]
    assert names.dtype == np.uint64
    assert not np.isin(hash_names("b", ["1", "2"]), names).any()
    assert hash_names("a", []).shape == (0,)

    same_concepts = ["owl", "Owl", "00012_owl", "n0123_OWL", "n01_owl"]
    assert len(np.unique(hash_concepts(same_concepts))) == 1
    other_concepts = ["owl", "owls", "n_owl", "owl_2", "12owl", "", "1_2_owl"]
    assert len(np.unique(hash_concepts(other_concepts))) == len(other_concepts)


sets = st.lists(st.integers(1, 9), max_size=6)


@PROPERTY
@given(sets, sets, st.booleans(), st.booleans())
def test_pictures_of_two_trainings_are_those_of_either(
    own_numbers, start, has_own, has_start
):
    def make_pictures(numbers, has_pixels):
        names, pixels = [f"p{number}" for number in numbers], make_pixels(*numbers)
        concepts = [f"c{number // 2}" for number in numbers]
        return LearnedPictures.from_image_ids(
            "set", names, pixels if has_pixels else None, concepts
        )

    inherit = make_pictures(own_numbers, has_own).inherit(
        make_pictures(start, has_start)
    )

    all_numbers = list(range(1, 10))
    names = [f"p{number}" for number in all_numbers]
    by_name = inherit.find_members("set", names)
    assert by_name.tolist() == [number in own_numbers + start for number in all_numbers]
    with_pixels = own_numbers * has_own + start * has_start
    by_pixels = inherit.find_members("other", names, make_pixels(*all_numbers))
    assert by_pixels.tolist() == [number in with_pixels for number in all_numbers]
    assert inherit.has_all_pixels == (has_own and has_start)
    assert len(inherit) == len(set(own_numbers) | set(start))
    assert len(inherit.hashes) == len(set(with_pixels))

    def concepts(numbers):
        shown = [f"c{number}" for number in {number // 2 for number in numbers}]
        return set(hash_concepts(shown).tolist())

    assert set(inherit.concepts.tolist()) == concepts(own_numbers)
    # concepts of the own training are left out
    assert set(inherit.start_concepts.tolist()) == concepts(start) - concepts(
        own_numbers
    )
    further_inherit = make_pictures([], True).inherit(inherit)
    assert set(further_inherit.start_concepts.tolist()) == concepts(own_numbers + start)
    for array in (inherit.names, inherit.pixels, inherit.concepts):
        assert (np.diff(array.astype(object)) > 0).all()


def test_pictures_without_a_hash_have_only_a_digest():
    pixels = np.concatenate([make_pixels(1, hashed=False), make_pixels(2)])
    learned_pictures = LearnedPictures.from_image_ids(
        "set", ["a", "b"], pixels, ["", "owl"]
    )
    assert learned_pictures.pixels.tolist() == [1, 2]
    assert len(learned_pictures.hashes) == 1
    assert learned_pictures.hashes[0, 0] == hash_names("set", ["b"])[0]
    assert learned_pictures.concepts.tolist() == hash_concepts(["owl"]).tolist()


@pytest.mark.parametrize(
    ("likeness", "is_contained"),
    [("copy", True), ("cropped", True), (None, True), ("mirrored", False), ("", False)],
)
def test_near_copies_and_unknown_likenesses_are_members(likeness, is_contained):
    learned_pictures = LearnedPictures.from_image_ids(
        "set", ["a", "b"], make_pixels(1, 2)
    )
    joined_array = np.concatenate([edit_pixels(make_pixels(2), 8), make_pixels(7)])
    compared = list[tuple[int, int]]()

    def confirm(row, name):
        compared.append((row, name))
        return likeness

    names = ["x", "y"]
    assert learned_pictures.find_members(
        "set", names, joined_array, confirm
    ).tolist() == [
        is_contained,
        False,
    ]
    assert compared == [(0, hash_names("set", ["b"]).tolist()[0])]
    assert not learned_pictures.find_members(
        "set", names, joined_array, confirm, 7
    ).any()
    assert not learned_pictures.find_members("set", names, joined_array).any()
    # pictures of the same name or pixels are not compared
    compared.clear()
    assert learned_pictures.find_members(
        "set", ["a", "y"], joined_array, confirm
    ).tolist() == [
        True,
        False,
    ]
    assert not compared


def test_one_copy_settles_a_picture():
    """Two trainings share four pictures that resemble the tested picture."""
    ids = list("abcd")
    learned_pixels = np.concatenate(
        [edit_pixels(make_pixels(1), bits) for bits in range(4)]
    )
    pictures = LearnedPictures.from_image_ids("set", ids, learned_pixels)
    letter = dict(zip(hash_names("set", ids).tolist(), ids, strict=True))
    joined_array = np.concatenate([edit_pixels(make_pixels(1), 0)] * 3)

    def find(likenesses):
        kinds = dict(
            zip("-?mc.", ("", None, "mirrored", "cropped", "copy"), strict=True)
        )
        similar_pictures = find_similar_pictures(
            joined_array,
            np.array([False, True, False]),
            [pictures, pictures],
            lambda row, name: kinds[likenesses[ids.index(letter[name])]],
        )
        assert {row for pairs in similar_pictures.values() for row, _ in pairs} <= {1}
        return {
            kind: "".join(letter[name] for _, name in pairs)
            for kind, pairs in similar_pictures.items()
        }

    assert find("----") == {}
    assert find("?-?-") == {None: "ac"}
    assert find("mmmm") == {"mirrored": "a"}
    assert find("-m?m") == {"mirrored": "b", None: "c"}
    # every copy is listed, because each may be from another model
    assert find("m.c-") == {"mirrored": "a", "copy": "b", "cropped": "c"}
    assert find(".m.-") == {"copy": "ac"}


def paint_grey(level):
    return Image.new("RGB", (4, 4), (level,) * 3)


def test_pictures_are_compared_where_both_are_on_this_machine(home, monkeypatch):
    def write_levels(*pair):
        return "".join(chr(picture.getpixel((0, 0))[0]) for picture in pair)  # type: ignore[index]

    monkeypatch.setattr(module, "confirm_near_copy", write_levels)
    splits = list[str]()

    def data_set(name, ids, is_there=True):
        def images(split):
            splits.append(f"{name} {split}")
            if not is_there:
                raise MissingData("absent", "")

            def show(index):
                if ids[index] == "-":
                    raise MissingData("lost", "")
                return paint_grey(ord(ids[index]))

            return StimulusSet(name, split, Names.of(ids), Names.of(ids), show)

        return SimpleNamespace(
            images=images, pictured_as=name, holdout=Holdout(by="pictures", folds=2)
        )

    tested_data_set = data_set("T", "ab-")
    learned_sets = [data_set("absent", "", False), data_set("L", "l-")]
    learned_sets.append(data_set("M", "m"))
    confirm = PixelComparison(
        ["b", "a", "elsewhere", "-"], tested_data_set, "test", learned_sets
    )

    first_hash, lost = hash_names("L", ["l", "-"]).tolist()
    (other_hash,), (unknown,) = (hash_names(n, ["m"]).tolist() for n in ("M", "L"))
    assert confirm(0, first_hash) == "bl"
    assert confirm(1, other_hash) == "am"
    for row, name in ((2, first_hash), (3, first_hash), (0, lost), (0, unknown)):
        assert confirm(row, name) is None
    # held-out pictures lie in the split train; sets are listed once
    assert splits == ["T train", "absent train", "L train", "M train"]
    PixelComparison("ba", tested_data_set, "other", learned_sets[1:2], "test")(
        0, first_hash
    )
    assert splits[4:] == ["T other", "L test"]


def test_each_pair_is_compared_once_and_a_bad_picture_is_not(home, monkeypatch):
    compared, opened_rows = list[Any](), list[int]()

    def compare(*pair):
        compared.append(pair)
        return "mirrored"

    def read_picture(index):
        opened_rows.append(index)
        if index == 3:
            raise BadPicture("gone", "")
        return paint_grey(index)

    monkeypatch.setattr(module, "confirm_near_copy", compare)
    names = Names.of("abcd")
    images = StimulusSet("set", "train", names, names, read_picture)
    dataset = SimpleNamespace(
        images=lambda split: images, pictured_as="set", holdout=SEPARATE_TEST
    )
    learned = hash_names("set", "abcd").tolist()
    confirm = PixelComparison("abcd", dataset, "train", [dataset])

    # the picture of a row is opened once for all its candidates
    for _ in range(2):
        assert [confirm(0, name) for name in learned[1:3]] == ["mirrored"] * 2
    assert len(compared) == 2
    assert opened_rows == [0, 1, 2]
    assert confirm(0, learned[3]) is None
    assert confirm(3, learned[0]) is None
    assert len(compared) == 2
