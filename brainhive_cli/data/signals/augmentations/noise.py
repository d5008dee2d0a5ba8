"""Gaussian noise, of a size in proportion to the signal."""

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from brainhive_cli.core import parts
from brainhive_cli.data.signals.augmentations import Shape


class Config(parts.Config):
    """Noise of all channels and samples alike."""

    share: float = Field(0.1, gt=0, description="its standard deviation, as a share of that of the trial")

    def build(self, rate_hz: float | None) -> "Noise":
        """Make the augmentation."""
        return Noise(self.share)


TINY = Config()


@dataclass(frozen=True)
class Noise:
    """Adds what is drawn, times the trial's spread."""

    share: float

    def draw(self, shape: Shape, generator: torch.Generator) -> Tensor:
        """Draw the noise: [B, C, T]."""
        return torch.randn(shape, generator=generator, device=generator.device)

    def apply(self, signal: Tensor, drawn: Tensor) -> Tensor:
        """Add noise to [B, C, T]."""
        spread = signal.std((1, 2), correction=0, keepdim=True)  # [B, 1, 1]
        return signal + self.share * spread * drawn
