"""DINOv2 ViT-B/14, aligned by DreamSim by its class token and patches."""

from brainhive_cli.encoders import dreamsim


class Config(dreamsim.Config):
    """DreamSim's type `dinov2_vitb14_patch`: the class token and the mean of the patches."""

    dim = 1536
    licence = "MIT, Apache-2.0"
    members = ("dinov2_vitb14",)
    has_patches = True
    weight_files = ("dinov2_vitb14_patch_lora/adapter_model.safetensors",)


TINY = Config(**dict(dreamsim.TINY))
