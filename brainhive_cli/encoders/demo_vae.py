"""The demo's small autoencoder."""

from pydantic import Field

from brainhive_cli.encoders import diffusers_vae, located


class Config(diffusers_vae.Config):
    """The latent of a 64-pixel picture: 4 × 16 × 16 = 1024 values."""

    dim = 1024
    image_px = 64
    licence = "Apache-2.0"
    source: str = located("demo:generator/vae")
    resolution_px: int = Field(64, gt=0, le=16_384, description="side of the demo's pictures, pixels")


TINY = Config(**dict(diffusers_vae.TINY))
