"""The shared blocks: the residual MLP and the fusion encoder."""

import pytest
import torch

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.blocks import Dropout, FusionEncoder, ResidualMLP


def test_a_residual_mlp_whose_mlp_is_silent_only_normalises():
    block = ResidualMLP(8, 16, dropout=0.1).eval()
    block.ff.w2.weight.data.zero_()
    x = torch.randn(3, 8)

    assert torch.allclose(block(x), torch.nn.functional.layer_norm(x, (8,), eps=1e-6))


def test_dropout_works_in_training_only():
    block, x = ResidualMLP(8, 64, dropout=0.5), torch.randn(3, 8)

    assert not torch.equal(block.train()(x), block(x))
    assert torch.equal(block.eval()(x), block(x))


def test_a_fusion_encoder_does_not_mind_the_order_of_its_embeddings():
    torch.manual_seed(0)
    fuser = FusionEncoder({"a": 6, "b": 4}, dim=8, hidden=16)
    a, b = torch.randn(5, 6), torch.randn(5, 4)

    assert torch.equal(fuser({"a": a, "b": b}), fuser({"b": b, "a": a}))
    assert not torch.allclose(fuser({"a": a, "b": b}), fuser({"a": a, "b": torch.zeros(5, 4)}))


@pytest.mark.parametrize("given", [{"a": 6}, {"a": 6, "b": 5}, {"a": 6, "b": 4, "c": 3}, {}])
def test_a_fusion_encoder_names_the_encoders_it_was_made_for(given):
    fuser = FusionEncoder({"a": 6, "b": 4}, dim=8, hidden=16)

    with pytest.raises(BrainhiveError, match=r"made for a \(6\), b \(4\), not for"):
        fuser({key: torch.zeros(1, width) for key, width in given.items()})


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
