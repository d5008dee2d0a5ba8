"""CLIP ViT-B/32 trained on LAION-2B."""

from brainhive_cli.encoders import located, transformers_clip


class Config(transformers_clip.Config):
    """Projected image embedding of the hub's weights."""

    upstream = "CLIP-ViT-B-32-laion2B-s34B-b79K"
    dim = 512
    image_px = 224
    licence = "MIT"
    usual_cosine = (0.1, 0.7)  # 0.3264 on THINGS; a broken cache has 0.9943
    source: str = located("hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K")


TINY = Config(**dict(transformers_clip.TINY))
