"""OpenAI's CLIP RN50, aligned by gLocal."""

from brainhive_cli.encoders import glocal, located


class Config(glocal.Config):
    """The transform published for this base."""

    dim = 1024
    image_px = 224
    licence = "MIT"

    base: glocal.Base = glocal.fitted_to("clip-rn50")
    source: str = located("models/gLocal/transforms/clip_RN50/visual")


TINY = Config(**dict(glocal.TINY))
