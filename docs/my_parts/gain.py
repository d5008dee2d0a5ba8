"""my_parts/gain.py: random gain of each trial."""

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from brainhive_cli import api


class Config(api.Config):
    """Keys of the part; with a key `drawn` of value "once", it is drawn before
    training.
    """

    spread: float = Field(0.1, gt=0, description="standard deviation of the factor")

    def build(self, rate_hz: float | None) -> "Gain":
        """Build it for a sampling rate; None for signals of one sample."""
        return Gain(self.spread)


TINY = Config()


@dataclass(frozen=True)
class Gain:
    """Augmentation that draws first, so that a signal varies alike in any batch."""

    spread: float

    def draw(self, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """Draw for signals of shape (B, C, T), on the generator's device: [B, ...]."""
        return torch.randn(shape[0], generator=generator, device=generator.device)

    def apply(self, signal: Tensor, drawn: Tensor) -> Tensor:
        """Scale signals [B, C, T]."""
        return signal * (1 + self.spread * drawn[:, None, None])
