"""CLIP ViT-H/14 trained on LAION-2B: the semantic encoder of BrainHiVE's default."""

from brainhive_cli.encoders import located, transformers_clip


class Config(transformers_clip.Config):
    """Projected image embedding of the hub's weights."""

    upstream = "CLIP-ViT-H-14-laion2B-s32B-b79K"
    dim = 1024
    image_px = 224
    licence = "MIT"
    source: str = located("hub:laion/CLIP-ViT-H-14-laion2B-s32B-b79K")


TINY = Config(**dict(transformers_clip.TINY))
