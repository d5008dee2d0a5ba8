"""DINO ViT-B/16, aligned by DreamSim by its class token and patches."""

from brainhive_cli.encoders import dreamsim


class Config(dreamsim.Config):
    """DreamSim's type `dino_vitb16_patch`: the class token and the mean of the patches."""

    dim = 1536
    licence = "MIT, Apache-2.0"
    members = ("dino_vitb16",)
    has_patches = True
    weight_files = ("dino_vitb16_patch_lora/adapter_model.safetensors",)


TINY = Config(**dict(dreamsim.TINY))
