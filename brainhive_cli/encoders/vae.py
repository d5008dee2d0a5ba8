"""SDXL's autoencoder: the structural encoder of BrainHiVE."""

from brainhive_cli.encoders import diffusers_vae, located


class Config(diffusers_vae.Config):
    """The latent of a 128-pixel picture: 4 × 16 × 16 = 1024 values."""

    upstream = "vae"
    dim = 1024
    image_px = 128
    licence = "OpenRAIL++-M"
    source: str = located("hub:stabilityai/stable-diffusion-xl-base-1.0/vae")


TINY = Config(**dict(diffusers_vae.TINY))
