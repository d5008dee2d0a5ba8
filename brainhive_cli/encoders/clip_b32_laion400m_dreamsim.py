"""OpenCLIP ViT-B/32 of LAION-400M, aligned by DreamSim."""

from brainhive_cli.encoders import dreamsim


class Config(dreamsim.Config):
    """DreamSim's type `open_clip_vitb32`: the projected embedding."""

    dim = 512
    licence = "MIT"
    members = ("open_clip_vitb32",)
    weight_files = ("open_clip_vitb32_single_lora/adapter_model.safetensors",)


TINY = Config(**dict(dreamsim.TINY))
