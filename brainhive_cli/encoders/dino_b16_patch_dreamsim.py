"""DINO ViT-B/16, aligned by DreamSim by its class token and patches."""

from typing import ClassVar

from brainhive_cli.encoders import dreamsim


class Config(dreamsim.Config):
    """DreamSim's type `dino_vitb16_patch`: the class token and the mean of the patches."""

    dim: ClassVar[int | None] = 1536
    licence: ClassVar[str] = "MIT, Apache-2.0"
    members: ClassVar[tuple[str, ...]] = ("dino_vitb16",)
    has_patches: ClassVar[bool] = True
    weight_files: ClassVar[tuple[str, ...]] = ("dino_vitb16_patch_lora/adapter_model.safetensors",)


TINY = Config(**dict(dreamsim.TINY))
