"""Names: what goes in comes out, in any script; processes share what they read."""

import gc
import multiprocessing
import os
import pickle
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.stores.ids import Names

WORDS = ["a", "été/ñ", "画像/猫", "a-b/x"]
SMAPS = Path("/proc/self/smaps_rollup")


@pytest.mark.parametrize("made_of", [list, tuple, iter, Names.of])
def test_names_in_any_script_come_back(made_of):
    found = Names.of(made_of(WORDS))

    assert len(found) == 4 and list(found) == WORDS and [found[row] for row in range(4)] == WORDS
    assert found.index("画像/猫") == 2 and "b" not in found
    assert len(Names.of([])) == 0


def test_some_are_chosen_by_place():
    found = Names.of(WORDS)

    assert found[-1] == found[np.int64(3)] == "a-b/x"
    assert found[1:3] == WORDS[1:3] and found[np.array([3, 0])] == ["a-b/x", "a"]
    with pytest.raises(IndexError):
        found[4]


@pytest.mark.parametrize("made_of", [list, tuple, Names.of])
def test_names_equal_the_same_in_the_same_order(made_of):
    assert Names.of(WORDS) == made_of(WORDS) and made_of(WORDS) == pickle.loads(pickle.dumps(Names.of(WORDS)))
    for others in (WORDS[::-1], WORDS[:3], [*WORDS[:3], "longer than any"], []):
        assert Names.of(WORDS) != made_of(others) and made_of(others) != Names.of(WORDS)


def test_a_name_that_is_not_utf_8_is_refused():
    with pytest.raises(BrainhiveError, match=r"'caf\\udce9' is not UTF-8"):
        Names.of(["fine", os.fsdecode(b"caf\xe9")])


def copied_mb(names: Sequence[str]) -> float:
    """Fork, read all names there, and say how much memory became that process's own meanwhile."""

    def read() -> None:
        before = own_kb()
        for row in range(len(names)):
            names[row].rfind("/")
        telling.send((own_kb() - before) / 1024)

    heard, telling = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=read)
    gc.freeze()  # as while decoding
    child.start()
    gc.unfreeze()
    telling.close()
    found = heard.recv()
    child.join()
    return found


def own_kb() -> int:
    return int(re.search(r"Private_Dirty: +(\d+)", SMAPS.read_text())[1])


@pytest.mark.skipif(not SMAPS.exists(), reason="Linux alone says what a process has to itself")
def test_processes_share_the_names_that_they_read():
    words = [f"train/concept_{number // 1000:04d}/picture_{number:07d}" for number in range(100_000)]

    assert copied_mb(words) > 5  # as a list, nearly all of it
    assert copied_mb(Names.of(words)) < 1
