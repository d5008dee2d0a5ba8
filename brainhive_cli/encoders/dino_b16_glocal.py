"""DINO ViT-B/16, aligned by gLocal."""

from functools import partial
from typing import ClassVar

from pydantic import Field

from brainhive_cli.encoders import glocal, resolve


class Config(glocal.Config):
    """The transform published for this base."""

    dim: ClassVar[int | None] = 768
    image_px: ClassVar[int | None] = 224
    licence: ClassVar[str] = "MIT, Apache-2.0"

    base: glocal.Base = Field(
        default_factory=partial(resolve, "dino-b16"), description="the same base elsewhere"
    )
    source: str = Field(
        "models/gLocal/transforms/dino-vit-base-p16/norm", description="the folder of transform.npz"
    )


TINY = Config(**dict(glocal.TINY))
