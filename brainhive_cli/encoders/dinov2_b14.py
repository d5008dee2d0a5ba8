"""DINOv2 ViT-B/14."""

from typing import ClassVar

from pydantic import Field

from brainhive_cli.encoders import transformers_vit


class Config(transformers_vit.Config):
    """The class token after the last norm (`pooler_output`)."""

    upstream: ClassVar[str] = "dinov2-base"
    dim: ClassVar[int | None] = 768
    image_px: ClassVar[int | None] = 224
    licence: ClassVar[str] = "Apache-2.0"
    source: str = Field("hub:facebook/dinov2-base", description="the same layout from elsewhere")


TINY = Config(**dict(transformers_vit.TINY))
