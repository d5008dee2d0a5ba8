"""Pieces of the losses that compare a prediction with its own target alone."""

import torch.nn.functional as F
from torch import Tensor, nn

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.mixing import Mixing
from brainhive_cli.losses import LossContext

DISTANCES = {"mse": F.mse_loss, "l1": F.l1_loss}
"""Means over all values of a batch, by name."""


class Distance(nn.Module):
    """Mean distance of predictions from their targets, over all values.

    Args:
        kind: One of `DISTANCES`.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, predicted: Tensor, target: Tensor, context: LossContext) -> Tensor:
        """Compare predictions with targets, both [B, ...]; targets of mixed signals are mixed.

        Returns:
            A scalar.

        Raises:
            BrainhiveError: if their shapes differ.
        """
        return DISTANCES[self.kind](predicted, target_of(predicted, target, context.mixing))


def target_of(predicted: Tensor, target: Tensor, mixing: Mixing | None) -> Tensor:
    """Mix targets [B, ...] as the signals were mixed.

    Raises:
        BrainhiveError: if they have another shape than the predictions.
    """
    if predicted.shape != target.shape:
        raise BrainhiveError(
            f"predictions {list(predicted.shape)} and targets {list(target.shape)} differ in shape",
            "a head needs the shape of its target",
        )
    return target if mixing is None else mixing.mix(target)
