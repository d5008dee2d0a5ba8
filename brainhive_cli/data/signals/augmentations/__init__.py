"""Contract of augmentations: training signals in, varied ones out; validation and test are never varied."""

from typing import Protocol

import torch
from torch import Tensor

Shape = tuple[int, int, int]
"""B signals of C channels and T samples."""


class Augmentation(Protocol):
    """What a part's `build(rate_hz)` makes: what is random about it is drawn first, by signal.

    Where the part's Config has a knob `drawn` of value "once", that is before training, for the whole cell.
    """

    def draw(self, shape: Shape, generator: torch.Generator) -> Tensor:
        """Draw what varies: [B, ...] on the generator's device."""

    def apply(self, signal: Tensor, drawn: Tensor) -> Tensor:
        """Vary signals [B, C, T], each by its row of what was drawn."""
