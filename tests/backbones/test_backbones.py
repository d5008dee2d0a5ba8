"""What holds for every brain encoder: any size of signal, training, and clear errors."""

import pytest
import torch

from brainhive_cli import parts
from brainhive_cli.errors import BrainhiveError

KINDS = parts.kinds("backbones")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("channels", "samples"), [(17, 250), (271, 201), (5, 100)])
def test_sizes_follow_from_the_signal(kind, channels, samples):
    model = parts.load("backbones", kind).TINY.build(channels, samples, 16, subjects=2)

    token = model(torch.randn(3, channels, samples), torch.tensor([0, 1, 0]))

    assert token.shape == (3, 16)
    assert token.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter_and_dropout_is_for_training_only(kind):
    torch.manual_seed(0)
    model = parts.load("backbones", kind).TINY.build(5, 100, 16, subjects=2)
    signal, subject = torch.randn(4, 5, 100), torch.tensor([0, 1, 0, 1])

    first, second = model(signal, subject), model(signal, subject)
    first.square().mul(torch.randn(16)).sum().backward()
    model.eval()

    assert all(p.grad is not None for p in model.parameters())
    assert not torch.equal(first, second)
    assert torch.equal(model(signal, subject), model(signal, subject))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4, 6, 100), (4, 5, 99), (5, 100)])
def test_a_signal_of_another_size_is_refused_naming_both(kind, shape):
    model = parts.load("backbones", kind).TINY.build(5, 100, 16)

    with pytest.raises(BrainhiveError, match=r"signals \[B, 5, 100\].* got \["):
        model(torch.zeros(shape))
