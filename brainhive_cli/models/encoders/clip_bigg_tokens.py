"""OpenCLIP ViT-bigG/14's picture tokens, which MindEye2 decodes and its unCLIP draws
pictures of.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image
from pydantic import Field

from brainhive_cli.models.encoders import (
    Encoder,
    EncoderConfig,
    open_clip,
    source_field,
)

if TYPE_CHECKING:
    from torch import Tensor

SOURCE = "hub:laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"


class Config(EncoderConfig):
    """The 256 tokens behind the last norm, not projected, without the class token.

    Source: MedARC-AI/MindEyeV2 (MIT), `FrozenOpenCLIPImageEmbedder` with `only_tokens`.
    """

    cites = ("radford2021", "ilharco2021", "schuhmann2022")
    image_px = 224
    licence = "MIT"
    shape = (256, 1664)
    config_files = (open_clip.CONFIG_FILE,)
    weight_files = open_clip.Config.weight_files

    source: str = source_field(SOURCE)
    mode: Literal["published", "right"] = Field(
        "published",
        description="published: pictures in 0..1 are mapped to (x + 1) / 2, as "
        "MindEye2 and NEURONS do, which take them for -1..1: their weights "
        "need it; right: as OpenCLIP was trained",
    )
    architecture: dict[str, Any] | Literal[""] = Field(
        "", description="open_clip's `model_cfg` of `random` weights"
    )

    def build(self) -> Encoder:
        """Prepare image tower and transform."""
        # patch tokens [B, S, D] without the class token
        encoder = open_clip.Config(
            source=self.source, output="patches", architecture=self.architecture
        ).build()

        # OpenCLIP's own preprocessing needs no change
        if self.mode == "right":
            return encoder
        # a white picture after the same normalisation: [3, H, W]
        white = encoder.preprocess(Image.new("RGB", (64, 64), "white"))

        def half_way(picture: Any) -> Tensor:
            """Map x to (x + 1) / 2, which is half way to white, also once it is
            normalised.
            """
            return encoder.preprocess(picture).add_(white).div_(2)

        words = f"{encoder.preprocessing}, half way to white"
        return replace(encoder, preprocess=half_way, preprocessing=words)


TINY = Config(source="random", architecture=open_clip.TINY.architecture)
