"""Sobel loss: a predicted picture or latent should have the edges of its target."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.losses import LossContext
from brainhive_cli.losses._distances import DISTANCES, target_of

EPSILON = 1e-6
"""Under the root of the magnitude, so that its gradient is finite; kornia's."""


class Config(parts.Config):
    """Distance of edge maps (Sobel), over all values of a batch."""

    distance: Literal["l1", "mse"] = Field("l1", description="between the edge maps; MindEye1's is l1")

    def build(self) -> "SobelLoss":
        """Make the loss."""
        return SobelLoss(self.distance)


TINY = Config()
"""It has no size."""


class SobelLoss(nn.Module):
    """Mean distance of the edge maps of predictions and targets.

    Args:
        distance: "l1" or "mse".
    """

    def __init__(self, distance: str = "l1") -> None:
        super().__init__()
        self.distance = distance

    def forward(self, predicted: Tensor, target: Tensor, context: LossContext) -> Tensor:
        """Compare predictions with targets, both [B, C, H, W]; targets of mixed signals are mixed.

        Returns:
            A scalar.

        Raises:
            BrainhiveError: if they are no pictures or latents, or their shapes differ.
        """
        target = target_of(predicted, target, context.mixing)
        return DISTANCES[self.distance](edges(predicted), edges(target))


def edges(image: Tensor) -> Tensor:
    """Compute the magnitude of the Sobel gradient, each channel by itself.

    Kernels are divided by 8, borders are replicated: equal to `kornia.filters.sobel` 0.7.3.

    Args:
        image: [B, C, H, W].

    Returns:
        [B, C, H, W].

    Raises:
        BrainhiveError: if it has another number of axes.
    """
    if image.ndim != 4:
        raise BrainhiveError(
            f"a Sobel loss takes [B, C, H, W], got {list(image.shape)}", "use the loss mse, or l1"
        )
    across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=image.device, dtype=image.dtype) / 8
    kernels = torch.stack([across, across.T])[:, None]  # [2, 1, 3, 3]
    padded = F.pad(image.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")  # [B·C, 1, H + 2, W + 2]
    magnitude = (F.conv2d(padded, kernels).square().sum(1) + EPSILON).sqrt()
    return magnitude.view(image.shape)
