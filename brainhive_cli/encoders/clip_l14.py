"""CLIP ViT-L/14 of OpenAI."""

from typing import ClassVar

from pydantic import Field

from brainhive_cli.encoders import transformers_clip


class Config(transformers_clip.Config):
    """Projected image embedding of the hub's weights."""

    dim: ClassVar[int | None] = 768
    image_px: ClassVar[int | None] = 224
    licence: ClassVar[str] = "MIT"
    source: str = Field("hub:openai/clip-vit-large-patch14", description="the same layout from elsewhere")


TINY = Config(**dict(transformers_clip.TINY))
