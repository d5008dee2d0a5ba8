"""Modules of losses, of which contrastive losses have a learned scale."""

from typing import Any

import torch
from torch import Tensor, nn

from brainhive_cli.models.course import value_at


class LossModule(nn.Module):
    """A loss without parameters.

    Args:
        config: Config of the loss.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self, predicted: Tensor, target: Tensor, context: Any) -> Tensor:
        """Compute the loss, a scalar, of predictions and targets [B, ...]."""
        return self.config.compare(predicted, target, context)


class ScaledLoss(LossModule):
    """A contrastive loss whose cosines are multiplied by a scale.

    Attributes:
        logit_scale: Parameter of the scale, by default its logarithm. If the scale is
            1 / temperature, it is None.
    """

    logit_scale: nn.Parameter | None

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        scale = nn.Parameter(
            torch.tensor(config.initial_logit_scale), requires_grad=config.learn_scale
        )
        self.register_parameter(
            "logit_scale", scale if config.temperature is None else None
        )

    def forward(self, predicted: Tensor, target: Tensor, context: Any) -> Tensor:
        """Compute the loss, a scalar, of predictions and targets [B, ...]."""
        scale = self.scale(context.epoch)
        return self.config.contrast(predicted, target, context, scale)

    def scale(self, epoch: int) -> Tensor | float:
        """Return the factor of the cosines in an epoch."""
        if self.logit_scale is None:
            return 1 / value_at(self.config.temperature, epoch)
        return self.config.compute_scale(self.logit_scale)


class ClipLoss(ScaledLoss):
    """A contrastive loss that can also score single pairs."""

    def score_pairs(self, predicted: Tensor, target: Tensor, context: Any) -> Tensor:
        """Compute the scaled cosine [B] of each prediction [B, ...] and its target."""
        cosine = self.config.compute_pair_cosines(predicted, target)
        return cosine * self.scale(context.epoch)
