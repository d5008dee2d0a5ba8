"""SynCLR ViT-B/16, aligned by DreamSim."""

from typing import ClassVar

from brainhive_cli.encoders import dreamsim


class Config(dreamsim.Config):
    """DreamSim's type `synclr_vitb16`: the class token before the last norm."""

    dim: ClassVar[int | None] = 768
    licence: ClassVar[str] = "MIT, Apache-2.0"
    members: ClassVar[tuple[str, ...]] = ("synclr_vitb16",)
    weight_files: ClassVar[tuple[str, ...]] = ("synclr_vitb16_single_lora/adapter_model.safetensors",)


TINY = Config(**dict(dreamsim.TINY))
