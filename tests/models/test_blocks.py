"""Residual MLP and fusion encoder."""

import pytest
import torch

from brainhive_cli.models.blocks import Dropout


def test_dropout_drops_so_many_and_keeps_the_mean():
    dropout = Dropout(0.3)
    x = torch.ones(400, 1001, requires_grad=True)
    torch.manual_seed(0)
    dropped = dropout(x)
    dropped.sum().backward()
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    # 5 sd of 400,400 draws
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.004)
    assert torch.equal(x.grad, dropped)
    assert not torch.equal(dropout(x), dropped)
    torch.manual_seed(0)
    assert torch.equal(dropout(x), dropped)
    assert torch.equal(dropout.eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
