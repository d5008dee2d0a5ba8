"""One vector of each caption, by the text encoder of the demo's dual-guided generator."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from brainhive_cli.core.clip_conditions import PROJECTED_TEXT
from brainhive_cli.encoders import Encoder, _captions, demo_text


class Config(demo_text.Config):
    """The projected end token, 128 dimensions, as CLIP describes a text."""

    shape = (128,)

    def build(self) -> Encoder:
        """Prepare tokenizer and tower."""
        return replace(self.built(PROJECTED_TEXT, _pooled), preprocessing="CLIPTokenizer, 12 tokens")


TINY = Config(source="random", architecture=_captions.TINY_TOWER)


def _pooled(tower: Any, ids: Tensor) -> Tensor:
    found: Tensor = tower(input_ids=ids).text_embeds
    return found
