"""Channels that are smoothed at random: a moving average over five samples.

Source: SAMGA (arXiv 2604.17782) and NeuroBridge, their code.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import avg_pool1d

from brainhive_cli.core import parts
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.data.signals.augmentations import Shape

WINDOW = 5
"""Samples that are averaged (published); fewer at the ends of a trial."""


class Config(parts.Config):
    """Each channel of each trial by itself."""

    cites = ("jiang2026", "zhang2026")

    p: float = Field(0.3, gt=0, le=1, description="probability that a channel of a trial is smoothed")
    drawn: Literal["once", "each_step"] = Field(
        "once", description="channels are drawn before training (published), or anew at each step"
    )

    def build(self, rate_hz: float | None) -> "Smooth":
        """Make the augmentation."""
        return Smooth(self.p)


TINY = Config()


@dataclass(frozen=True)
class Smooth:
    """Smooths a channel where the number drawn for it is below p."""

    p: float

    def draw(self, shape: Shape, generator: torch.Generator) -> Tensor:
        """Draw a number for each channel: [B, C] in 0..1."""
        if shape[2] == 1:
            raise RecipeError("signals of one sample cannot be smoothed", "leave smooth out")
        return torch.rand(shape[:2], generator=generator, device=generator.device)

    def apply(self, signal: Tensor, drawn: Tensor) -> Tensor:
        """Smooth channels of [B, C, T]."""
        is_chosen = drawn < self.p
        if signal.is_cuda:  # which would be waited for by a choice of channels
            return torch.where(is_chosen[..., None], _average(signal), signal)
        smoothed = signal.clone()
        smoothed[is_chosen] = _average(signal[is_chosen])
        return smoothed


def _average(signal: Tensor) -> Tensor:
    return avg_pool1d(signal, WINDOW, 1, WINDOW // 2, count_include_pad=False)
