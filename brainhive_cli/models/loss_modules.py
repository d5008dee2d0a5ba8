"""Losses as modules: without parameters, and with a learned scale of their cosines."""

from typing import Any

import torch
from torch import Tensor, nn

from brainhive_cli.models.course import value_at


class LossModule(nn.Module):
    """A loss without parameters.

    Args:
        config: Its Config, which compares.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self, predicted: Tensor, target: Tensor, context: Any) -> Tensor:
        """Compare predictions with targets, both [B, ...], as a scalar."""
        return self.config.compare(predicted, target, context)


class ScaledLoss(LossModule):
    """A contrastive loss whose cosines are multiplied by a scale, learned or of a
    temperature.

    Attributes:
        logit_scale: What makes the scale, by default its logarithm; None where there is
            a temperature.
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
        """Compare predictions with targets, both [B, ...], as a scalar."""
        return self.config.contrast(
            predicted, target, context, self.scale(context.epoch)
        )

    def scale(self, epoch: int) -> Tensor | float:
        """Return what cosines are multiplied by in an epoch."""
        if self.logit_scale is None:
            return 1 / value_at(self.config.temperature, epoch)
        return self.config.compute_scale(self.logit_scale)


class ClipLoss(ScaledLoss):
    """A contrastive loss that also tells the similarity of a single pair."""

    def score_pairs(self, predicted: Tensor, target: Tensor, context: Any) -> Tensor:
        """Return the scaled similarity of each prediction [B, ...] and its own target:
        [B].
        """
        cosine = self.config.compute_pair_cosines(predicted, target)
        return cosine * self.scale(context.epoch)
