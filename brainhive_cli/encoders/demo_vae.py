"""The demo's small autoencoder."""

from typing import ClassVar

from pydantic import Field

from brainhive_cli.encoders import diffusers_vae


class Config(diffusers_vae.Config):
    """The latent of a 64-pixel picture: 4 × 16 × 16 = 1024 values."""

    dim: ClassVar[int | None] = 1024
    image_px: ClassVar[int | None] = 64
    licence: ClassVar[str] = "Apache-2.0"
    source: str = Field("demo:generator/vae", description="the shipped weights")
    resolution_px: int = Field(64, gt=0, description="side of the demo's pictures, pixels")


TINY = Config(**dict(diffusers_vae.TINY))
