"""Which of a picture's repetitions a training sample is made of."""

import torch
from torch import Tensor


def shuffle_repetitions(
    signal: Tensor, count: Tensor, most: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Take up to `most` repetitions of each trial at random, each at most once.

    Args:
        signal: [B, R, C, T].
        count: [B] how many of the R there are.
        most: K.
        generator: Of the signal's device.

    Returns:
        The repetitions [B, K, C, T], and how many of the K there are [B].
    """
    drawn = torch.rand(signal.shape[:2], generator=generator, device=signal.device)
    is_there = torch.arange(signal.shape[1], device=signal.device) < count[:, None]
    order = drawn.masked_fill(~is_there, 2).argsort(1)[:, :most]  # [B, K], what is there comes first
    return signal[torch.arange(len(signal), device=signal.device)[:, None], order], count.clamp(max=most)
