"""Names: what goes in comes out, in any script."""

import os
import pickle

import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.stores.ids import Names

WORDS = ["a", "été/ñ", "画像/猫", "a-b/x"]


def test_names_in_any_script_come_back():
    found = Names.of(WORDS)

    assert (
        len(found) == 4
        and list(found) == WORDS
        and [found[row] for row in range(4)] == WORDS
    )
    assert found.index("画像/猫") == 2 and "b" not in found
    assert len(Names.of([])) == 0
    # some are chosen by place
    assert found[-1] == found[np.int64(3)] == "a-b/x"
    assert found[1:3] == WORDS[1:3] and found[np.array([3, 0])] == ["a-b/x", "a"]
    with pytest.raises(IndexError):
        found[4]


def test_names_equal_the_same_in_the_same_order():
    assert Names.of(WORDS) == WORDS == pickle.loads(pickle.dumps(Names.of(WORDS)))
    for others in (WORDS[::-1], WORDS[:3], [*WORDS[:3], "longer than any"]):
        assert Names.of(WORDS) != others and others != Names.of(WORDS)


def test_a_name_that_is_not_utf_8_is_refused():
    with pytest.raises(BrainhiveError, match=r"'caf\\udce9' is not UTF-8"):
        Names.of(["fine", os.fsdecode(b"caf\xe9")])
