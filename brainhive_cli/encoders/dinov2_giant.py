"""DINOv2 ViT-g/14."""

from typing import ClassVar

from pydantic import Field

from brainhive_cli.encoders import transformers_vit


class Config(transformers_vit.Config):
    """The class token after the last norm (`pooler_output`)."""

    dim: ClassVar[int | None] = 1536
    image_px: ClassVar[int | None] = 224
    licence: ClassVar[str] = "Apache-2.0"
    source: str = Field("hub:facebook/dinov2-giant", description="the same layout from elsewhere")


TINY = Config(**dict(transformers_vit.TINY))
