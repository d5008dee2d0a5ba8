"""DINOv2 ViT-B/14, aligned by gLocal."""

from brainhive_cli.encoders import glocal, located


class Config(glocal.Config):
    """The transform published for this base."""

    dim = 768
    image_px = 224
    licence = "MIT, Apache-2.0"
    sha256 = "9cf041b79d8c"  # of commit d1860d3; later ones hold DINO's

    base: glocal.Base = glocal.fitted_to("dinov2-b14")
    source: str = located("models/gLocal/transforms/dinov2-vit-base-p14/norm")


TINY = Config(**dict(glocal.TINY))
