"""Captions as token ids of CLIP's vocabulary, padded with zeros, and back."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from brainhive_cli.core import hub, weights
from brainhive_cli.core.errors import MissingData, MissingExtra
from brainhive_cli.models.clip_conditions import TOKENIZER

OPEN_CLIP = "open-clip"
"""The vocabulary that lies in open_clip: 49408 tokens; 49406 starts a caption, 49407 ends it."""


class CaptionTokens:
    """A vocabulary.

    Args:
        source: `open-clip`, or a folder or hub reference with a CLIP tokenizer in `tokenizer`.
        length: Ids of a caption, the first and the last token included; longer captions are cut.

    Raises:
        MissingExtra: if open_clip is not installed.
        MissingData: if the folder has no tokenizer.
    """

    def __init__(self, source: str = OPEN_CLIP, length: int = 60) -> None:
        self.length = length
        self.start, self.end, self._encode, self._decode = (
            _of_open_clip() if source == OPEN_CLIP else _of_folder(source)
        )

    def ids(self, text: str) -> Tensor:
        """Make the ids [length] of a caption: start, words, end, zeros.

        Source: openai/CLIP, `tokenize` (MIT).
        """
        found = [self.start, *self._encode(text)[: self.length - 2], self.end]
        return torch.tensor(found + [0] * (self.length - len(found)))

    def text(self, ids: Iterable[int]) -> str:
        """Write the caption of ids, up to the first token that ends it; zeros are passed over."""
        words = []
        for each in ids:
            if each == self.end:
                break
            if each not in (0, self.start):
                words.append(each)
        return self._decode(words).strip()


Vocabulary = tuple[int, int, Callable[[str], list[int]], Callable[[list[int]], str]]


def _of_open_clip() -> Vocabulary:
    try:
        from open_clip.tokenizer import SimpleTokenizer
    except ModuleNotFoundError as error:
        raise MissingExtra("open_clip is not installed", "pip install 'brainhive[open-clip]'") from error
    known = SimpleTokenizer()
    return known.sot_token_id, known.eot_token_id, known.encode, known.decode


def _of_folder(source: str) -> Vocabulary:
    from transformers import CLIPTokenizer

    folder = hub.folder(source, allow=(f"{TOKENIZER}/*",)) / TOKENIZER
    if not folder.is_dir():  # transformers would take it for a name on the hub
        raise MissingData(f"{folder} does not exist", "give a whole folder, or download it again")
    with weights.reading(folder):
        known: Any = CLIPTokenizer.from_pretrained(folder)

    def encode(text: str) -> list[int]:
        found: list[int] = known(text, add_special_tokens=False).input_ids
        return found

    return known.bos_token_id, known.eos_token_id, encode, known.decode
