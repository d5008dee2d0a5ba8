"""Losses, compared with slow and plain computations."""

import pytest
import torch
import torch.nn.functional as F

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.core.recipes import parts
from brainhive_cli.models.losses import LossContext, SoftClipConfig

KINDS = ("clip", "mixco", "soft_clip")


@pytest.fixture
def tokens():
    torch.manual_seed(0)
    signal = torch.randn(6, 5)
    return signal, signal + torch.randn(6, 5)


def test_soft_targets_are_no_path_for_the_gradient(tokens):
    """With a gradient, images would become alike to make the target easy."""
    signal = F.normalize(tokens[0].double(), dim=1)
    image = tokens[1].double().requires_grad_()
    loss = SoftClipConfig(temperature=0.5).build()

    loss(signal, image, LossContext()).backward()

    # cross-entropy of both directions, whose targets are constants
    gradient = image.grad
    image.grad = None
    unit_image = F.normalize(image, dim=1)
    targets = (unit_image @ unit_image.T / 0.5).softmax(1).detach()
    logits = signal @ unit_image.T / 0.5
    to_images = -(targets * logits.log_softmax(1)).sum() / 6
    to_signals = -(targets.T * logits.log_softmax(0)).sum() / 6
    ((to_images + to_signals) / 2).backward()
    assert torch.allclose(gradient, image.grad)


def test_tokens_that_are_not_pairs_are_refused():
    for kind in KINDS:
        loss = parts.load("losses", kind).TINY.build()
        with pytest.raises(BrainhiveError, match=r"\[.*\] .*\[.*\]"):
            loss(torch.zeros(4, 8), torch.zeros(3, 8), LossContext())
