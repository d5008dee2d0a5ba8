"""CLIP in diffusion models: vocabulary, and tokens of pictures and texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainhive_cli.core.base import MissingData
from brainhive_cli.core.files import hub
from brainhive_cli.core.runs import weights
from brainhive_cli.models.foreign_weights import load_network

if TYPE_CHECKING:
    from torch import Tensor, nn

SOURCE = "hub:shi-labs/versatile-diffusion"
IMAGE_FOLDER = "image_encoder"
"""Folder of the image tower in a diffusion model."""
TEXT_FOLDER = "text_encoder"
"""Folder of the text tower in a diffusion model."""
IMAGE_TOWER = "CLIPVisionModelWithProjection"
"""Class of Versatile Diffusion's image tower in transformers."""
PROJECTED_TEXT_TOWER = "CLIPTextModelWithProjection"
"""Class of Versatile Diffusion's text tower in transformers."""
PLAIN_TEXT_TOWER = "CLIPTextModel"
"""Class of Stable Diffusion 1's text tower in transformers."""
PROCESSOR_FOLDER = "image_feature_extractor"
"""Folder of the CLIPImageProcessor in a diffusion model."""
TOKENIZER_FOLDER = "tokenizer"
"""Folder of the CLIPTokenizer in a diffusion model."""
OPEN_CLIP = "open-clip"
"""The vocabulary in open_clip, with 49408 tokens. 49406 starts a caption, and 49407
ends it.
"""


def encode_pictures(tower: Any, pixels: Tensor) -> Tensor:
    """Encode preprocessed pictures as image tokens, as Versatile Diffusion does.

    All tokens are normed, projected, and divided by the length of the class token.

    Args:
        tower: Image tower of transformers.
        pixels: Pictures [B, 3, H, W].

    Returns:
        Tokens [B, S, D], the class token first.

    Source: diffusers' VersatileDiffusionDualGuidedPipeline (Apache 2.0); arXiv
    2211.08332.
    """
    hidden_states = tower.vision_model(pixel_values=pixels).last_hidden_state
    normed = tower.vision_model.post_layernorm(hidden_states)
    tokens: Tensor = tower.visual_projection(normed)
    return tokens.div(tokens[:, :1].norm(dim=-1, keepdim=True))


def encode_texts(tower: Any, ids: Tensor) -> Tensor:
    """Encode token ids [B, S] as text tokens [B, S, D], as Versatile Diffusion does.

    All tokens are projected, and divided by the length of the projected end token.

    Source: as `encode_pictures`.
    """
    outputs = tower(input_ids=ids)
    tokens: Tensor = tower.text_projection(outputs.last_hidden_state)
    # text_embeds [B, D] are the projected end tokens
    return tokens.div(outputs.text_embeds.norm(dim=-1, keepdim=True)[:, None])


def load_tower(
    folder: Path, component: str, class_name: str, **options: Any
) -> nn.Module:
    """Load a tower of a diffusion model, frozen, in float32.

    Args:
        folder: Folder of the diffusion model.
        component: Folder of the tower below it. Empty for the same folder.
        class_name: Class of the tower in transformers.
        options: Further arguments of `load_network`.

    Raises:
        MissingData: if weights are absent or damaged.
    """
    import torch
    import transformers

    options["dtype"] = torch.float32
    tower_class = getattr(transformers, class_name)
    return load_network(tower_class, folder / component, **options)


def preprocess_picture(processor: Any, picture: Any) -> Tensor:
    """Preprocess a picture to [3, H, W] with a processor of transformers."""
    return processor(images=picture, return_tensors="pt")["pixel_values"][0]


def load_tokenizer(
    folder: Path, component: str = TOKENIZER_FOLDER
) -> Callable[[str], Tensor]:
    """Load a tokenizer of transformers.

    Args:
        folder: Folder of the diffusion model.
        component: Folder of the tokenizer below it. Empty for the same folder.

    Returns:
        A function from a text to its ids [S], padded or cut to the model's length.
    """
    tokenizer = read_preprocessor(folder / component, "CLIPTokenizer")

    def tokenize(text: str) -> Tensor:
        encoded = tokenizer(
            text, padding="max_length", truncation=True, return_tensors="pt"
        )
        return encoded.input_ids[0]

    return tokenize


class Vocabulary:
    """Vocabulary of captions with a fixed number of ids.

    Args:
        source: `open-clip`, or a folder or hub reference with a CLIP tokenizer in
            `tokenizer`.
        length: Number of ids of a caption, with start and end. Longer captions are cut.

    Raises:
        MissingData: if the folder has no tokenizer.
    """

    def __init__(self, source: str = OPEN_CLIP, length: int = 60) -> None:
        self.length = length
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
            # the method `encode` adds start and end
            self._encode = lambda text: (
                tokenizer(text, add_special_tokens=False).input_ids
            )
        self._decode: Callable[[list[int]], str] = tokenizer.decode

    def encode(self, text: str) -> Tensor:
        """Encode a caption as ids [length]: start, words, end, zeros.

        Source: openai/CLIP, `tokenize` (MIT).
        """
        import torch

        ids = [self.start]
        ids += self._encode(text)[: self.length - 2]
        ids.append(self.end)
        ids += [0] * (self.length - len(ids))
        return torch.tensor(ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ids to a caption, up to the first end id. Zeros are ignored."""
        word_ids = []
        for token_id in ids:
            if token_id == self.end:
                break
            if token_id not in (0, self.start):
                word_ids.append(token_id)
        return self._decode(word_ids).strip()


def read_preprocessor(folder: Path, class_name: str) -> Any:
    """Read a tokenizer or image processor of transformers.

    Args:
        folder: Folder of its files.
        class_name: Class in transformers.

    Raises:
        MissingData: if the folder is absent, or its files are damaged.
    """
    import transformers

    # transformers would look for an absent folder on the hub
    if not folder.is_dir():
        raise MissingData(
            f"{folder.parent} has no {folder.name}",
            "give a whole folder, or download it again",
        )
    with weights.reading(folder):
        return getattr(transformers, class_name).from_pretrained(folder)
