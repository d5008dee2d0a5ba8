"""DINOv2 ViT-B/14, aligned by gLocal."""

from functools import partial
from typing import ClassVar

from pydantic import Field

from brainhive_cli.encoders import glocal, resolve


class Config(glocal.Config):
    """The transform published for this base."""

    dim: ClassVar[int | None] = 768
    image_px: ClassVar[int | None] = 224
    licence: ClassVar[str] = "MIT, Apache-2.0"
    sha256: ClassVar[str] = "9cf041b79d8c"  # of commit d1860d3; later ones hold DINO's

    base: glocal.Base = Field(
        default_factory=partial(resolve, "dinov2-b14"), description="the same base elsewhere"
    )
    source: str = Field(
        "models/gLocal/transforms/dinov2-vit-base-p14/norm", description="the folder of transform.npz"
    )


TINY = Config(**dict(glocal.TINY))
