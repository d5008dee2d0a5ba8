"""Text tokens as Versatile Diffusion takes them: CLIP ViT-L/14's, projected, by the end
token's length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from brainhive_cli.core import hub
from brainhive_cli.models import clip_conditions as clip, encoders
from brainhive_cli.models.encoders import (
    Encoder,
    EncoderConfig,
    ModelConfig,
    source_field,
)
from brainhive_cli.models.encoders._weights import list_weight_files, prepare_network

if TYPE_CHECKING:
    from torch import Tensor, nn

TextOutput = Literal["embedding", "average", "first"]
CAPTION_TOKENS = 77
"""Tokens of a caption."""
TOKEN_KINDS: Mapping[str, tuple[str, Callable[[Any, Tensor], Tensor]]] = {
    "projected": (clip.PROJECTED_TEXT_TOWER, clip.encode_texts),
    "last hidden": (
        clip.PLAIN_TEXT_TOWER,
        lambda tower, ids: tower(input_ids=ids).last_hidden_state,
    ),
    "pooled": (
        clip.PROJECTED_TEXT_TOWER,
        lambda tower, ids: tower(input_ids=ids).text_embeds,
    ),
}
"""By name: the tower's class in transformers, and what it makes of token ids [B, S]:
[B, S, D], or [B, D].
"""


class Config(EncoderConfig):
    """Captions as 77 tokens of width 768: a target for each caption of a picture, or
    one of all.
    """

    cites = ("xu2023", "radford2021")
    reads: ClassVar[Literal["captions"]] = "captions"
    shape = (CAPTION_TOKENS, 768)
    config_files = (f"{clip.TEXT_FOLDER}/config.json",)
    weight_files = (
        f"{clip.TEXT_FOLDER}/*.safetensors",
        f"{clip.TEXT_FOLDER}/pytorch_model.bin",
    )
    also_fetched = (f"{clip.TEXT_FOLDER}/pytorch_model.bin", "tokenizer/*")
    licence = "MIT"
    components: ClassVar[tuple[str, str]] = (clip.TEXT_FOLDER, clip.TOKENIZER_FOLDER)
    """Folders of tower and tokenizer; "" where their files lie among the whole
    model's.
    """
    tokenizer_files: ClassVar[tuple[str, ...]] = ("tokenizer/*",)
    length: ClassVar[int] = CAPTION_TOKENS
    """Tokens of a caption."""
    tokens: ClassVar[str] = "projected"
    """Which of TOKENS they are."""

    output: TextOutput | list[TextOutput] = Field(
        "embedding",
        description="embedding: a target for each caption, of which training draws one "
        "a step; average (of the distinct captions, as Brain-Diffuser); "
        "first; several as a list: a store each, one forward",
    )
    architecture: dict[str, Any] = Field(
        {}, description="transformers' config of `random` weights"
    )
    source: str = source_field(clip.SOURCE)

    def build(self) -> Encoder:
        """Prepare tokenizer and tower; MissingData when the folder lacks either."""
        from brainhive_cli.models.encoders._outputs import Tower

        # class of the tower, and the function that reads its tokens
        (kind, tokens), (text, tokenizer) = TOKEN_KINDS[self.tokens], self.components

        def draw() -> nn.Module:
            import transformers

            return getattr(transformers, kind)(
                transformers.CLIPTextConfig(**self.architecture)
            )

        def load_tower(folder: Path) -> nn.Module:
            # the projection's width, which some folders state outside of the tower's
            # config
            options = ModelConfig.read(folder / text).model_dump(
                include={"projection_dim"}, exclude_none=True
            )
            return clip.load_tower(
                folder, text, kind, files=list_weight_files(self, folder), **options
            )

        # the tower is loaded when it is first used
        load, weights = prepare_network(self, draw, load_tower)

        # random weights have no vocabulary: letters are their tokens
        if self.source == "random":
            words = "letters"
            ids: Callable[[str], Tensor] = _tokenize_letters
        else:
            words = f"CLIPTokenizer, {self.length} tokens"
            ids = clip.load_tokenizer(
                hub.folder(self.source, allow=self.tokenizer_files), tokenizer
            )

        def encode(tower: Any, ids: Tensor) -> Tensor | list[Tensor]:
            """Map token ids [B, S] to text tokens [B, S, D], once for each output."""
            # outputs differ in how captions are combined later, so one forward serves
            # all
            encoded = tokens(tower, ids)
            if isinstance(self.output, str):
                return encoded
            return [encoded] * len(self.output)

        return Encoder(lambda: Tower(load(), encode), ids, words, weights, "captions")


TINY = Config(source="random", architecture=encoders.TINY_ARCHITECTURES["vd-text"])


def _tokenize_letters(text: str) -> Tensor:
    """Take letters for tokens, for random weights."""
    import torch

    # 128 is start, end and padding; letters are limited to ASCII
    ids = [128, *(min(ord(letter), 127) for letter in text[: CAPTION_TOKENS - 2]), 128]
    return torch.tensor(ids + [128] * (CAPTION_TOKENS - len(ids)))
