"""DINO ViT-B/16."""

from typing import ClassVar

from pydantic import Field

from brainhive_cli.encoders import timm


class Config(timm.Config):
    """The class token after the last norm, of timm's copy of the weights."""

    dim: ClassVar[int | None] = 768
    image_px: ClassVar[int | None] = 224
    licence: ClassVar[str] = "Apache-2.0"

    source: str = Field("hub:timm/vit_base_patch16_224.dino", description="the same layout from elsewhere")


TINY = Config(**dict(timm.TINY))
