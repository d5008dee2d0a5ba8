"""The CLIP loss: the reference's value and gradients, and what it must feel."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.models.losses import ClipConfig, LossContext


def test_value_and_every_gradient_equal_the_reference(golden: Path):
    """Golden values: the loss of BrainHiVE's repository."""
    reference = load_file(golden / "clip_loss.safetensors")
    brain, image = (reference[name].requires_grad_() for name in ("brain", "image"))

    loss_of = ClipConfig().build()
    loss_of.logit_scale.data = reference["logit_scale"].squeeze()

    loss = loss_of(brain, image, LossContext())
    loss.backward()

    assert loss.detach() == pytest.approx(reference["loss"].item(), abs=1e-5)
    for name, given in {"brain": brain, "image": image, "logit_scale": loss_of.logit_scale}.items():
        assert given.grad is not None
        assert torch.allclose(given.grad, reference[f"grad_{name}"].reshape(given.shape), atol=1e-5)


def test_shuffled_pairs_cost_more_and_lengths_nothing():
    torch.manual_seed(0)
    loss, tokens, context = ClipConfig().build(), torch.randn(8, 16), LossContext()

    paired = loss(tokens, tokens, context)

    assert paired < loss(tokens, tokens.roll(1, 0), context)
    assert torch.isclose(paired, loss(tokens * 5, tokens, context), atol=1e-5)


def test_the_cosine_weight_costs_what_the_pairs_lack_in_cosine():
    torch.manual_seed(0)
    signal, image = torch.randn(8, 16), torch.randn(8, 16)
    apart = 1 - torch.cosine_similarity(signal, image).mean()

    plain, pulled = (
        ClipConfig(cosine_weight=cosine_weight).build()(signal, image, LossContext())
        for cosine_weight in (0.0, 5.0)
    )

    assert torch.isclose(pulled - plain, 5 * apart, atol=1e-5)


def test_constant_tokens_cost_the_logarithm_of_the_batch():
    ones = torch.ones(8, 4)

    assert ClipConfig().build()(ones, ones, LossContext()).item() == pytest.approx(math.log(8), abs=1e-5)
