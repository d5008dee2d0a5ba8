"""Trials that are shifted whole, earlier or later."""

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from brainhive_cli.core import parts
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.data.signals.augmentations import Shape


class Config(parts.Config):
    """By any number of samples up to the largest; zeros move in."""

    largest_ms: float = Field(20.0, gt=0, description="largest shift, either way, ms")

    def build(self, rate_hz: float | None) -> "TimeShift":
        """Make the augmentation."""
        if rate_hz is None:
            problem = "signals without a sampling rate cannot be shifted in time"
            raise RecipeError(problem, "leave time-shift out")
        return TimeShift(self.largest_ms, rate_hz)


TINY = Config()


@dataclass(frozen=True)
class TimeShift:
    """Shifts each trial by the number of samples that is drawn for it."""

    largest_ms: float
    rate_hz: float

    def draw(self, shape: Shape, generator: torch.Generator) -> Tensor:
        """Draw the shift of each trial: [B, 1] samples.

        Raises:
            RecipeError: if the largest shift is less than a sample, or the whole window.
        """
        count, _, samples = shape
        largest = round(self.largest_ms * self.rate_hz / 1000)
        if not 0 < largest < samples:
            raise RecipeError(
                f"a time shift of {self.largest_ms:g} ms is {largest} samples of a window of {samples}",
                f"largest_ms from {1000 / self.rate_hz:g} to below {1000 * samples / self.rate_hz:g}",
            )
        return torch.randint(-largest, largest + 1, (count, 1), generator=generator, device=generator.device)

    def apply(self, signal: Tensor, drawn: Tensor) -> Tensor:
        """Shift [B, C, T]."""
        _, channels, samples = signal.shape
        source = torch.arange(samples, device=signal.device) - drawn  # [B, T]
        is_outside = (source < 0) | (source >= samples)
        shifted = signal.gather(2, source.clamp(0, samples - 1)[:, None].expand(-1, channels, -1))
        return shifted.masked_fill(is_outside[:, None], 0)
