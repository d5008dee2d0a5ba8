"""Text embedding of captions by OpenCLIP ViT-bigG/14, as in MindEye2 and NEURONS."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from brainhive_cli.models import Vocabulary, encoders
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


class Config(EncoderConfig):
    """Projected end token [1280] of a caption, not normalised."""

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
        """Prepare vocabulary and text tower.

        Raises:
            MissingData: if the folder lacks files.
        """
        from brainhive_cli.models.encoders._outputs import Tower

        # both towers with random weights, or from the folder
        if self.source == "random":
            from open_clip import CLIP

            model = self.architecture
            weights = {"source": self.source}
            load = partial(build_untrained, partial(CLIP, **model))
        else:
            folder, weights = fetch_weights(self)
            model, _ = open_clip.read_config(folder)
            load = partial(open_clip.load_towers, self, folder)

        # Number of tokens of a caption if the config does not state it.
        n_tokens = 77
        # captions have the context length of the text tower
        length = model.get("text_cfg", {}).get("context_length", n_tokens)
        vocabulary = Vocabulary(length=length)

        def load_text_tower() -> nn.Module:
            towers: Any = load()
            towers.visual = None  # frees four fifths of the weights
            # [B, S] to [B, D], not normalised
            return Tower(towers, lambda towers, ids: towers.encode_text(ids))

        return Encoder(
            network=load_text_tower,
            preprocess=vocabulary.encode,
            preprocessing=f"CLIP's vocabulary, {length} tokens",
            weights=weights,
            reads=self.reads,
        )


TINY = Config(
    source="random", architecture=encoders.TINY_ARCHITECTURES["clip-bigg-text"]
)
