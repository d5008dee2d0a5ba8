"""CLIP ResNet-50 of OpenAI, in open_clip's layout."""

from typing import ClassVar

from pydantic import Field

from brainhive_cli.encoders import open_clip


class Config(open_clip.Config):
    """The image embedding of the attention pool."""

    upstream: ClassVar[str] = "RN50"
    dim: ClassVar[int | None] = 1024
    image_px: ClassVar[int | None] = 224
    licence: ClassVar[str] = "MIT"
    source: str = Field("hub:timm/resnet50_clip.openai", description="the same layout from elsewhere")


TINY = Config(**dict(open_clip.TINY))
