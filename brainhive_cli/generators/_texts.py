"""Text tokens as they are given, or of prompts, by a text encoder loaded for that alone."""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor


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
