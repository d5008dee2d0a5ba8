"""Grey pixels of a picture, the targets of regressions without a decoder."""

from functools import partial

from pydantic import Field

from brainhive_cli.models import PIXELS, SIDE_PX, Pixels
from brainhive_cli.models.encoders import AnnotationConfig, Encoder
from brainhive_cli.models.encoders.autoencoder import build_encoder


class Config(AnnotationConfig):
    """Grey pixels [H W] in 0..1, for the generator `autoencoder` of source `pixels`."""

    resolution_px: int = Field(
        SIDE_PX, gt=0, le=256, description="side of the pictures"
    )

    def build(self) -> Encoder:
        """Prepare the resizing of pictures to a square."""
        side_px = self.resolution_px
        return build_encoder(partial(Pixels, side_px), side_px, {"source": PIXELS})


TINY = Config(resolution_px=8)
