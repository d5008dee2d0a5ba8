"""OpenCLIP ViT-B/32 of LAION-400M, aligned by DreamSim."""

from typing import ClassVar

from brainhive_cli.encoders import dreamsim


class Config(dreamsim.Config):
    """DreamSim's type `open_clip_vitb32`: the projected embedding."""

    dim: ClassVar[int | None] = 512
    licence: ClassVar[str] = "MIT"
    members: ClassVar[tuple[str, ...]] = ("open_clip_vitb32",)
    weight_files: ClassVar[tuple[str, ...]] = ("open_clip_vitb32_single_lora/adapter_model.safetensors",)


TINY = Config(**dict(dreamsim.TINY))
