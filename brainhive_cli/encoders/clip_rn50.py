"""CLIP ResNet-50 of OpenAI, in open_clip's layout."""

from brainhive_cli.encoders import located, open_clip


class Config(open_clip.Config):
    """The image embedding of the attention pool."""

    upstream = "RN50"
    dim = 1024
    image_px = 224
    licence = "MIT"
    source: str = located("hub:timm/resnet50_clip.openai")


TINY = Config(**dict(open_clip.TINY))
