"""A brain model with a diffusion prior: what is predicted, what is learned and what is
decoded.
"""

import pytest
import torch

from brainhive_cli.models import backbones
from brainhive_cli.models.backbones import with_prior
from brainhive_cli.models.heads import Head
from brainhive_cli.models.losses import LossContext
from brainhive_cli.models.signal_spec import SignalSpec

SPEC = SignalSpec((), 1, (1, 2), (7, 7))
HEADS = {"image": Head((3, 16)), "latent": Head((4, 2, 2))}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return backbones.build(with_prior.TINY, SPEC, HEADS)


def test_the_prior_is_of_the_heads_size_and_its_gradient_reaches_the_brain_model(model):
    signal, subject = torch.randn(4, 7, 1), torch.zeros(4, dtype=torch.long)
    targets = {"image": torch.randn(4, 3, 16), "latent": torch.randn(4, 4, 2, 2)}

    predicted, replaced = backbones.learn(
        model, HEADS, signal, subject, targets, LossContext()
    )
    torch.nn.functional.mse_loss(predicted["denoised"], replaced["denoised"]).backward()

    assert {name: each.shape for name, each in predicted.items()} == {
        "image": (4, 3, 16),
        "latent": (4, 4, 2, 2),
        "denoised": (4, 3, 16),
    }
    assert torch.equal(
        replaced["denoised"], targets["image"] * 4
    ) and replaced.keys() == {"denoised"}
    fixed = {n for n, weight in model.prior.named_parameters() if weight.grad is None}
    assert fixed == {"net.causal_transformer.layers.0.0.rotary_emb.freqs"}
    assert model.brain.weight.grad.abs().sum() > 0


def test_tokens_are_sampled_by_the_seed_of_each_row_and_other_heads_predicted(
    model, monkeypatch
):
    monkeypatch.setattr(with_prior, "SIGNALS_PER_BATCH", 2)
    model, signal, subject = (
        model.eval(),
        torch.randn(5, 7, 1),
        torch.ones(5, dtype=torch.long),
    )

    found = backbones.decode(model, HEADS, signal, subject, range(5)).tensors
    other = backbones.decode(model, HEADS, signal, subject, range(1, 6)).tensors
    alone = backbones.decode(model, HEADS, signal[3:4], subject[3:4], [3]).tensors
    with torch.no_grad():
        predicted = backbones.predict(model, HEADS, signal, subject)

    assert torch.equal(found["latent"], predicted["latent"])
    assert not torch.allclose(found["image"], predicted["image"], atol=0.1)
    assert not torch.allclose(found["image"], other["image"], atol=0.01)
    assert torch.allclose(found["image"][3:4], alone["image"], atol=1e-5)
