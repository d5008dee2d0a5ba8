"""DINO ViT-B/16, aligned by DreamSim."""

from brainhive_cli.encoders import dreamsim


class Config(dreamsim.Config):
    """DreamSim's type `dino_vitb16`: the class token before the last norm."""

    dim = 768
    licence = "MIT, Apache-2.0"
    members = ("dino_vitb16",)
    weight_files = ("dino_vitb16_single_lora/adapter_model.safetensors",)


TINY = Config(**dict(dreamsim.TINY))
