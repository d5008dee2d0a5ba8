"""CLIP ViT-H/14 trained on LAION-2B: the semantic encoder of BrainHiVE's default."""

from typing import ClassVar

from pydantic import Field

from brainhive_cli.encoders import transformers_clip


class Config(transformers_clip.Config):
    """Projected image embedding of the hub's weights."""

    upstream: ClassVar[str] = "CLIP-ViT-H-14-laion2B-s32B-b79K"
    dim: ClassVar[int | None] = 1024
    source: str = Field(
        "hub:laion/CLIP-ViT-H-14-laion2B-s32B-b79K", description="the same layout from elsewhere"
    )


TINY = Config(**dict(transformers_clip.TINY))
