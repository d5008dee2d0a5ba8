"""DINOv2 ViT-B/14, aligned by DreamSim."""

from brainhive_cli.encoders import dreamsim


class Config(dreamsim.Config):
    """DreamSim's type `dinov2_vitb14`: the class token before the last norm."""

    dim = 768
    licence = "MIT, Apache-2.0"
    members = ("dinov2_vitb14",)
    weight_files = ("dinov2_vitb14_single_lora/adapter_model.safetensors",)


TINY = Config(**dict(dreamsim.TINY))
