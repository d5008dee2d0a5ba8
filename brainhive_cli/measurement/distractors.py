"""Random candidates of a gallery's mean and covariance, to enlarge it to any size."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 4096
"""Distractors that are drawn at once; another number draws others."""
DIRECTIONS = 256
"""Gallery items, at most, whose deviations from the mean are mixed."""


def distractors(gallery: Tensor, count: int, seed: int) -> Iterator[Tensor]:
    """Draw vectors from the normal distribution that has the gallery's mean and covariance.

    Random vectors in all directions would be far from every token, and beaten by all of them.

    Args:
        gallery: [M, D].
        count: How many are drawn.
        seed: Seed of the drawing, the same on every device.

    Yields:
        Blocks [m, D] on the gallery's device.
    """
    random = torch.Generator().manual_seed(seed)
    centre = gallery.mean(0)
    some = gallery[torch.randperm(len(gallery), generator=random)[:DIRECTIONS].to(gallery.device)]
    directions = (some - centre) / math.sqrt(max(1, len(some) - 1))
    for start in range(0, count, BLOCK):
        weights = torch.randn(min(BLOCK, count - start), len(some), generator=random)
        yield centre + weights.to(gallery.device) @ directions
