"""Versatile Diffusion's autoencoder: the latent that its pictures start from."""

from typing import ClassVar

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
    also_fetched: ClassVar[tuple[str, ...]] = ("diffusion_pytorch_model.bin",)
    source: str = located("hub:shi-labs/versatile-diffusion/vae")
    resolution_px: int = Field(512, gt=0, le=16_384, description="short side and centre crop, pixels")

    @property
    def known_shape(self) -> tuple[int, ...] | None:
        """Shape of a latent: an eighth of the picture's sides, by the default source."""
        usual = self.model_copy(update={"resolution_px": 512})
        side = self.resolution_px // 8
        return (4, side, side) if super(Config, usual).known_shape else None


TINY = Config(**{**dict(diffusers_vae.TINY), "resolution_px": 16})
