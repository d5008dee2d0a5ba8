"""OpenAI's CLIP ViT-B/32, aligned by DreamSim."""

from brainhive_cli.encoders import dreamsim


class Config(dreamsim.Config):
    """DreamSim's type `clip_vitb32`: the projected embedding."""

    dim = 512
    licence = "MIT"
    members = ("clip_vitb32",)
    weight_files = ("clip_vitb32_single_lora/adapter_model.safetensors",)


TINY = Config(**dict(dreamsim.TINY))
