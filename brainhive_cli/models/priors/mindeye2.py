"""Diffusion prior of MindEye2 and NEURONS, on tokens without MindEye1's scale."""

from typing import ClassVar

from pydantic import Field

from brainhive_cli.models.priors import mindeye1
from brainhive_cli.models.priors.mindeye1 import describe, digest, load, read_sizes

__all__ = ["TINY", "Config", "describe", "digest", "load", "read_sizes"]


class Config(mindeye1.Config):
    """Sizes and noise schedule. The defaults are MindEye2's (arXiv 2403.11207, MIT)."""

    cites = ("scotti2024",)
    scales_tokens: ClassVar[bool] = False

    dim: int = Field(1664, gt=2, le=2**16, description="Width D of a token.")
    tokens: int = Field(
        256, gt=0, le=2**16, description="Number S of brain tokens and of image tokens."
    )
    heads: int = Field(
        32,
        gt=0,
        le=4096,
        description="Number of attention heads. They share one key and value.",
    )
    dim_head: int = Field(52, gt=1, le=4096, description="Width of an attention head.")


TINY = Config(dim=16, tokens=2, depth=1, heads=1, dim_head=4, timesteps=3)
"""Small enough for tests."""
