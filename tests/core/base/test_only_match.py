"""The only reading that fits is chosen; several with other values are refused."""

import pytest

from brainhive_cli.core.base import BrainhiveError, choose_only


def test_the_only_reading_is_chosen():
    assert choose_only({"by name": [1, 2]}, "sub-01.csv", "rename one") == [1, 2]
    assert choose_only({}, "sub-01.csv", "rename one") is None


def test_equal_readings_are_one():
    readings = {"by name": [1, 2], "by row": [1, 2]}
    assert choose_only(readings, "sub-01.csv", "rename one") == [1, 2]


def test_different_readings_are_named():
    with pytest.raises(BrainhiveError, match=r"sub-01\.csv.*by name.*by row") as raised:
        choose_only({"by name": [1], "by row": [2]}, "sub-01.csv", "rename one")
    assert raised.value.hint == "rename one"
