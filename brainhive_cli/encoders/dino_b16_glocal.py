"""DINO ViT-B/16, aligned by gLocal."""

from brainhive_cli.encoders import glocal, located


class Config(glocal.Config):
    """The transform published for this base."""

    dim = 768
    image_px = 224
    licence = "MIT, Apache-2.0"

    base: glocal.Base = glocal.fitted_to("dino-b16")
    source: str = located("models/gLocal/transforms/dino-vit-base-p16/norm")


TINY = Config(**dict(glocal.TINY))
