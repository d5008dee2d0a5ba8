"""OpenAI's CLIP RN50, aligned by gLocal."""

from functools import partial
from typing import ClassVar

from pydantic import Field

from brainhive_cli.encoders import glocal, resolve


class Config(glocal.Config):
    """The transform published for this base."""

    dim: ClassVar[int | None] = 1024
    image_px: ClassVar[int | None] = 224
    licence: ClassVar[str] = "MIT"

    base: glocal.Base = Field(
        default_factory=partial(resolve, "clip-rn50"), description="the same base elsewhere"
    )
    source: str = Field(
        "models/gLocal/transforms/clip_RN50/visual", description="the folder of transform.npz"
    )


TINY = Config(**dict(glocal.TINY))
