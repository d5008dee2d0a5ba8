"""Random changes of training signals, and random averages of their repetitions."""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Protocol,
    Self,
    runtime_checkable,
)

from pydantic import Field, model_validator

from brainhive_cli.core.base import RecipeError, draw_convex_weights
from brainhive_cli.core.recipes import Config, Section, part_validator, refuse_idle

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Shape = tuple[int, int, int]
"""Numbers of signals B, channels C and samples T."""


class Augmentation(Protocol):
    """Augmentation of signals, which a part returns from `build(rate_hz)`.

    Random numbers are drawn first, for each signal. If the config of the part has a key
    `drawn` with the value "once", they are drawn once before training. Validation and
    test signals are never augmented.
    """

    def draw(self, shape: Shape, generator: torch.Generator) -> Tensor:
        """Draw random values [B, ...] on the device of the generator."""

    def apply(self, signal: Tensor, drawn: Tensor) -> Tensor:
        """Augment signals [B, C, T] by random values [B, ...]."""


@runtime_checkable
class DrawSettings(Protocol):
    """Config of an augmentation that says when its random values are drawn.

    Attributes:
        drawn: "once" before training, or "each_step".
    """

    drawn: Literal["once", "each_step"]


class Smooth(Config):
    """Moving average over five samples of random channels of random trials.

    Source: code of SAMGA (arXiv 2604.17782) and NeuroBridge.
    """

    cites = ("jiang2026", "zhang2026")

    p: float = Field(
        0.3, gt=0, le=1, description="probability that a channel of a trial is smoothed"
    )
    drawn: Literal["once", "each_step"] = Field(
        "once",
        description="draw channels once before training (published), or anew at each "
        "step",
    )

    def build(self, rate_hz: float | None) -> Augmentation:
        """Return the part itself."""
        return self

    def draw(self, shape: Shape, generator: torch.Generator) -> Tensor:
        """Draw a number [B, C] from 0 to 1 for each channel."""
        import torch

        # an average over one sample changes nothing
        if shape[2] == 1:
            raise RecipeError(
                "signals of one sample cannot be smoothed", "leave smooth out"
            )
        return torch.rand(shape[:2], generator=generator, device=generator.device)

    def apply(self, signal: Tensor, drawn: Tensor) -> Tensor:
        """Smooth the channels of signals [B, C, T] whose number is below `p`."""
        import torch
        import torch.nn.functional as F

        # Number of samples in a smoothing average, as published. Fewer at the ends
        # of a trial.
        smoothing_samples = 5
        # at the ends, average fewer samples instead of zeros
        smoothed = F.avg_pool1d(
            signal,
            kernel_size=smoothing_samples,
            stride=1,
            padding=smoothing_samples // 2,
            count_include_pad=False,
        )
        return torch.where((drawn < self.p)[..., None], smoothed, signal)


class Augment(Section):
    """Recipe section of augmentations, which are all off by default."""

    parts: list[Annotated[Any, part_validator("augmentations", "smooth")]] = Field(
        [],
        description="augmentations in their order, as {kind: smooth, p: 0.3}; kinds "
        "and their keys below",
    )
    repetitions: float = Field(
        0.0,
        ge=0,
        description="concentration of the Dirichlet distribution of random weights, "
        "with which repetitions are averaged (1: any weights; large: nearly equal); 0: "
        "equal weights",
    )
    repetitions_equal: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the trials whose repetitions have equal weights",
    )
    repetitions_one: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the trials for which a single random repetition is used",
    )

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if not self.repetitions:
            shares = ("repetitions_equal", "repetitions_one")
            refuse_idle(
                self, shares, "without random weights", "train.augment.repetitions=1"
            )
        if self.repetitions_equal + self.repetitions_one > 1:
            raise ValueError("repetitions_equal and repetitions_one sum to more than 1")
        return self


def mix_repetitions(
    signal: Tensor, count: Tensor, config: Augment, generator: torch.Generator
) -> Tensor:
    """Average the repetitions of each trial with equal or random weights.

    Args:
        signal: Repetitions [B, R, C, T]. Values of padding are never used.
        count: Number [B] of repetitions that exist, at least 1.
        config: Distribution of the weights.
        generator: Generator on the device of the signal.

    Returns:
        Averages [B, C, T].
    """
    import torch

    is_there = torch.arange(signal.shape[1], device=signal.device) < count[:, None]
    # padding may be NaN, which a weight of 0 would not remove
    repetitions = signal.masked_fill(~is_there[..., None, None], 0)
    return average_weighted(repetitions, _draw_weights(is_there, config, generator))


def average_weighted(signal: Tensor, weights: Tensor) -> Tensor:
    """Average repetitions [B, R, C, T] with weights [B, R], to [B, C, T]."""
    import torch

    shares = (weights / weights.sum(1, keepdim=True)).to(signal.dtype)
    return torch.einsum("brct,br->bct", signal, shares)


def _draw_weights(
    is_there: Tensor, config: Augment, generator: torch.Generator
) -> Tensor:
    """Draw weights [B, R] of repetitions: random, equal, or a single repetition.

    Repetitions that do not exist have weight 0.
    """
    import torch
    import torch.nn.functional as F

    if not config.repetitions:
        return is_there.float()
    weights = draw_convex_weights(is_there, config.repetitions, generator)
    if not config.repetitions_equal + config.repetitions_one:
        return weights

    # the lowest numbers get equal weights, the highest a single repetition
    numbers = torch.rand(len(weights), 1, generator=generator, device=weights.device)
    order = torch.rand(weights.shape, generator=generator, device=weights.device)
    column = order.masked_fill(~is_there, -1).argmax(1)
    single = F.one_hot(column, weights.shape[1]).to(weights)
    is_equal = numbers < config.repetitions_equal
    weights = torch.where(is_equal, is_there.to(weights), weights)
    return torch.where(numbers >= 1 - config.repetitions_one, single, weights)


def draw_repetitions(
    signal: Tensor, count: Tensor, limit: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw up to `limit` repetitions of each trial, each at most once.

    Args:
        signal: Repetitions [B, R, C, T].
        count: Number [B] of repetitions that exist.
        limit: Largest number K of drawn repetitions.
        generator: Generator on the device of the signal.

    Returns:
        Repetitions [B, K, C, T], and the number [B] of them that exist.
    """
    import torch

    keys = torch.rand(signal.shape[:2], generator=generator, device=signal.device)
    is_there = torch.arange(signal.shape[1], device=signal.device) < count[:, None]
    # padding comes last
    order = keys.masked_fill(~is_there, 2).argsort(1)[:, :limit]  # [B, K]
    rows = torch.arange(len(signal), device=signal.device)[:, None]
    return signal[rows, order], count.clamp(max=limit)


TINY = {"smooth": Smooth()}
"""Parts of this folder by kind, each small enough for tests."""
