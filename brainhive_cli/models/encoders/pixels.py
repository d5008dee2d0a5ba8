"""The pixels of a picture, grey: the target of regressions that draw without a decoder."""

from pydantic import Field

from brainhive_cli.models.encoders import autoencoder
from brainhive_cli.models.picture_autoencoder import PIXELS


class Config(autoencoder.Config):
    """Grey pixels [H W] in 0..1, which the generator `autoencoder` of source `pixels` draws."""

    cites = ()

    source: str = Field(PIXELS, description="pixels")


TINY = Config(resolution_px=8)
