"""DINOv2 ViT-B/14, aligned by DreamSim."""

from typing import ClassVar

from brainhive_cli.encoders import dreamsim


class Config(dreamsim.Config):
    """DreamSim's type `dinov2_vitb14`: the class token before the last norm."""

    dim: ClassVar[int | None] = 768
    licence: ClassVar[str] = "MIT, Apache-2.0"
    members: ClassVar[tuple[str, ...]] = ("dinov2_vitb14",)
    weight_files: ClassVar[tuple[str, ...]] = ("dinov2_vitb14_single_lora/adapter_model.safetensors",)


TINY = Config(**dict(dreamsim.TINY))
