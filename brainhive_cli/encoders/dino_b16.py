"""DINO ViT-B/16."""

from brainhive_cli.encoders import located, timm


class Config(timm.Config):
    """The class token after the last norm, of timm's copy of the weights."""

    dim = 768
    image_px = 224
    licence = "Apache-2.0"

    source: str = located("hub:timm/vit_base_patch16_224.dino")


TINY = Config(**dict(timm.TINY))
