"""The demo's small encoder for meaning, in the layout of CLIP."""

from brainhive_cli.encoders import located, transformers_clip


class Config(transformers_clip.Config):
    """A CLIP vision tower of 128 dimensions, trained on the demo's drawn pictures."""

    dim = 128
    image_px = 64
    licence = "Apache-2.0"
    source: str = located("demo:encoder")


TINY = Config(**dict(transformers_clip.TINY))
