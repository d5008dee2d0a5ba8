"""Tokens of pictures and texts by the CLIP of a diffusion model, and those that Versatile Diffusion makes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brainhive_cli.core import console, weights
from brainhive_cli.core.errors import MissingData

SOURCE = "hub:shi-labs/versatile-diffusion"
IMAGE, TEXT = "image_encoder", "text_encoder"
"""Folders of the two towers of a diffusion model."""
VISION, PROJECTED_TEXT, PLAIN_TEXT = (
    *("CLIPVisionModelWithProjection", "CLIPTextModelWithProjection", "CLIPTextModel"),
)
"""Classes of transformers: Versatile Diffusion's towers, and the text tower of Stable Diffusion 1."""
PROCESSOR, TOKENIZER = "image_feature_extractor", "tokenizer"
"""Folders of what prepares pictures and texts."""


def of_pictures(tower: Any, pixels: Tensor) -> Tensor:
    """Make image tokens [B, S, D] of preprocessed pictures [B, 3, H, W], the class token first.

    The last norm and the projection act on all tokens; all are divided by the class token's length.

    Source: diffusers' VersatileDiffusionDualGuidedPipeline (Apache 2.0); arXiv 2211.08332.
    """
    hidden = tower.vision_model(pixel_values=pixels).last_hidden_state
    tokens: Tensor = tower.visual_projection(tower.vision_model.post_layernorm(hidden))
    return tokens.div(tokens[:, :1].norm(dim=-1, keepdim=True))


def of_texts(tower: Any, ids: Tensor) -> Tensor:
    """Make text tokens [B, S, D] of token ids [B, S], all divided by the length of the projected end token.

    Source: as `of_pictures`.
    """
    found = tower(input_ids=ids)
    tokens: Tensor = tower.text_projection(found.last_hidden_state)
    return tokens.div(found.text_embeds.norm(dim=-1, keepdim=True)[:, None])


def tower_of(folder: Path, component: str, kind: str, variant: str | None = None) -> nn.Module:
    """Load a tower from its folder below a diffusion model's, frozen, in float32.

    Args:
        folder: The diffusion model's.
        component: Folder of the tower.
        kind: Its class in transformers.
        variant: Variant of the weight files.

    Raises:
        MissingData: if weights are absent, damaged or not all there.
    """
    import transformers

    where = folder / component
    files = [file for file in where.glob("*") if file.suffix in (".bin", ".safetensors")]
    if not files:
        raise MissingData(f"{where} has no weights", "give a whole folder, or download it again")
    with weights.reading(where, files=files), console.hushed():
        options = {"dtype": torch.float32, "variant": variant, "output_loading_info": True}
        tower, info = getattr(transformers, kind).from_pretrained(where, **options)
        if absent := sorted(info["missing_keys"]):
            raise ValueError(f"it lacks {absent[0]} and {len(absent) - 1} more")
        frozen: nn.Module = tower.eval().requires_grad_(False)
        return frozen


def processor_of(folder: Path) -> Any:
    """Read how a diffusion model's folder has pictures preprocessed."""
    from transformers import CLIPImageProcessor

    _require(folder, PROCESSOR)
    with weights.reading(folder / PROCESSOR):
        return CLIPImageProcessor.from_pretrained(folder / PROCESSOR)


def pixels_of(processor: Any, picture: Any) -> Tensor:
    """Preprocess a picture to [3, H, W]."""
    pixels: Tensor = processor(images=picture, return_tensors="pt")["pixel_values"][0]
    return pixels


def token_ids(folder: Path) -> Callable[[str], Tensor]:
    """Make what turns a text into token ids [S], padded or cut to the length that the folder says."""
    from transformers import CLIPTokenizer

    _require(folder, TOKENIZER)
    with weights.reading(folder / TOKENIZER):
        tokenizer: Any = CLIPTokenizer.from_pretrained(folder / TOKENIZER)

    def ids(text: str) -> Tensor:
        found: Tensor = tokenizer(text, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return found[0]

    return ids


def _require(folder: Path, component: str) -> None:
    """Raise MissingData where a folder is not there: transformers would take it for a name on the hub."""
    if not (folder / component).is_dir():
        raise MissingData(f"{folder} has no {component}", "give a whole folder, or download it again")
