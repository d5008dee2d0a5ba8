"""Random changes of training signals."""

import pytest
import torch
from safetensors.torch import load_file

from brainhive_cli.core.recipes import parts

RATE_HZ = 250.0


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def vary(signal, kind, seed=0, **knobs):
    augmentation = parts.load("augmentations", kind).Config(**knobs).build(RATE_HZ)
    return augmentation.apply(signal, augmentation.draw(signal.shape, generator(seed)))


@pytest.fixture
def signal():
    return 3 * torch.randn(400, 17, 50, generator=generator(9))


def test_each_signal_has_its_own_random_augmentation(signal):
    initial_copies, rows = signal.clone(), torch.tensor([7, 3, 300])
    for kind in parts.list_kinds("augmentations"):
        first_signal, repeated_signal, other_signal = (
            vary(signal, kind, seed) for seed in (1, 1, 2)
        )
        assert first_signal.shape == signal.shape
        assert first_signal.dtype == signal.dtype
        assert torch.equal(first_signal, repeated_signal)
        assert not torch.equal(first_signal, other_signal)
        assert torch.equal(signal, initial_copies)

        augmentation = parts.load("augmentations", kind).TINY.build(RATE_HZ)
        parameters = augmentation.draw(signal.shape, generator())
        selected_signals = augmentation.apply(signal[rows], parameters[rows])
        assert torch.equal(
            selected_signals, augmentation.apply(signal, parameters)[rows]
        )


def test_a_smoothed_channel_is_the_published_moving_average(golden):
    """Golden values: an average over 5 samples, and over fewer at the edges."""
    tensors = load_file(golden / "methods" / "smooth.safetensors")

    smoothed = vary(tensors["signal"][None], "smooth", p=1)[0]

    torch.testing.assert_close(
        smoothed, tensors["expected.smoothed"], atol=1e-6, rtol=0
    )


def test_a_channel_is_smoothed_whole_with_its_probability(signal):
    smoothed = vary(signal, "smooth", p=0.3)

    is_plain = (smoothed == signal).all(2)
    assert is_plain.float().mean().item() == pytest.approx(0.7, abs=0.02)
    assert torch.equal(smoothed[~is_plain], vary(signal, "smooth", p=1)[~is_plain])
