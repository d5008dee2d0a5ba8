"""Set expressions over regions of voxels, and their controls."""

import numpy as np
import pytest

from brainhive_cli.core.base.errors import RecipeError
from brainhive_cli.core.recipes.recipe import validate
from brainhive_cli.data.signals import Signal, Trials, Voxels
from brainhive_cli.data.signals.selection import find_stream_masks

MEMBERS = {
    "nsdgeneral": range(10),
    "prf-visualrois": [0, 1, 2, 3, 11],
    "V1v": [0, 1],
    "FFA-1": [7, 8],
    "OWFA": [],
}
SPACE = Voxels(
    {name: np.isin(np.arange(12), list(places)) for name, places in MEMBERS.items()}
)
PAPER = {"spatial": "nsdgeneral & prf-visualrois", "semantic": "nsdgeneral - spatial"}


def find_sets(control="none", **expressions):
    masks = find_stream_masks(expressions, SPACE, control)
    return {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()}


def test_a_later_set_may_use_an_earlier_one():
    assert find_sets(**PAPER) == {
        "spatial": [0, 1, 2, 3],
        "semantic": [4, 5, 6, 7, 8, 9],
    }


def test_sets_are_those_of_python():
    for expression, channel_rows in (
        ("v1V", [0, 1]),
        ("FFA-1 | prf-visualrois & V1v", [0, 1, 7, 8]),
        ("(FFA-1 | prf-visualrois) & nsdgeneral", [0, 1, 2, 3, 7, 8]),
        ("nsdgeneral - (prf-visualrois - V1v)", [0, 1, 4, 5, 6, 7, 8, 9]),
    ):
        assert find_sets(one=expression) == {"one": channel_rows}


def test_what_is_no_set_is_refused_with_the_recipe():
    for expression in ("", "V1v &", "V1v V1v", "(V1v"):
        with pytest.raises(RecipeError) as caught:
            validate(Signal, {"region_split": {"one": expression}})
        assert "& | - and parentheses" in caught.value.hint


def test_an_unknown_region_is_named_with_the_nearest_region():
    with pytest.raises(RecipeError, match="'prf-visualroi'") as caught:
        find_sets(one="prf-visualroi")
    assert "prf-visualrois?" in caught.value.hint
    with pytest.raises(RecipeError, match="'nsdgeneral-V1v'") as caught:
        find_sets(one="nsdgeneral-V1v")
    assert "spaces" in caught.value.hint


def test_swapped_sets_are_exchanged_and_all_are_everything():
    assert find_sets("swapped", **PAPER) == {
        "spatial": [4, 5, 6, 7, 8, 9],
        "semantic": [0, 1, 2, 3],
    }
    assert find_sets("all", **PAPER) == {name: list(range(10)) for name in PAPER}


def test_random_sets_have_sizes_and_overlaps_of_the_true_ones():
    overlapping = {"spatial": "prf-visualrois", "semantic": "V1v | FFA-1"}
    random_sets = find_sets("random", **overlapping)

    assert random_sets == find_sets("random", **overlapping) != find_sets(**overlapping)
    assert [len(channel_rows) for channel_rows in random_sets.values()] == [5, 4]
    assert len(set(random_sets["spatial"]) & set(random_sets["semantic"])) == 2
    assert set(random_sets["spatial"]) | set(random_sets["semantic"]) == {
        0,
        1,
        2,
        3,
        7,
        8,
        11,
    }


def test_a_selection_joins_the_voxels_of_several_regions():
    signal = np.arange(2 * 12, dtype=np.float32).reshape(2, 1, 12, 1)
    recording = Trials.from_repetitions(
        signal, ["a", "b"], SPACE, np.zeros(1), None, "z-score"
    )
    split = Signal(region_split={"semantic": "FFA-1", "spatial": "prf-visualrois"})

    selection = split.select(recording, ["V1v"], "here")

    rows = [0, 1, 2, 3, 7, 8, 11]
    assert selection.rows.tolist() == rows
    assert np.array_equal(selection.averages, signal[:, 0, rows])
    assert selection.regions["semantic"] == (4, 5)
    assert selection.regions["spatial"] == (0, 1, 2, 3, 6)
    assert selection.regions["nsdgeneral"] == (0, 1, 2, 3, 4, 5)
