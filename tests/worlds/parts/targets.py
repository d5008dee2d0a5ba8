"""Encoders that a user adds as targets of the two heads."""

from typing import Any

import torch
from torch import Tensor, nn

from brainhive_cli.models.generators import sdxl

SIDE_PX = 32

TOKEN_DIM = sdxl.TINY.architecture["unet"]["cross_attention_dim"]


def latent() -> tuple[nn.Module, Any]:
    """Encode pictures as the tiny generator's latents [B, C, h, w]."""
    generator = sdxl.TINY.build()

    class Latent(nn.Module):
        latent_space = generator.latent_space

        def forward(self, pictures: Tensor) -> Tensor:
            return generator.encode(pictures)

    return Latent(), _preprocess()


def tokens() -> tuple[nn.Module, Any]:
    """Project the quarters of a picture to tokens [B, 4, D]."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(
                torch.randn(12, TOKEN_DIM, generator=torch.Generator().manual_seed(0))
            )

        def forward(self, pictures: Tensor) -> Tensor:
            squares = nn.functional.adaptive_avg_pool2d(pictures, 4)  # [B, 3, 4, 4]
            quarters = squares.unfold(2, 2, 2).unfold(3, 2, 2)  # [B, 3, 2, 2, 2, 2]
            return (
                quarters.permute(0, 2, 3, 1, 4, 5).reshape(len(pictures), 4, 12)
                @ self.weight
            )

    return Tokens(), _preprocess()


def _preprocess() -> Any:
    from torchvision.transforms import v2

    steps = [
        v2.Resize((SIDE_PX, SIDE_PX)),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
    ]
    return v2.Compose(steps)
