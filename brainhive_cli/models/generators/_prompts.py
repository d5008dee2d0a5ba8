"""Prompts as a generator's U-Net takes them, from text encoders that are loaded for that alone."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brainhive_cli.core import weights
from brainhive_cli.core.errors import MissingData
from brainhive_cli.models.generators import _components

NAMES = ("prompt_embeds", "pooled_prompt_embeds")
"""Of text and pooled text in a file, as diffusers' pipelines name them."""
EMPTY_TOKENS = 77
"""Length of a CLIP prompt."""
Embedded = tuple[Tensor, Tensor]
"""Text [B, S, D_text] and pooled text [B, D_pooled]."""


class Prompts:
    """Embeds each prompt once, by the text encoders of the generator's Config, for its U-Net."""

    def __init__(self, config: Any, unet: Any) -> None:
        self._config, self._unet = config, unet
        self._held: dict[str, Embedded] = {}

    def embed_rows(self, texts: Sequence[str], device: torch.device) -> Embedded:
        """Embed a text for each row; MissingData if text encoders are absent or damaged.

        They stay loaded, on the CPU, since other rows may bring other texts.
        """
        for words in {*texts} - {*self._held}:
            self._keep(words, self._prompt(words, device) if words else self._empty(device), device)
        if "_encoders" in vars(self):
            self._encoders.to("cpu", silence_dtype_warnings=True)
        text, pooled = map(torch.cat, zip(*(self._held[words] for words in texts), strict=True))
        return text, pooled

    def embed(self, words: str, batch: int, device: torch.device) -> Embedded:
        """Embed a prompt, repeated for each row, as `embed_rows` does."""
        text, pooled = self.embed_rows([words], device)
        return text.expand(batch, -1, -1), pooled.expand(batch, -1)

    def save_empty(self, file: Path, device: torch.device) -> None:
        """Write the embeddings of the empty prompt, so that the text encoders are not needed again."""
        text, pooled = self.embed("", 1, device)
        weights.save(file, dict(zip(NAMES, (text, pooled), strict=True)))

    def load_empty(self, file: Path, device: torch.device) -> None:
        """Read what `save_empty` wrote."""
        self._keep("", self._read(file), device)

    def _keep(self, words: str, embedded: Embedded, device: torch.device) -> None:
        text, pooled = embedded
        self._held[words] = text.to(device, self._unet.dtype), pooled.to(device, self._unet.dtype)

    def _empty(self, device: torch.device) -> Embedded:
        if self._config.source == _components.RANDOM or device.type == "meta":
            width, pooled_width = self._widths
            return torch.zeros(1, EMPTY_TOKENS, width), torch.zeros(1, pooled_width)
        folder = self._folder()
        if (folder / _components.EMPTY_PROMPT).is_file():
            return self._read(folder / _components.EMPTY_PROMPT)
        return self._encoded("", device)

    def _prompt(self, words: str, device: torch.device) -> Embedded:
        try:
            return self._encoded(words, device)
        except MissingData as error:
            raise MissingData(
                f"the prompt {words!r} needs text encoders: {error.message}",
                "give a whole SDXL folder, or no prompt",
            ) from error

    def _read(self, file: Path) -> Embedded:
        with weights.reading(file):
            found = weights.read(file)
            text, pooled = (found[name] for name in NAMES)
            width, pooled_width = self._widths
            if text.shape != (1, text[0].shape[0], width) or pooled.shape != (1, pooled_width):
                sizes = f"{[*text.shape]} and {[*pooled.shape]}"
                raise ValueError(f"it holds {sizes}, the U-Net takes [1, S, {width}] and [1, {pooled_width}]")
            return text, pooled

    @property
    def _widths(self) -> tuple[int, int]:
        """The width of the text, and of the pooled text, that the U-Net takes."""
        sizes = self._unet.config
        ids = 6 * sizes.addition_time_embed_dim  # the six size and crop ids of SDXL
        return sizes.cross_attention_dim, sizes.projection_class_embeddings_input_dim - ids

    def _folder(self) -> Path:
        return _components.folder_of(self._config.source, self._config.variant, text=True)

    def _encoded(self, words: str, device: torch.device) -> Embedded:
        encoders = self._encoders.to(device, silence_dtype_warnings=True)
        with torch.no_grad():
            found = encoders.encode_prompt(words, device=device, do_classifier_free_guidance=False)
        return found[0], found[2]

    @cached_property
    def _encoders(self) -> Any:
        """Load text encoders and tokenizers, as a pipeline without networks that draw."""
        import transformers as tf
        from diffusers import StableDiffusionXLPipeline

        folder = self._folder()
        for name in _components.TEXT:
            _components.read(folder, name)
        classes = {"text_encoder": tf.CLIPTextModel, "text_encoder_2": tf.CLIPTextModelWithProjection}
        given = (self._unet.dtype, self._config.variant)
        text = {name: _components.pretrained(cls, folder, name, *given) for name, cls in classes.items()}
        text |= {name: _tokenizer(folder, name) for name in ("tokenizer", "tokenizer_2")}
        others = dict.fromkeys(("vae", "unet", "scheduler"))
        return StableDiffusionXLPipeline(**text, **others, add_watermarker=False)


def _tokenizer(folder: Path, component: str) -> Any:
    from transformers import CLIPTokenizer

    with weights.reading(f"{component} of the generator {folder}"):
        return CLIPTokenizer.from_pretrained(folder / component)
