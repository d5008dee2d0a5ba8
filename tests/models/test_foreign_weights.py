"""Publishers' weights: renamed by tables, selected, counted, and brought to smaller models."""

import pytest
import torch

from brainhive_cli.core.errors import MissingData
from brainhive_cli.models.foreign_weights import below, count_numbers, refuse_absent, rename

STATE = {
    name: torch.zeros(1) for name in ("net.0.weight", "net.1.weight", "net.1.bias", "head.weight", "step")
}


def test_the_first_pattern_decides_and_other_names_stay() -> None:
    table = {r"net\.0\.": "first.", r"net\.(\d+)\.": r"blocks.\1.", r"head\.": None}

    assert [*rename(STATE, table)] == ["first.weight", "blocks.1.weight", "blocks.1.bias", "step"]
    assert [*rename({"a.b.a.c": torch.zeros(1)}, {r"a\.": ""})] == ["b.a.c"]
    assert [*rename({"x": torch.zeros(1)}, {r"weight": None, "": "backbone."})] == ["backbone.x"]
    assert [*below(STATE, "net.")] == ["0.weight", "1.weight", "1.bias"]
    assert count_numbers(STATE, r"net\.(\d+)\.") == 2


def test_absent_weights_are_counted_and_the_first_is_named():
    with pytest.raises(MissingData, match=r"folder: 0 of 2 .*; first missing a\.b"):
        refuse_absent({"a.b", "c"}, 2, "folder")
