"""The text tokens of the demo's dual-guided generator, of each caption of a picture."""

from dataclasses import replace
from typing import ClassVar

from brainhive_cli.core.clip_conditions import PROJECTED_TEXT, of_texts
from brainhive_cli.encoders import Encoder, _captions, located, vd_text


class Config(vd_text.Config):
    """Twelve tokens of width 128, by a tiny CLIP text model as Versatile Diffusion uses one."""

    licence = "Apache-2.0"
    shape: ClassVar[tuple[int, ...] | None] = (12, 128)
    usual_repeats = 1.0  # pictures of one thing before one background have the same captions
    source: str = located("demo:dual")

    def build(self) -> Encoder:
        """Prepare tokenizer and tower."""
        return replace(self.built(PROJECTED_TEXT, of_texts), preprocessing="CLIPTokenizer, 12 tokens")


TINY = Config(source="random", architecture=_captions.TINY_TOWER)
