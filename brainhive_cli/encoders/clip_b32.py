"""CLIP ViT-B/32 trained on LAION-2B."""

from typing import ClassVar

from pydantic import Field

from brainhive_cli.encoders import transformers_clip


class Config(transformers_clip.Config):
    """Projected image embedding of the hub's weights."""

    upstream: ClassVar[str] = "CLIP-ViT-B-32-laion2B-s34B-b79K"
    dim: ClassVar[int | None] = 512
    source: str = Field(
        "hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", description="the same layout from elsewhere"
    )


TINY = Config(**dict(transformers_clip.TINY))
