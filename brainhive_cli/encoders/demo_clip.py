"""The demo's small encoder for meaning, in the layout of CLIP."""

from pydantic import Field

from brainhive_cli.encoders import transformers_clip


class Config(transformers_clip.Config):
    """A CLIP vision tower of 128 dimensions, trained on the demo's drawn pictures."""

    source: str = Field("demo:encoder", description="the shipped weights")


TINY = Config(**dict(transformers_clip.TINY))
