"""Mean squared error: a prediction should have the values of its target. Its rows have other distances."""

from collections.abc import Callable
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.losses import LossConfig, LossContext

DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "bce": F.binary_cross_entropy_with_logits,
}
"""Means over all values of a batch, by name."""


class Config(LossConfig):
    """Mean squared difference over all values of a batch."""

    distance: ClassVar[str] = "mse"
    """One of `DISTANCES`."""

    def build(self) -> "Distance":
        """Make the loss."""
        return Distance(self.distance)


TINY = Config()


class Distance(nn.Module):
    """Mean distance of predictions from their targets, over all values.

    Args:
        kind: One of `DISTANCES`.
        feature: What is compared, of predictions and of targets; default: they themselves.
    """

    def __init__(self, kind: str, feature: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.kind, self.feature = kind, feature

    def forward(self, predicted: Tensor, target: Tensor, context: LossContext) -> Tensor:
        """Compare predictions with targets, both [B, ...], as a scalar; targets of mixed signals are mixed.

        Raises:
            BrainhiveError: if their shapes differ, or the feature has no such shape.
        """
        refuse_other_shape(predicted, target)
        target = target if context.mixing is None else context.mixing.mix(target)
        if self.feature is not None:
            predicted, target = self.feature(predicted), self.feature(target)
        return DISTANCES[self.kind](predicted, target)


def refuse_other_shape(predicted: Tensor, target: Tensor) -> None:
    """Refuse predictions that are not of their targets' shape.

    Raises:
        BrainhiveError: naming both shapes.
    """
    if predicted.shape != target.shape:
        raise BrainhiveError(
            f"predictions {list(predicted.shape)} and targets {list(target.shape)} differ in shape",
            "a head needs the shape of its target",
        )
