"""Tests of the markers of recordings: their short names, and their pictures."""

from collections import Counter
from pathlib import Path

from brainhive_cli.data.recordings.markers import (
    RecordedMarkers,
    find_unlisted,
    match_exact_names,
    shorten_markers,
)

IMAGE_IDS = ["train/cat/cat_01", "train/cat/02", "train/dog/02", "test/owl/owl_07"]


def test_codes_of_triggers_are_their_numbers():
    names = shorten_markers(
        ["Stimulus/S 17", "Stimulus/S  7", "Response/R  1", "Comment/S 9", "face"]
    )
    assert list(names.values()) == ["17", "7", "R 1", "9", "face"]


def test_markers_of_the_same_short_name_stay_long():
    names = shorten_markers(["Stimulus/A", "Comment/A", "Stimulus/B"])
    assert list(names.values()) == ["Stimulus/A", "Comment/A", "B"]


def test_only_a_whole_path_or_a_unique_file_name_is_a_picture():
    names = ["train/cat/cat_01", "owl_07.png", "02", "cat", "1", "cat/cat_01"]
    matches = match_exact_names({name: name for name in names}, IMAGE_IDS)
    assert matches == {
        "train/cat/cat_01": "train/cat/cat_01",
        "owl_07.png": "test/owl/owl_07",
    }


def test_markers_are_counted_over_recordings_in_natural_order():
    counts = {
        Path("a.vhdr"): Counter({"Stimulus/S 10": 2, "Stimulus/S  9": 1}),
        Path("b.vhdr"): Counter({"Stimulus/S 10": 3}),
    }
    sources = dict.fromkeys(counts, "annotations")
    markers = RecordedMarkers(counts, sources, {}).list_markers(IMAGE_IDS)
    assert [(m.name, m.count, m.recordings) for m in markers] == [
        ("9", 1, 1),
        ("10", 5, 2),
    ]


def test_a_table_lists_markers_in_any_of_their_forms(tmp_path):
    table = tmp_path / "events.csv"
    table.write_text("event,picture\nStimulus/S  7,\n008,cat\n")
    assert find_unlisted(table, ["7", "8", "9"]) == ["9"]
