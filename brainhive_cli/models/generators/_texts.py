"""Text tokens as they are given, or of prompts, by a text encoder loaded for that alone."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from brainhive_cli.core.errors import MissingData
from brainhive_cli.models.clip_conditions import PLAIN_TEXT, token_ids, tower_of
from brainhive_cli.models.generators import _components

TOKENS = 77
"""Of a text, by CLIP's text encoders."""
STEM = "text_encoder/model"


class Texts:
    """Embeds each prompt once.

    Args:
        load: Loads what embeds a prompt [1, S, D].
    """

    def __init__(self, load: Callable[[], Callable[[str], Tensor]]) -> None:
        self._load = load
        self._held: dict[str, Tensor] = {}

    def tokens(self, texts: Tensor | list[str] | None, prompt: str) -> Tensor | None:
        """Give tokens [B, S, D] of the rows' texts, or [1, S, D] of the prompt; None without either."""
        if isinstance(texts, list):
            return torch.cat([self._embed(words) for words in texts])
        return self._embed(prompt) if texts is None and prompt else texts

    def _embed(self, words: str) -> Tensor:
        if words not in self._held:
            with torch.inference_mode():
                self._held[words] = self._encoder(words)
        return self._held[words]

    @cached_property
    def _encoder(self) -> Callable[[str], Tensor]:
        return self._load()


def clip_text(source: str, variant: str | None) -> Callable[[str], Tensor]:
    """Load the text encoder of a Stable Diffusion 1 folder: from a prompt to its last states [1, S, D]."""
    if source == _components.RANDOM:
        raise MissingData(
            "a generator of random weights has no text encoder for prompts", "leave prompts out"
        )
    folder = _components.folder_of(source, variant, text=True)
    for name in ("text_encoder", "tokenizer"):
        _components.read(folder, name)
    tower: Any = tower_of(folder, "text_encoder", PLAIN_TEXT, variant)
    ids = token_ids(folder)
    return lambda words: tower(input_ids=ids(words)[None]).last_hidden_state
