"""Versatile Diffusion's autoencoder: the latent that its pictures start from."""

from pydantic import Field

from brainhive_cli.encoders import diffusers_vae, located


class Config(diffusers_vae.Config):
    """The latent of a 512-pixel picture: 4 × 64 × 64, by MindEye1's resizing."""

    image_px = 512
    licence = "MIT"
    shape = (4, 64, 64)
    flattens = False
    resizes = "floats"
    weight_files = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
    source: str = located("hub:shi-labs/versatile-diffusion/vae")
    resolution_px: int = Field(512, gt=0, le=16_384, description="short side and centre crop, pixels")


TINY = Config(**{**dict(diffusers_vae.TINY), "resolution_px": 16})
