"""OpenAI's CLIP ViT-L/14, aligned by gLocal."""

from brainhive_cli.encoders import glocal, located


class Config(glocal.Config):
    """The transform published for this base."""

    dim = 768
    image_px = 224
    licence = "MIT"

    base: glocal.Base = glocal.fitted_to("clip-l14")
    source: str = located("models/gLocal/transforms/clip_ViT-L/14/visual")


TINY = Config(**dict(glocal.TINY))
