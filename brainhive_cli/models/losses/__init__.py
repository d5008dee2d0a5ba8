"""Losses: how far predictions are from their targets, as scalars that training lowers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.core.seeds import convex_weights


@dataclass(frozen=True)
class Mixing:
    """Each trial of a batch mixed with a partner from the same batch (mixup, arXiv 1710.09412).

    Attributes:
        partner: [B] int64, the row each trial is mixed with.
        share: [B] in [0, 1], how much of the mixture is the trial itself.
    """

    partner: Tensor
    share: Tensor

    @classmethod
    def draw(cls, count: int, alpha: float, generator: torch.Generator, mixed: float = 1.0) -> "Mixing":
        """Draw partners as a permutation of `count` trials, and shares from Beta(alpha, alpha).

        A share `mixed` of the trials is mixed, each by chance; the others stay as they are. Everything lies
        on the generator's device.
        """
        # a partner for each trial, and weights of the trial and its partner
        partner = torch.randperm(count, generator=generator, device=generator.device)
        members = torch.ones(count, 2, dtype=torch.bool, device=generator.device)  # [B, 2]
        share = convex_weights(members, alpha, generator)[:, 0]  # [B]

        # leave some trials as they are
        if mixed < 1:
            drawn = torch.rand(count, generator=generator, device=generator.device)
            share = share.masked_fill(drawn >= mixed, 1.0)
        return cls(partner, share)

    def repeat(self, items: int) -> "Mixing":
        """Give the mixing of [B · items], where each trial has several items that are mixed as it is."""
        index = torch.arange(items, device=self.partner.device)
        partner = (self.partner[:, None] * items + index).flatten()  # [B · items]
        return Mixing(partner, self.share.repeat_interleave(items))

    def mix(self, values: Tensor) -> Tensor:
        """Mix [B, ...]: share · values + (1 - share) · values[partner]."""
        share = self.share.to(values.dtype).view(-1, *[1] * (values.ndim - 1))
        return torch.lerp(values[self.partner], values, share)


class LossConfig(parts.Config):
    """Base of losses' Configs."""

    @property
    def mixing(self) -> tuple[float, float]:
        """Mixing of the signals of a batch: alpha (0: not at all), and the share that is mixed."""
        return 0.0, 1.0


class Loss(nn.Module):
    """Base of losses that read the knobs of their Config."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config


@dataclass(frozen=True)
class LossContext:
    """Facts of the training step that a loss knows, apart from predictions and targets.

    Attributes:
        mixing: How the signals of the whole batch, over all processes, were mixed; None if they were not.
        step: Steps of the training that are done.
        epoch: Epochs of the training that are done.
        epochs: Epochs of the whole training.
        targets: All targets of the batch, [B, *shape] by name, for losses that compare with several.
        steps: Steps of an epoch.
        stimuli: [B] number of the stimulus of each row, over all processes; equal ones are one stimulus.
    """

    mixing: Mixing | None = None
    step: int = 0
    epoch: int = 0
    epochs: int = 1
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    steps: int = 1
    stimuli: Tensor | None = None

    @property
    def moment(self) -> float:
        """Epochs that are done, with the part of this one."""
        return self.epoch + self.step % self.steps / self.steps
