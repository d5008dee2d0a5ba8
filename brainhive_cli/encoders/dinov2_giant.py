"""DINOv2 ViT-g/14."""

from brainhive_cli.encoders import located, transformers_vit


class Config(transformers_vit.Config):
    """The class token after the last norm (`pooler_output`)."""

    dim = 1536
    image_px = 224
    licence = "Apache-2.0"
    source: str = located("hub:facebook/dinov2-giant")


TINY = Config(**dict(transformers_vit.TINY))
