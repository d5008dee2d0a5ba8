"""Diffusion prior of MindEye2 and NEURONS: MindEye1's network on tokens as they are."""

from typing import ClassVar

from pydantic import Field

from brainhive_cli.models.priors import mindeye1
from brainhive_cli.models.priors.mindeye1 import describe, digest, load, sizes_of

__all__ = ["TINY", "Config", "describe", "digest", "load", "sizes_of"]


class Config(mindeye1.Config):
    """Sizes and schedule; the defaults are MindEye2's (arXiv 2403.11207, MIT)."""

    cites = ("scotti2024",)
    scales_tokens: ClassVar[bool] = False

    dim: int = Field(1664, gt=2, le=2**16, description="D of a token.")
    tokens: int = Field(
        256, gt=0, le=2**16, description="S, tokens of the brain and of the image."
    )
    heads: int = Field(
        32,
        gt=0,
        le=4096,
        description="Attention heads, which share their key and value.",
    )
    dim_head: int = Field(52, gt=1, le=4096, description="Width of a head.")


TINY = Config(dim=16, tokens=2, depth=1, heads=1, dim_head=4, timesteps=3)
"""Small enough for tests."""
