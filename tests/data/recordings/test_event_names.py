"""Pictures that events stand for."""

from types import SimpleNamespace

import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.recordings.event_names import NOT_IN_TABLE, EventNames

IDS = ["train/ant", "train/boat", "train/car"]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("event,picture\n1,ant.png\n2,boat.png\n3,car.png\n")
    return path


def match(path, *events):
    header = SimpleNamespace(events=list(enumerate(events)), events_without_onset=())
    return EventNames(path, IDS).match([header])


@pytest.mark.parametrize("other_marker", ("Response", "Comment"))
def test_a_number_stands_for_stimuli_and_not_for_other_markers(table, other_marker):
    rows, left_over = match(table, "Stimulus/1", "Stimulus/S  2", f"{other_marker}/3")
    assert rows == {"Stimulus/1": 0, "Stimulus/S  2": 1}
    assert left_over[NOT_IN_TABLE] == {f"{other_marker}/3": 1}


def test_markers_of_one_type_alone_are_pictures(table):
    assert match(table, "Comment/1", "Comment/3")[0] == {"Comment/1": 0, "Comment/3": 2}


def test_comments_and_responses_alone_are_refused(table):
    with pytest.raises(BrainhiveError, match=r"events\.csv.*Comment.*Response"):
        match(table, "Comment/1", "Response/2")


def test_a_marker_that_the_table_lists_with_its_type_counts(table):
    table.write_text(table.read_text() + "Response/3,car.png\nR  2,boat.png\n")
    rows, _ = match(table, "Stimulus/1", "Response/3", "Response/R  2", "Response/1")
    assert rows == {"Stimulus/1": 0, "Response/3": 2, "Response/R  2": 1}


def test_names_of_pictures_are_those_of_stimuli_too():
    rows, _ = match(None, "Stimulus/train/ant", "Response/train/boat")
    assert rows == {"Stimulus/train/ant": 0}


def test_a_single_response_of_a_stream_is_no_picture(table):
    names = EventNames(table, IDS)
    assert (names.find_row("Comment/1"), names.find_row("Response/1")) == (0, None)


def test_numbers_that_may_have_lost_their_zeros_are_refused(tmp_path):
    table = tmp_path / "events.csv"
    ids = ["train/egg/7", "train/boat/0007", "test/12"]
    table.write_text("event,picture\n1,7\n2,7\n3,12\n")
    with pytest.raises(BrainhiveError) as caught:
        EventNames(table, ids)
    assert "train/egg/7 or train/boat/0007" in caught.value.message
    table.write_text("event,picture\n1,7\n2,0007\n3,12\n")
    assert [EventNames(table, ids).find_row(code) for code in "123"] == [0, 1, 2]


def test_rows_without_a_picture_are_counted(tmp_path):
    table = tmp_path / "events.csv"
    table.write_text("event,picture\n1,ant.png\n2,\nn/a,boat.png\n,\n")
    (line,) = EventNames(table, IDS).account.describe()
    assert line.startswith("2 rows")
    assert "events.csv" in line


def test_a_category_called_na_is_no_empty_cell(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("event,picture\n1,NO\n2,NA\n3,nan\n")
    names = EventNames(path, ["NO", "NA"], are_categories=True)
    assert names.table == {"1": "NO", "2": "NA"}
    assert EventNames(path, ["NO", "SE"]).table == {"1": "NO"}


def test_events_that_name_folders_are_said_to_be_categories(tmp_path):
    """Only if there are two folders or more, as pictures may be in a single one."""
    ids = ["train/face/a", "train/face/b", "train/house/a"]
    for events, is_category in ((["face", "house"], True), (["face"], False)):
        names = EventNames(None, ids)
        match = names.match(
            [SimpleNamespace(events=list(enumerate(events)), events_without_onset=())]
        )
        with pytest.raises(BrainhiveError) as caught:
            names.require_match(match, tmp_path / "a.fif", "annotations")
        assert ("categories" in caught.value.hint) == is_category
        assert ("[face, house]" in caught.value.hint) == is_category


def test_two_codes_are_joined_if_the_table_has_their_pair(table):
    table.write_text("event,picture\n12/200,ant.png\n12/3,car.png\n")
    names = EventNames(table, IDS)
    events = [
        (0, "Stimulus/S 12"),
        (16, "Stimulus/S200"),
        (100, "12"),
        (116, "3"),
        (150, "3"),  # its first code was lost
        (200, "12"),
        (300, "200"),  # too late
        (400, "255"),
        (416, "12"),
        (432, "200"),
    ]
    assert names.join_codes(events, rate_hz=500) == (
        (0, "12/200"),
        (100, "12/3"),
        (150, "3"),
        (200, "12"),
        (300, "200"),
        (400, "255"),
        (416, "12/200"),
    )
    assert names.find_pictures(["12", "S200", "255"]) == ["12", "S200"]
