"""SDXL's autoencoder: the structural encoder of BrainHiVE."""

from typing import ClassVar

from pydantic import Field

from brainhive_cli.encoders import diffusers_vae


class Config(diffusers_vae.Config):
    """The latent of a 128-pixel picture: 4 × 16 × 16 = 1024 values."""

    upstream: ClassVar[str] = "vae"
    dim: ClassVar[int | None] = 1024
    source: str = Field(
        "hub:stabilityai/stable-diffusion-xl-base-1.0/vae", description="the same layout elsewhere"
    )


TINY = Config(**dict(diffusers_vae.TINY))
