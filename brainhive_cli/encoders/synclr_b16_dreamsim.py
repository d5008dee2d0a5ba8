"""SynCLR ViT-B/16, aligned by DreamSim."""

from brainhive_cli.encoders import dreamsim


class Config(dreamsim.Config):
    """DreamSim's type `synclr_vitb16`: the class token before the last norm."""

    dim = 768
    licence = "MIT, Apache-2.0"
    members = ("synclr_vitb16",)
    weight_files = ("synclr_vitb16_single_lora/adapter_model.safetensors",)


TINY = Config(**dict(dreamsim.TINY))
