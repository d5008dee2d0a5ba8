"""What encoders of captions have in common: a target for each caption of a picture, or one of all."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import hub
from brainhive_cli.core.clip_conditions import TEXT, token_ids, tower_of
from brainhive_cli.encoders import EMBEDDING, Encoder, EncoderConfig, fetch, untrained

Output = Literal["embedding", "average", "first"]
LENGTH = 77
"""Tokens of a caption."""


class CaptionConfig(EncoderConfig):
    """Text tokens of captions, by the text encoder of a diffusion model's folder."""

    reads: ClassVar[Literal["captions"]] = "captions"
    shape: ClassVar[tuple[int, ...] | None] = (LENGTH, 768)
    config_files = (f"{TEXT}/config.json",)
    also_fetched: ClassVar[tuple[str, ...]] = ("tokenizer/*",)
    licence = "MIT"

    output: Output | list[Output] = Field(
        "embedding",
        description="embedding: a target for each caption, of which training draws one a step; average (of "
        "the distinct captions, as Brain-Diffuser); first; several as a list: a store each, one forward",
    )
    architecture: dict[str, Any] = Field({}, description="transformers' config of `random` weights")

    @property
    def combines(self) -> str:
        """How the targets of a stimulus's captions become one; empty where each is kept."""
        return super().combines if self.output == EMBEDDING else str(self.output)

    def built(self, kind: str, tokens: Callable[[Any, Tensor], Tensor]) -> Encoder:
        """Prepare tokenizer and tower.

        Args:
            kind: The tower's class in transformers.
            tokens: Makes text tokens [B, S, D] of the tower and token ids [B, S].
        """
        source: str = getattr(self, "source", "")
        if source == "random":
            load: Callable[[], nn.Module] = partial(untrained, partial(_drawn, kind, self.architecture))
            words, weights = "letters", {"source": source}
            ids: Callable[[str], Tensor] = _letters
        else:
            folder, weights = fetch(self)
            load = partial(tower_of, folder, TEXT, kind)
            ids = token_ids(hub.folder(source, allow=("tokenizer/*",)))
            words = f"CLIPTokenizer, {LENGTH} tokens"
        return Encoder(lambda: _Tokens(load(), tokens, self.output), ids, words, weights, "captions")


TINY_TOWER = {
    "vocab_size": 129,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "projection_dim": 8,
}


def _drawn(kind: str, architecture: dict[str, Any]) -> nn.Module:
    import transformers

    made: nn.Module = getattr(transformers, kind)(transformers.CLIPTextConfig(**architecture))
    return made


def _letters(text: str) -> Tensor:
    """Take letters for tokens, for random weights."""
    ids = [128, *(min(ord(letter), 127) for letter in text[: LENGTH - 2]), 128]
    return torch.tensor(ids + [128] * (LENGTH - len(ids)))


class _Tokens(nn.Module):
    """Token ids [B, S] to text tokens [B, S, D], once for each output."""

    def __init__(self, tower: Any, tokens: Callable[[Any, Tensor], Tensor], output: Any) -> None:
        super().__init__()
        self.tower, self.tokens, self.output = tower, tokens, output

    def forward(self, ids: Tensor) -> Tensor | list[Tensor]:
        found = self.tokens(self.tower, ids)
        return found if isinstance(self.output, str) else [found] * len(self.output)
