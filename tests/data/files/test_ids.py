"""Names of pictures in any script are packed, matched and summarised."""

import os
import pickle
import sys

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.data.files.ids import (
    Names,
    format_ranges,
    match_ids,
    match_names,
    normalise_name,
    read_category,
    summarise_names,
    to_image_id,
    to_table_cell,
)

WORDS = ["a", "été/ñ", "画像/猫", "a-b/x"]


def test_names_in_any_script_come_back():
    names = Names.of(WORDS)

    assert len(names) == 4
    assert list(names) == WORDS
    assert [names[row] for row in range(4)] == WORDS
    assert names.index("画像/猫") == 2
    assert "b" not in names
    assert len(Names.of([])) == 0
    # integers, slices and arrays are indices
    assert names[-1] == names[np.int64(3)] == "a-b/x"
    assert names[1:3] == WORDS[1:3]
    assert names[np.array([3, 0])] == ["a-b/x", "a"]
    with pytest.raises(IndexError):
        names[4]


def test_names_equal_the_same_in_the_same_order():
    assert Names.of(WORDS) == WORDS == pickle.loads(pickle.dumps(Names.of(WORDS)))
    for unequal_names in (
        WORDS[::-1],
        WORDS[:3],
        list(WORDS[:3]) + ["longer than any"],
    ):
        assert Names.of(WORDS) != unequal_names
        assert unequal_names != Names.of(WORDS)


def test_a_name_that_is_not_utf_8_is_refused():
    with pytest.raises(BrainhiveError, match=r"'caf\\udce9'"):
        Names.of(["fine", os.fsdecode(b"caf\xe9")])


IDS = ["a/x", "b/a/x", "b/y", "été", "c/z"]


@pytest.mark.parametrize(
    ("name", "row"),
    [
        # an equal id wins over ends of ids
        ("a/x", 0),
        ("b/a/x", 1),
        ("y", 2),
        ("/home/me/b/y.PNG", 2),
        ("home\\b\\y.jpeg", 2),
        ("e\u0301te\u0301", 3),
        (" c/z ", 4),
        ("d/z", -1),
        ("y.txt", -1),
        ("", -1),
    ],
)
def test_a_name_stands_for_a_picture_or_for_none(name, row):
    rows, unknown = match_names([name, "c/z"], IDS)
    assert rows.tolist() == [row, 4]
    assert unknown == ([name] if row < 0 else [])


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("q/a/x.jpg", 0),
        ("/home/me/other/y.png", 2),
        ("Q\\c\\z.JPG", 4),
        ("q/b/z.jpg", 4),  # the only z
        ("q/d/x.jpg", -1),  # x of a or of b/a
        ("q/w.jpg", -1),
    ],
)
def test_a_name_in_other_folders_needs_a_folder_or_a_unique_end(name, row):
    for names in ([name], [name, "été"]):
        rows, unknown = match_names(names, IDS, allows_other_folders=True)
        assert rows[0] == row
        assert unknown == ([name] if row < 0 else [])
    assert match_names(["q/b/z.jpg"], IDS)[0].tolist() == [-1]


def test_names_of_other_folders_for_one_picture_have_no_row():
    names = ["p/cat/1.jpg", "q/cat/1.jpg", "dog/2"]
    image_ids = ["train/cat/1", "train/dog/2"]
    rows, unknown = match_names(names, image_ids, allows_other_folders=True)
    assert rows.tolist() == [-1, -1, 1]
    assert not unknown
    # a name with all folders of the picture is certain
    names = ["x/train/cat/1.jpg", "q/cat/1.jpg"]
    rows, unknown = match_names(names, image_ids, allows_other_folders=True)
    assert rows.tolist() == [0, -1]
    assert not unknown
    with pytest.raises(BrainhiveError, match="b/a could be x/b/a or y/b/a"):
        match_names(["q/b/a"], ["x/b/a", "y/b/a"], allows_other_folders=True)


@pytest.mark.parametrize(
    ("name", "row"),
    [("face", 0), ("face.png", 0), (" face\t", 0), ("13.0", 1), ("cue/face", -1)],
)
def test_categories_match_by_whole_names(name, row):
    for allows_other_folders in (False, True):
        rows, unknown = match_names(
            [name],
            ["face", "13", "x/house"],
            are_categories=True,
            allows_other_folders=allows_other_folders,
        )
        assert rows.tolist() == [row]
        assert unknown == ([name] if row < 0 else [])
    assert match_names(["house"], ["x/house"], are_categories=True)[0] == [-1]


