"""Dice loss: a predicted mask should cover its target, and nothing else."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from brainhive_cli.models.losses import Loss, LossConfig, LossContext
from brainhive_cli.models.losses.mse import refuse_other_shape

EPSILON = 1e-6
"""In the denominator, for a batch without any mask."""


class Config(LossConfig):
    """1 - 2 |P T| / (|P| + |T|) of the probabilities of logits P and targets T (V-Net, arXiv 1606.04797)."""

    cites = ("milletari2016",)

    over: Literal["batch", "mask"] = Field(
        "batch",
        description="batch: areas are summed over the whole batch (NEURONS); mask: the mean of each mask's "
        "own loss, which gives small masks as much weight, and nothing to learn from empty ones",
    )

    def build(self) -> "DiceLoss":
        """Make the loss."""
        return DiceLoss(self)


TINY = Config()


class DiceLoss(Loss):
    """The loss of masks [B, ..., H, W]."""

    def forward(self, predicted: Tensor, target: Tensor, context: LossContext) -> Tensor:
        """Compare logits with masks of 0 and 1, as a scalar; those of mixed signals are mixed.

        Raises:
            BrainhiveError: if their shapes differ.
        """
        refuse_other_shape(predicted, target)
        target = target if context.mixing is None else context.mixing.mix(target)
        axes = tuple(range(target.ndim)) if self.config.over == "batch" else (-2, -1)
        share = predicted.sigmoid()
        overlap = (share * target).sum(axes)
        covered = 2 * overlap / (share.sum(axes) + target.sum(axes) + EPSILON)
        return (1 - covered).mean()
