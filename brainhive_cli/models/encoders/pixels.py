"""The pixels of a picture, grey: the target of regressions that draw without a
decoder.
"""

from functools import partial

from pydantic import Field

from brainhive_cli.models.encoders import AnnotationConfig, Encoder
from brainhive_cli.models.encoders.autoencoder import build_encoder
from brainhive_cli.models.picture_autoencoder import PIXELS, SIDE_PX, Pixels


class Config(AnnotationConfig):
    """Grey pixels [H W] in 0..1, which the generator `autoencoder` of source `pixels`
    draws.
    """

    resolution_px: int = Field(
        SIDE_PX, gt=0, le=256, description="side of the pictures"
    )

    def build(self) -> Encoder:
        """Prepare what squeezes pictures to a square; there are no weights."""
        return build_encoder(
            partial(Pixels, self.resolution_px), self.resolution_px, {"source": PIXELS}
        )


TINY = Config(resolution_px=8)
