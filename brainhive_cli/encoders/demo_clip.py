"""The demo's small encoder for meaning, in the layout of CLIP."""

from typing import ClassVar

from pydantic import Field

from brainhive_cli.encoders import transformers_clip


class Config(transformers_clip.Config):
    """A CLIP vision tower of 128 dimensions, trained on the demo's drawn pictures."""

    dim: ClassVar[int | None] = 128
    image_px: ClassVar[int | None] = 64
    licence: ClassVar[str] = "Apache-2.0"
    source: str = Field("demo:encoder", description="the shipped weights")


TINY = Config(**dict(transformers_clip.TINY))
