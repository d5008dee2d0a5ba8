"""Publishers' weights: renamed by tables, selected, counted, and brought to smaller models."""

import pytest
import torch
from torch import nn

from brainhive_cli.core.errors import MissingData
from brainhive_cli.models.foreign_weights import adapt, below, count_numbers, refuse_absent, rename

STATE = {
    name: torch.zeros(1) for name in ("net.0.weight", "net.1.weight", "net.1.bias", "head.weight", "step")
}


def test_the_first_pattern_decides_and_other_names_stay() -> None:
    table = {r"net\.0\.": "first.", r"net\.(\d+)\.": r"blocks.\1.", r"head\.": None}

    assert [*rename(STATE, table)] == ["first.weight", "blocks.1.weight", "blocks.1.bias", "step"]


def test_a_pattern_is_of_the_beginning_of_a_name_and_an_empty_one_of_every_name() -> None:
    assert [*rename({"a.b.a.c": torch.zeros(1)}, {r"a\.": ""})] == ["b.a.c"]
    assert [*rename({"x": torch.zeros(1)}, {r"weight": None, "": "backbone."})] == ["backbone.x"]


def test_weights_below_a_prefix_lose_it_and_are_counted_by_their_numbers() -> None:
    assert [*below(STATE, "net.")] == ["0.weight", "1.weight", "1.bias"]
    assert count_numbers(STATE, r"net\.(\d+)\.") == 2


def test_a_module_that_says_how_gets_the_weights_below_its_prefix_adapted() -> None:
    class WithoutBias(nn.Module):
        def adapted(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {name: value for name, value in state.items() if not name.endswith("bias")}

    assert [*adapt(WithoutBias(), STATE, "net.")] == ["head.weight", "step", "net.0.weight", "net.1.weight"]
    assert adapt(nn.Identity(), STATE, "net.") == STATE


def test_absent_weights_are_counted_and_the_first_is_named():
    with pytest.raises(MissingData, match=r"folder: 0 of 2 .*; first missing a\.b"):
        refuse_absent({"a.b", "c"}, 2, "folder")
