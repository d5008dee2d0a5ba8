"""Predictions, training and sampling of a brain model with a diffusion prior."""

import pytest
import torch

from brainhive_cli.models import Head, LossContext, SignalSpec, backbones
from brainhive_cli.models.backbones import with_prior

SPEC = SignalSpec((), 1, (1, 2), (7, 7))
HEADS = {"image": Head((3, 16)), "latent": Head((4, 2, 2))}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return backbones.build(with_prior.TINY, SPEC, HEADS)


def test_a_training_step_trains_prior_and_brain_model(model):
    signal = torch.randn(4, 7, 1)
    subject = torch.zeros(4, dtype=torch.long)
    targets = {"image": torch.randn(4, 3, 16), "latent": torch.randn(4, 4, 2, 2)}

    predicted, replaced = backbones.learn(
        model, HEADS, signal, subject, targets, LossContext()
    )
    torch.nn.functional.mse_loss(predicted["denoised"], replaced["denoised"]).backward()

    # the prior has the size of its head
    assert {name: value.shape for name, value in predicted.items()} == {
        "image": (4, 3, 16),
        "latent": (4, 4, 2, 2),
        "denoised": (4, 3, 16),
    }
    assert replaced.keys() == {"denoised"}
    assert torch.equal(replaced["denoised"], targets["image"] * 4)
    fixed = {n for n, weight in model.prior.named_parameters() if weight.grad is None}
    assert fixed == {"net.causal_transformer.layers.0.0.rotary_emb.freqs"}
    assert model.brain.weight.grad.abs().sum() > 0


def test_tokens_are_sampled_by_the_seed_of_each_row(model, monkeypatch):
    monkeypatch.setattr(with_prior, "SIGNALS_PER_BATCH", 2)
    model.eval()
    signal = torch.randn(5, 7, 1)
    subject = torch.ones(5, dtype=torch.long)

    decoded = backbones.decode(model, HEADS, signal, subject, range(5)).tensors
    with_other_seeds = backbones.decode(model, HEADS, signal, subject, range(1, 6))
    single = backbones.decode(model, HEADS, signal[3:4], subject[3:4], [3])
    with torch.no_grad():
        predicted = backbones.predict(model, HEADS, signal, subject)

    image = decoded["image"]
    assert torch.equal(decoded["latent"], predicted["latent"])
    assert not torch.allclose(image, predicted["image"], atol=0.1)
    assert not torch.allclose(image, with_other_seeds.tensors["image"], atol=0.01)
    assert torch.allclose(image[3:4], single.tensors["image"], atol=1e-5)
