"""CLIP ViT-L/14 of OpenAI."""

from brainhive_cli.encoders import located, transformers_clip


class Config(transformers_clip.Config):
    """Projected image embedding of the hub's weights."""

    dim = 768
    image_px = 224
    licence = "MIT"
    source: str = located("hub:openai/clip-vit-large-patch14")


TINY = Config(**dict(transformers_clip.TINY))
