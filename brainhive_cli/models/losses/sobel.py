"""Sobel loss: a predicted picture or latent should have the edges of its target."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.losses import LossConfig
from brainhive_cli.models.losses.mse import Distance

EPSILON = 1e-6
"""Under the root of the magnitude, so that its gradient is finite; kornia's."""


class Config(LossConfig):
    """Distance of edge maps (Sobel), over all values of a batch."""

    distance: Literal["l1", "mse"] = Field("l1", description="between the edge maps; MindEye1's is l1")

    def build(self) -> Distance:
        """Make the loss."""
        return Distance(self.distance, edges)


TINY = Config()


def edges(image: Tensor) -> Tensor:
    """Compute the magnitude of the Sobel gradient of [B, C, H, W], each channel by itself.

    Kernels are divided by 8, borders are replicated: equal to `kornia.filters.sobel` 0.7.3.

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
