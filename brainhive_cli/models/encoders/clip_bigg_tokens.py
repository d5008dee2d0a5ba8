"""Picture tokens of OpenCLIP ViT-bigG/14, which MindEye2 decodes into pictures."""

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
    """256 patch tokens after the last norm, neither projected nor normalised.

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
        description="published: map pictures from 0..1 to (x + 1) / 2, as MindEye2 and "
        "NEURONS do, whose weights need it; right: preprocess as OpenCLIP does",
    )
    architecture: dict[str, Any] | Literal[""] = Field(
        "", description="open_clip's `model_cfg` of `random` weights"
    )

    def build(self) -> Encoder:
        """Prepare image tower and transform.

        Raises:
            MissingData: if the folder lacks files.
        """
        # patch tokens [B, S, D] without the class token
        encoder = open_clip.Config(
            source=self.source, output="patches", architecture=self.architecture
        ).build()

        if self.mode == "right":
            return encoder

        # (x + 1) / 2 is the mean of x and white, before or after normalisation
        white = encoder.preprocess(Image.new("RGB", (64, 64), "white"))  # [3, H, W]

        def preprocess(picture: Any) -> Tensor:
            return encoder.preprocess(picture).add_(white).div_(2)

        return replace(
            encoder,
            preprocess=preprocess,
            preprocessing=f"{encoder.preprocessing}, half way to white",
        )


TINY = Config(source="random", architecture=open_clip.TINY.architecture)
