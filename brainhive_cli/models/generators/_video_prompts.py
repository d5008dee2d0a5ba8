"""Text tokens of captions, as a video's U-Net takes them, and those that guidance moves away from."""

from collections.abc import Callable

import torch
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.models.conditioning import Conditioning
from brainhive_cli.models.generators._texts import TOKENS, Texts


class VideoPrompts:
    """Tokens of captions with a suffix, and of the negative prompt.

    Args:
        load: Loads what embeds a prompt [1, S, D].
        suffix: Added to captions.
        negative: The negative prompt, if a recipe names none.
        is_encoded: Whether no text is the empty or negative prompt, encoded; else zeros.
        width: D, of the U-Net.
        to: Device and dtype of the U-Net.
    """

    def __init__(
        self,
        load: Callable[[], Callable[[str], Tensor]],
        suffix: str,
        negative: str,
        is_encoded: bool,
        width: int,
        to: tuple[torch.device, torch.dtype],
    ) -> None:
        self.texts, self.suffix, self.negative = Texts(load), suffix, negative
        self.is_encoded, self.width, self.to = is_encoded, width, to

    def given(self, conditioning: Conditioning, prompt: str, rows: int) -> Tensor:
        """Give the tokens of B rows; those of no text where they bring none."""
        texts = conditioning.texts
        if texts is not None and prompt:
            raise RecipeError("prompt has no effect where there are captions", "leave prompt out")
        if isinstance(texts, list):
            texts = [words + self.suffix for words in texts]
        tokens = self.texts.tokens(texts, prompt)
        return self._checked(self._nothing("", TOKENS) if tokens is None else tokens, rows)

    def unconditional(self, null: Conditioning, prompt: str, like: Tensor) -> Tensor:
        """Give the other side of guidance: what `null` or the negative prompt says."""
        tokens = self.texts.tokens(None if prompt else null.texts, prompt)
        if tokens is None:
            tokens = self._nothing(self.negative, like.shape[1])
        found = self._checked(tokens, len(like))
        if found.shape != like.shape:
            raise BrainhiveError(
                f"the text has the shape {list(like.shape)}, the unconditional {list(found.shape)}",
                "use a head that predicts sd15-text, or generator.unconditional=zeros",
            )
        return found

    def _nothing(self, words: str, count: int) -> Tensor:
        if not self.is_encoded:
            return torch.zeros(1, count, self.width)
        found = self.texts.tokens([words], "")
        assert found is not None
        return found

    def _checked(self, tokens: Tensor, rows: int) -> Tensor:
        if tokens.ndim != 3 or tokens.shape[-1] != self.width:
            raise BrainhiveError(
                f"the generator takes text embeddings [B, S, {self.width}], not {list(tokens.shape)}",
                "use a head that predicts the encoder sd15-text, or captions",
            )
        return tokens.to(*self.to).expand(rows, -1, -1)
