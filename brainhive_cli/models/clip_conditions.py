"""CLIP in diffusion models: ids of captions, and the tokens that its towers make of
pictures and texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainhive_cli.core import hub, weights
from brainhive_cli.core.errors import MissingData
from brainhive_cli.models.foreign_weights import load_network

if TYPE_CHECKING:
    from torch import Tensor, nn

SOURCE = "hub:shi-labs/versatile-diffusion"
IMAGE_FOLDER, TEXT_FOLDER = "image_encoder", "text_encoder"
"""Folders of the two towers of a diffusion model."""
IMAGE_TOWER, PROJECTED_TEXT_TOWER, PLAIN_TEXT_TOWER = (
    "CLIPVisionModelWithProjection",
    "CLIPTextModelWithProjection",
    "CLIPTextModel",
)
"""Classes of transformers: Versatile Diffusion's towers, and the text tower of Stable
Diffusion 1.
"""
PROCESSOR_FOLDER, TOKENIZER_FOLDER = "image_feature_extractor", "tokenizer"
"""Folders of what prepares pictures and texts: transformers' CLIPImageProcessor and
CLIPTokenizer.
"""
OPEN_CLIP = "open-clip"
"""The vocabulary that lies in open_clip: 49408 tokens; 49406 starts a caption, 49407
ends it.
"""


def encode_pictures(tower: Any, pixels: Tensor) -> Tensor:
    """Make image tokens [B, S, D] of preprocessed pictures [B, 3, H, W], the class
    token first.

    The last norm and the projection act on all tokens; all are divided by the class
    token's length.

    Source: diffusers' VersatileDiffusionDualGuidedPipeline (Apache 2.0); arXiv
    2211.08332.
    """
    hidden = tower.vision_model(pixel_values=pixels).last_hidden_state
    # transformers would norm and project the class token alone
    tokens: Tensor = tower.visual_projection(tower.vision_model.post_layernorm(hidden))
    return tokens.div(tokens[:, :1].norm(dim=-1, keepdim=True))  # [B, S, D]


def encode_texts(tower: Any, ids: Tensor) -> Tensor:
    """Make text tokens [B, S, D] of token ids [B, S], all divided by the length of the
    projected end token.

    Source: as `of_pictures`.
    """
    encoded = tower(input_ids=ids)
    tokens: Tensor = tower.text_projection(encoded.last_hidden_state)
    # text_embeds [B, D] are the projected end tokens
    return tokens.div(encoded.text_embeds.norm(dim=-1, keepdim=True)[:, None])


def load_tower(folder: Path, component: str, kind: str, **options: Any) -> nn.Module:
    """Load a tower from its folder below a diffusion model's, frozen, in float32.

    Args:
        folder: The diffusion model's.
        component: Folder of the tower; "" where it is the model's.
        kind: Its class in transformers.
        options: Further arguments of `load_network`.

    Raises:
        MissingData: if weights are absent, damaged or not all there.
    """
    import torch
    import transformers

    # float32 whatever the precision of the files
    options["dtype"] = torch.float32
    return load_network(getattr(transformers, kind), folder / component, **options)


def preprocess_picture(processor: Any, picture: Any) -> Tensor:
    """Preprocess a picture to [3, H, W]."""
    return processor(images=picture, return_tensors="pt")["pixel_values"][0]


def load_tokenizer(
    folder: Path, component: str = TOKENIZER_FOLDER
) -> Callable[[str], Tensor]:
    """Make what turns a text into token ids [S], padded or cut to the length that the
    folder says.
    """
    # read once, for all texts
    tokenizer = read_preprocessor(folder / component, "CLIPTokenizer")

    def ids(text: str) -> Tensor:
        padded = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        return tokenizer(text, **padded).input_ids[0]

    return ids


class Vocabulary:
    """A vocabulary.

    Args:
        source: `open-clip`, or a folder or hub reference with a CLIP tokenizer in
            `tokenizer`.
        length: Ids of a caption, the first and the last token included; longer captions
            are cut.

    Raises:
        MissingData: if the folder has no tokenizer.
    """

    def __init__(self, source: str = OPEN_CLIP, length: int = 60) -> None:
        self.length = length
        # the vocabulary of open_clip, or that of a tokenizer of transformers
        if source == OPEN_CLIP:
            from open_clip.tokenizer import SimpleTokenizer

            tokenizer = SimpleTokenizer()
            self.start = tokenizer.sot_token_id
            self.end = tokenizer.eot_token_id
            self._encode: Callable[[str], list[int]] = tokenizer.encode
        else:
            folder = hub.folder(source, allow=(f"{TOKENIZER_FOLDER}/*",))
            tokenizer = read_preprocessor(folder / TOKENIZER_FOLDER, "CLIPTokenizer")
            self.start = tokenizer.bos_token_id
            self.end = tokenizer.eos_token_id
            # start and end are added by `ids`
            self._encode = lambda text: (
                tokenizer(text, add_special_tokens=False).input_ids
            )
        self._decode: Callable[[list[int]], str] = tokenizer.decode

    def encode(self, text: str) -> Tensor:
        """Make the ids [length] of a caption: start, words, end, zeros.

        Source: openai/CLIP, `tokenize` (MIT).
        """
        import torch

        # two ids are reserved for start and end
        ids = [self.start, *self._encode(text)[: self.length - 2], self.end]
        return torch.tensor(ids + [0] * (self.length - len(ids)))

    def decode(self, ids: Iterable[int]) -> str:
        """Write the caption of ids, up to the first token that ends it; zeros are
        passed over.
        """
        words = []
        for token in ids:
            if token == self.end:
                break
            # padding and start are no words
            if token not in (0, self.start):
                words.append(token)
        return self._decode(words).strip()


def read_preprocessor(folder: Path, kind: str) -> Any:
    """Read a tokenizer or processor of transformers."""
    import transformers

    if not folder.is_dir():  # transformers would take it for a name on the hub
        raise MissingData(
            f"{folder.parent} has no {folder.name}",
            "give a whole folder, or download it again",
        )
    with weights.reading(folder):
        return getattr(transformers, kind).from_pretrained(folder)
