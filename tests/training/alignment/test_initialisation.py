"""Weights that a model begins with."""

import numpy as np
import pytest
import torch
from cell_data import PICTURES, data_of, layout_of

from brainhive_cli.models.blocks import FusionEncoder
from brainhive_cli.training.alignment.batches import CellData
from brainhive_cli.training.alignment.initialisation import initial_aligner


@pytest.fixture
def data() -> CellData:
    return data_of(np.zeros((PICTURES, 8), np.float32))


@pytest.mark.parametrize("init", ["torch", "reference"])
def test_the_seed_decides_all_weights_and_whatever_was_drawn_none(
    data: CellData, init: str
) -> None:
    weights = []
    for seed in (1, 1, 2):
        torch.rand(7)
        model = initial_aligner(seed, layout_of(data), data, init)  # type: ignore[arg-type]
        weights.append(model.state_dict())
    one, again, other = weights
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    drawn = [name for name, value in one.items() if value.ndim > 1]
    assert drawn and not any(torch.equal(one[name], other[name]) for name in drawn)


def test_the_fuser_of_a_prior_is_taken_over_and_frozen(data: CellData) -> None:
    fuser = FusionEncoder({"e": 8}, 16, 16)
    for parameter in fuser.parameters():
        torch.nn.init.normal_(parameter)
    with_prior = CellData(data.trials, data.targets, data.held_out, fuser)

    model = initial_aligner(1, layout_of(data), with_prior, "torch")

    assert model.fuser is not None
    for name, parameter in model.fuser.named_parameters():
        assert torch.equal(parameter, fuser.state_dict()[name])
        assert not parameter.requires_grad
    assert all(parameter.requires_grad for parameter in model.backbone.parameters())
