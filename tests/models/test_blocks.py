"""The shared blocks: the residual MLP and the fusion encoder."""

import pytest
import torch

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.blocks import Dropout, FusionEncoder


def test_a_fusion_encoder_does_not_mind_the_order_of_its_embeddings_and_names_those_it_takes():
    torch.manual_seed(0)
    fuser = FusionEncoder({"a": 6, "b": 4}, dim=8, hidden=16)
    a, b = torch.randn(5, 6), torch.randn(5, 4)

    assert torch.equal(fuser({"a": a, "b": b}), fuser({"b": b, "a": a}))
    assert not torch.allclose(fuser({"a": a, "b": b}), fuser({"a": a, "b": torch.zeros(5, 4)}))
    for given in ({"a": a}, {"a": a, "b": torch.zeros(5, 5)}, {"a": a, "b": b, "c": b}):
        with pytest.raises(BrainhiveError, match=r"made for a \(6\), b \(4\), not for"):
            fuser(given)


def test_dropout_drops_so_many_and_keeps_the_mean() -> None:
    dropout, x = Dropout(0.3), torch.ones(400, 1001, requires_grad=True)
    torch.manual_seed(0)
    dropped = dropout(x)
    dropped.sum().backward()
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.004)  # 5 sd of 400,400 draws
    assert torch.equal(x.grad, dropped)
    assert not torch.equal(dropout(x), dropped)
    torch.manual_seed(0)
    assert torch.equal(dropout(x), dropped)
    assert torch.equal(dropout.eval()(x), x) and torch.equal(Dropout(0.0)(x), x)
