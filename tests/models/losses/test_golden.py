"""Losses of published retrieval methods, compared with their repositories."""

import math

import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes import parts
from brainhive_cli.models.losses import (
    ClipConfig,
    LossContext,
    MmdConfig,
    compute_mmd_kernel,
)

CLOSE = 5e-6
SAMGA = {"initial_logit_scale": math.log(1 / 0.07), "learn_scale": False}
LONG = {**SAMGA, "normalise_signal": False, "scale_by": "softplus"}
"""Signals keep their length, the scale is 2.727."""


def compare(kind, pair, context, **knobs):
    """Compute a loss and its gradients for predictions and targets."""
    predicted, target = (tensor.clone().requires_grad_() for tensor in pair)
    loss = parts.resolve("losses", {"kind": kind, **knobs}).build()(
        predicted, target, context
    )
    loss.backward()
    assert predicted.grad is not None
    assert target.grad is not None
    return loss.detach(), predicted.grad, target.grad


def test_samgas_losses_have_its_values_and_gradients(golden):
    tensors = load_file(golden / "methods/samga_loss.safetensors")
    cases = [
        ("clip", LONG, "", ("clip", "clip_grad_signal", "clip_grad_image")),
        ("clip", SAMGA, "", ("clip_both_normalised_exp",)),
        ("mmd", {}, "", ("mmd",)),
        (
            "mmd",
            {},
            "_near",
            ("mmd_near", "mmd_near_grad_signal", "mmd_near_grad_image"),
        ),
    ]
    for kind, knobs, end, expected in cases:
        loss_and_gradients = compare(
            kind,
            (tensors[f"signal{end}"], tensors[f"image{end}"]),
            LossContext(),
            **knobs,
        )
        for value, name in zip(loss_and_gradients, expected, strict=False):
            assert (value - tensors[f"expected.{name}"]).abs().max() < CLOSE, name


def test_softplus_makes_samgas_scale(golden):
    tensors = load_file(golden / "methods/samga_loss.safetensors")

    scale = ClipConfig(**LONG).build().scale(epoch=0)

    torch.testing.assert_close(scale.detach(), tensors["scale"])


def test_mmd_is_far_from_its_biased_estimate(golden):
    """Golden values: the biased estimate, which counts each row as its own pair."""
    tensors = load_file(golden / "methods/samga_loss.safetensors")
    biased, unbiased = (tensors[f"expected.mmd_near{end}"] for end in ("_biased", ""))

    value = MmdConfig().build()(
        tensors["signal_near"], tensors["image_near"], LossContext()
    )

    # nearer to the right value than a hundredth of the distance between the two
    assert (value - unbiased).abs() < 0.01 * (biased - unbiased).abs()
    assert (value - biased).abs() > 100 * CLOSE


def test_signals_of_a_stimulus_are_pairs_with_stimulus_positives(
    golden,
):
    tensors = load_file(golden / "methods/multi_positive.safetensors")
    pair = (tensors["signal"], tensors["image"])
    context = LossContext(stimuli=tensors["picture"])
    loss, *gradients = compare("clip", pair, context, **LONG, positives="stimulus")
    assert (loss - tensors["expected.loss"]).abs() < CLOSE
    for gradient, name in zip(gradients, ("signal", "image"), strict=True):
        assert (gradient - tensors[f"expected.grad_{name}"]).abs().max() < CLOSE
    loss_of_single_pairs = compare("clip", pair, LossContext(), **LONG)[0]
    single_stimuli = LossContext(stimuli=torch.arange(len(pair[0])))
    assert (
        compare("clip", pair, single_stimuli, **LONG, positives="stimulus")[0]
        == loss_of_single_pairs
        != loss
    )


def test_mmd_needs_two_rows():
    pair = torch.randn(1, 3), torch.randn(1, 3)
    with pytest.raises(BrainhiveError, match="one row"):
        compare("mmd", pair, LossContext())


def test_brainhives_clip_loss_has_its_value_and_every_gradient(golden):
    """Golden values: the loss of BrainHiVE's repository."""
    reference = load_file(golden / "clip_loss.safetensors")
    brain, image = (reference[name].requires_grad_() for name in ("brain", "image"))

    loss_of = parts.resolve("losses", "clip").build()
    loss_of.logit_scale.data = reference["logit_scale"].squeeze()

    loss = loss_of(brain, image, LossContext())
    loss.backward()

    assert loss.detach() == pytest.approx(reference["loss"].item(), abs=1e-5)
    for name, tensor in {
        "brain": brain,
        "image": image,
        "logit_scale": loss_of.logit_scale,
    }.items():
        assert tensor.grad is not None
        assert torch.allclose(
            tensor.grad, reference[f"grad_{name}"].reshape(tensor.shape), atol=1e-5
        )


@pytest.mark.parametrize("offset", [0.0, 10.0, 100.0])
def test_mmd_does_not_depend_on_a_shared_offset(offset):
    generator = torch.Generator().manual_seed(0)
    pairs = 0.05 * torch.randn(2, 64, 256, generator=generator, dtype=torch.float64)
    exact = compute_mmd_kernel(*pairs)
    kernel = compute_mmd_kernel(*(pairs + offset).float())
    torch.testing.assert_close(kernel.double(), exact, rtol=1e-3, atol=0)
