"""Captions of generated pictures by BLIP-2, as texts of the next stage of a chain."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from brainhive_cli.core import console, documents, hub, weights
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.media import Media
from brainhive_cli.generators._denoising import Placement

FILES = ("*.json", "merges.txt", "vocab.*", "tokenizer*")
WEIGHTS = ("model.safetensors", "model-*.safetensors")
LONGEST = 20
"""New tokens of a caption, at most: what BLIP-2's `generate` does by itself."""


class Captioner:
    """BLIP-2, its image processor and its tokenizer.

    Args:
        model: The network.
        processor: Pictures to pixel values, and token ids to words.
        device: Where it runs.
    """

    def __init__(self, model: Any, processor: Any, device: torch.device) -> None:
        self.model, self.processor = model, processor
        self.placement = Placement((model,), device)

    @torch.no_grad()
    def captions(self, media: Media) -> list[str]:
        """Caption pictures [B, 3, H, W] in 0..1, or the middle frames of clips [B, F, 3, H, W], greedily."""
        pictures = media if media.ndim == 4 else media[:, media.shape[1] // 2]
        images = list(pictures.mul(255).round().byte().cpu())
        pixels = self.processor.image_processor(images, return_tensors="pt")["pixel_values"]
        self.placement.use(self.model)
        pixels = pixels.to(self.placement.device, self.model.dtype)
        found = self.model.generate(pixel_values=pixels, do_sample=False, max_new_tokens=LONGEST)
        own = found[:, self.model.config.num_query_tokens + 1 :]  # behind the picture's tokens and the first
        self.placement.use()
        return [
            words.strip() for words in self.processor.tokenizer.batch_decode(own, skip_special_tokens=True)
        ]


def load(reference: str, device: torch.device | str, dtype: torch.dtype) -> Captioner:
    """Load BLIP-2 onto a device; MissingData if it is absent or half-downloaded."""
    import transformers as tf

    folder = hub.folder(reference, allow=(*FILES, *WEIGHTS))
    _check(folder)
    files = list(folder.glob("*.safetensors"))
    if not files:
        raise MissingData(f"the captioner {folder} has no weights", "download it again")
    with weights.reading(f"the captioner {folder}", files=files), console.hushed():
        processor = tf.Blip2Processor.from_pretrained(folder)
        read = partial(tf.Blip2ForConditionalGeneration.from_pretrained, folder, dtype=dtype)
        model, info = read(output_loading_info=True)
        if absent := sorted(info["missing_keys"]):
            raise ValueError(f"it lacks {absent[0]} and {len(absent) - 1} more")
    return Captioner(model, processor, torch.device(device))


def skeleton(reference: str, dtype: torch.dtype) -> Any:
    """Make the network of shapes alone; only its config is fetched."""
    import transformers as tf

    folder = hub.folder(reference, allow=("config.json",))
    _check(folder)
    with weights.reading(f"the captioner {folder}"), torch.device("meta"), console.hushed():
        config = tf.Blip2Config.from_pretrained(folder)
        return tf.Blip2ForConditionalGeneration(config).to(dtype)


def bytes_to_fetch(reference: str) -> int:
    """Return how much would be downloaded; MissingData if it is not BLIP-2."""
    _check(hub.folder(reference, allow=("config.json",)))
    if not reference.startswith("hub:") and not hub.holds(reference, (), WEIGHTS):
        raise MissingData(f"the captioner {reference} has no weights", "download it again")
    return hub.bytes_to_fetch(reference, (), WEIGHTS)


def _check(folder: Path) -> None:
    """Refuse a folder of another model."""
    file = folder / "config.json"
    found = documents.read(file, dict[str, Any], documents.DOWNLOAD, MissingData) if file.is_file() else {}
    if found.get("model_type") != "blip-2":
        kind = found.get("model_type", "none")
        raise MissingData(
            f"the captioner {folder} is no BLIP-2 (model_type {kind})", "hub:Salesforce/blip2-opt-2.7b"
        )
