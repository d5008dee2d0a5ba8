"""OpenCLIP ViT-bigG/14's text embedding of captions, which MindEye2 and NEURONS compare
brain tokens with.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from brainhive_cli.models import encoders
from brainhive_cli.models.clip_conditions import Vocabulary
from brainhive_cli.models.encoders import (
    Encoder,
    EncoderConfig,
    open_clip,
    source_field,
)
from brainhive_cli.models.encoders._weights import build_untrained, fetch_weights
from brainhive_cli.models.encoders.clip_bigg_tokens import SOURCE

if TYPE_CHECKING:
    from torch import nn

LENGTH = 77
"""Tokens of a caption, unless the model says otherwise."""


class Config(EncoderConfig):
    """The projected token at the end of a caption, not normalised: 1280 values."""

    cites = ("radford2021", "ilharco2021", "schuhmann2022")
    reads: ClassVar[Literal["captions"]] = "captions"
    dim = 1280
    licence = "MIT"
    config_files = (open_clip.CONFIG_FILE,)
    weight_files = open_clip.Config.weight_files

    source: str = source_field(SOURCE)
    architecture: dict[str, Any] = Field(
        {}, description="open_clip's `model_cfg` of `random` weights"
    )

    def build(self) -> Encoder:
        """Prepare vocabulary and text tower."""
        from brainhive_cli.models.encoders._outputs import Tower

        # choose how both towers are loaded: drawn for tests, or from the folder
        if self.source == "random":
            from open_clip import CLIP

            model = self.architecture
            weights = {"source": self.source}
            load = partial(build_untrained, partial(CLIP, **model))
        else:
            folder, weights = fetch_weights(self)
            model, _ = open_clip.read_config(folder)
            load = partial(open_clip.load_towers, self, folder)

        # captions have the context length of the text tower
        length = model.get("text_cfg", {}).get("context_length", LENGTH)
        tokens = Vocabulary(length=length)

        def text_tower() -> nn.Module:
            both: Any = load()
            both.visual = None  # four fifths of the weights
            # [B, S] to [B, D], not normalised
            return Tower(both, lambda tower, ids: tower.encode_text(ids))

        return Encoder(
            text_tower,
            tokens.encode,
            f"CLIP's vocabulary, {length} tokens",
            weights,
            self.reads,
        )


TINY = Config(
    source="random", architecture=encoders.TINY_ARCHITECTURES["clip-bigg-text"]
)