def test_an_id_may_end_like_the_name_of_a_file():
    rows, unknown = match_names(["a.png", "x/b.png", "b"], ["a.png", "a", "b"])
    assert rows.tolist() == [0, 2, 2]
    assert not unknown


def test_equal_characters_count_before_composed_characters():
    image_ids = ["e\u0301", "\u00e9"]
    assert match_ids(image_ids, image_ids, "store").tolist() == [0, 1]
    with pytest.raises(BrainhiveError, match="could be"):
        match_names(["\u00e9.png"], image_ids)


def test_names_of_several_pictures_or_of_one_twice_are_refused():
    with pytest.raises(BrainhiveError):
        match_names(["x"], IDS)
    assert match_names(["y", "b/y", "none", "none"], IDS)[0].tolist() == [2, 2, -1, -1]
    with pytest.raises(BrainhiveError):
        match_names(["y", "b/y"], IDS, each_once=True)
    rows, _ = match_names(["y", "none", "none", "z"], IDS, each_once=True)
    assert rows.tolist() == [2, -1, -1, 4]


@pytest.mark.parametrize(
    "rename", [str, lambda name: f"/data/{name}.jpg", lambda name: name[2:]]
)
def test_repeated_file_names_cost_no_more_than_others(rename):
    calls = []
    for folders in (40, 80):
        image_ids = [
            f"x/{folder}/{number}" for folder in range(folders) for number in "12"
        ]
        names = list(map(rename, image_ids))
        count = 0

        def count_call(*_):
            nonlocal count
            count += 1

        sys.setprofile(count_call)
        try:
            rows, unknown = match_names(names, image_ids, each_once=True)
        finally:
            sys.setprofile(None)
        assert rows.tolist() == list(range(2 * folders))
        assert not unknown
        calls.append(count)
    # the second run has twice as many names
    assert calls[1] < 2.2 * calls[0]


def test_a_name_of_very_many_pictures_names_the_first_of_them():
    image_ids = [f"{folder}/a/b" for folder in "zyxwv"]
    with pytest.raises(BrainhiveError) as error:
        match_names(["q/y/a/b", "a/b", "b"], image_ids)
    assert "z/a/b or y/a/b or x/a/b, b" in str(error.value)


@pytest.mark.parametrize(
    ("names", "total", "summary"),
    [
        (["a", "b"], None, "2: a, b"),
        (["a", "b", "c"], 9, "3 of 9: a, b, c"),
        (["a", "b\n", "c", "d"], None, "4: a, 'b\\n', c …"),
        ([], None, "0: "),
    ],
)
def test_at_most_three_names_are_shown_in_one_line(names, total, summary):
    assert summarise_names(names, total) == summary


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([3, 1, 2, 5, 5], "1–3, 5"),
        ([4], "4"),
        ([], ""),
        ([7, 9, 8, 11, 12], "7–9, 11–12"),
    ],
)
def test_whole_numbers_are_written_as_spans(numbers, text):
    assert format_ranges(numbers) == text


def test_names_are_plain_in_tables_events_and_recipes():
    assert [normalise_name(name) for name in ("13.0", "-2.", "1.50", "e\u0301")] == [
        "13",
        "-2",
        "1.50",
        "\u00e9",
    ]
    assert to_image_id(" a\\b.c.JPG ") == "a/b.c"
    assert to_image_id("a.txt") == "a.txt"
    assert to_table_cell('\t"a" "b"\x85 ') == '\'a" "b"'
    assert read_category(" 5.0.png\n") == "5"


def test_the_digest_of_names_depends_on_their_order_and_ends():
    digests = [
        Names.of(names).digest
        for names in (["ab", "c"], ["a", "bc"], ["c", "ab"], ["abc"])
    ]
    assert len(set(digests)) == 4
    assert digests[0] == "6c032e631d39a14d"
    assert Names.of(["ab", "c", "longer"])[:2].digest == digests[0]


def test_an_id_without_a_picture_is_refused():
    with pytest.raises(MissingData, match=r"store .*'w', of 5: a/x, b/a/x, b/y"):
        match_ids(["a/x", "w"], IDS, "store")
