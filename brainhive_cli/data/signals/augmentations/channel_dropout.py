"""Channels that are set to zero at random."""

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from brainhive_cli.core import parts
from brainhive_cli.data.signals.augmentations import Shape


class Config(parts.Config):
    """Each channel of each trial by itself."""

    p: float = Field(0.1, gt=0, lt=1, description="probability that a channel of a trial is set to zero")

    def build(self, rate_hz: float | None) -> "ChannelDropout":
        """Make the augmentation."""
        return ChannelDropout(self.p)


TINY = Config()


@dataclass(frozen=True)
class ChannelDropout:
    """Drops a channel where the number drawn for it is below p."""

    p: float

    def draw(self, shape: Shape, generator: torch.Generator) -> Tensor:
        """Draw a number for each channel: [B, C] in 0..1."""
        return torch.rand(shape[:2], generator=generator, device=generator.device)

    def apply(self, signal: Tensor, drawn: Tensor) -> Tensor:
        """Drop channels of [B, C, T]."""
        return signal.masked_fill((drawn < self.p)[..., None], 0)
