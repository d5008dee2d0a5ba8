"""Stable Diffusion 1.5's autoencoder: the latent that its pictures start from."""

from brainhive_cli.encoders import diffusers_vae, located, vd_vae


class Config(vd_vae.Config):
    """The latent of a 512-pixel picture: 4 × 64 × 64."""

    licence = "CreativeML OpenRAIL-M"
    also_fetched = ()
    source: str = located("hub:stable-diffusion-v1-5/stable-diffusion-v1-5/vae")


TINY = Config(**dict(diffusers_vae.TINY))
