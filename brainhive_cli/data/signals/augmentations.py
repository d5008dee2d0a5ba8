"""Augmentation of training signals and their repetitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Self

from pydantic import Field, model_validator

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.parts import Config, part_validator
from brainhive_cli.core.sections import Section, refuse_idle
from brainhive_cli.core.seeds import draw_convex_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WINDOW = 5
"""Samples that are averaged where a channel is smoothed (published); fewer at the ends
of a trial.
"""
Shape = tuple[int, int, int]
"""B signals of C channels and T samples."""


class Augmentation(Protocol):
    """Result of a part's `build(rate_hz)`: random numbers are drawn first, for each
    signal.

    Validation and test signals are never varied. Where the part's Config has a knob
    `drawn` of value "once", numbers are drawn before training, for the whole cell.
    """

    def draw(self, shape: Shape, generator: torch.Generator) -> Tensor:
        """Draw what varies: [B, ...] on the generator's device."""

    def apply(self, signal: Tensor, drawn: Tensor) -> Tensor:
        """Vary signals [B, C, T], each by its row of what was drawn."""


class Smooth(Config):
    """Channels that are smoothed at random: a moving average over five samples.

    Each channel of each trial by itself.

    Source: SAMGA (arXiv 2604.17782) and NeuroBridge, their code.
    """

    cites = ("jiang2026", "zhang2026")

    p: float = Field(
        0.3, gt=0, le=1, description="probability that a channel of a trial is smoothed"
    )
    drawn: Literal["once", "each_step"] = Field(
        "once",
        description="channels are drawn before training (published), or anew at each "
        "step",
    )

    def build(self, rate_hz: float | None) -> Augmentation:
        """Return the part itself."""
        return self

    def draw(self, shape: Shape, generator: torch.Generator) -> Tensor:
        """Draw a number for each channel: [B, C] in 0..1."""
        import torch

        # an average over one sample changes nothing
        if shape[2] == 1:
            raise RecipeError(
                "signals of one sample cannot be smoothed", "leave smooth out"
            )
        return torch.rand(shape[:2], generator=generator, device=generator.device)

    def apply(self, signal: Tensor, drawn: Tensor) -> Tensor:
        """Smooth the channels of [B, C, T] whose number is below p."""
        import torch
        import torch.nn.functional as F

        # at the ends, the average is of fewer samples, not of zeros
        smooth = F.avg_pool1d(signal, WINDOW, 1, WINDOW // 2, count_include_pad=False)
        return torch.where((drawn < self.p)[..., None], smooth, signal)


class Augment(Section):
    """Augmentation of training signals; all off by default."""

    parts: list[Annotated[Any, part_validator("augmentations", "smooth")]] = Field(
        [],
        description="augmentations, one after another: {kind: smooth, p: 0.3}; kinds "
        "and their keys below",
    )
    repetitions: float = Field(
        0.0,
        ge=0,
        description="repetitions are averaged with random weights, from a Dirichlet "
        "distribution of this concentration (1: any weights; large: nearly "
        "equal); 0: equal weights",
    )
    repetitions_equal: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the trials whose repetitions have equal weights after "
        "all",
    )
    repetitions_one: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the trials of which one repetition at random is taken "
        "alone",
    )

    @model_validator(mode="after")
    def _shares_the_trials(self) -> Self:
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
    """Average the repetitions of each trial, with weights drawn anew where
    `config.repetitions` says so.

    Args:
        signal: [B, R, C, T]; values beyond a trial's repetitions are never used.
        count: [B], how many of the R there are, at least one.
        config: How the weights are drawn.
        generator: Of the signal's device.

    Returns:
        [B, C, T].
    """
    import torch

    # [B, R]
    is_there = torch.arange(signal.shape[1], device=signal.device) < count[:, None]
    # absent ones could hold NaN, which a weight of 0 would not remove
    there = signal.masked_fill(~is_there[..., None, None], 0)
    return average_weighted(there, _weights(is_there, config, generator))


def average_weighted(signal: Tensor, weights: Tensor) -> Tensor:
    """Average repetitions [B, R, C, T] with weights [B, R]: [B, C, T]."""
    import torch

    return torch.einsum(
        "brct,br->bct",
        signal,
        (weights / weights.sum(1, keepdim=True)).to(signal.dtype),
    )


def _weights(is_there: Tensor, config: Augment, generator: torch.Generator) -> Tensor:
    """Draw the weights of repetitions [B, R]: random, or equal, or all on one."""
    import torch
    import torch.nn.functional as F

    if not config.repetitions:
        return is_there.float()
    # random weights of a Dirichlet distribution
    weights = draw_convex_weights(is_there, config.repetitions, generator)
    if not config.repetitions_equal + config.repetitions_one:
        return weights

    # the lowest draws get equal weights, the highest a single repetition
    drawn = torch.rand(len(weights), 1, generator=generator, device=weights.device)
    order = torch.rand(weights.shape, generator=generator, device=weights.device)
    # the repetition with the largest number, among those that there are
    alone = F.one_hot(order.masked_fill(~is_there, -1).argmax(1), weights.shape[1]).to(
        weights
    )
    weights = torch.where(
        drawn < config.repetitions_equal, is_there.to(weights), weights
    )
    return torch.where(drawn >= 1 - config.repetitions_one, alone, weights)


def draw_repetitions(
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
    import torch

    drawn = torch.rand(signal.shape[:2], generator=generator, device=signal.device)
    is_there = torch.arange(signal.shape[1], device=signal.device) < count[:, None]
    # [B, K], what is there comes first
    order = drawn.masked_fill(~is_there, 2).argsort(1)[:, :most]
    # [B, K, C, T], and counts of at most K
    return signal[
        torch.arange(len(signal), device=signal.device)[:, None], order
    ], count.clamp(max=most)


TINY = {"smooth": Smooth()}
"""The parts of this shelf by kind, each small enough for tests."""
