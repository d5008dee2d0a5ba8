"""Prompts as a generator's U-Net takes them, from text encoders that are loaded for that alone."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from brainhive_cli.core.errors import MissingData, first_line
from brainhive_cli.generators import _components

EMPTY_TOKENS = 77
"""Length of a CLIP prompt."""
Embedded = tuple[Tensor, Tensor]
"""Text [B, S, D_text] and pooled text [B, D_pooled]."""


class Prompts:
    """Embeds each prompt once, by the text encoders of the generator's Config, for its U-Net."""

    def __init__(self, config: Any, unet: Any) -> None:
        self._config, self._unet = config, unet
        self._held: dict[str, Embedded] = {}

    def embed(self, words: str, batch: int, device: torch.device) -> Embedded:
        """Embed a prompt, repeated for each row; MissingData if text encoders are absent or damaged."""
        if words not in self._held:
            self._keep(words, self._prompt(words, device) if words else self._empty(device), device)
        text, pooled = self._held[words]
        return text.expand(batch, -1, -1), pooled.expand(batch, -1)

    def save_empty(self, file: Path, device: torch.device) -> None:
        """Write the embeddings of the empty prompt, so that the text encoders are not needed again."""
        text, pooled = self.embed("", 1, device)
        save_file({"prompt_embeds": text, "pooled_prompt_embeds": pooled}, file)

    def load_empty(self, file: Path, device: torch.device) -> None:
        """Read what `save_empty` wrote."""
        self._keep("", _read(file), device)

    def _keep(self, words: str, embedded: Embedded, device: torch.device) -> None:
        text, pooled = embedded
        self._held[words] = text.to(device, self._unet.dtype), pooled.to(device, self._unet.dtype)

    def _empty(self, device: torch.device) -> Embedded:
        if self._config.source == _components.RANDOM or device.type == "meta":
            sizes = self._unet.config
            ids = 6 * sizes.addition_time_embed_dim  # the six size and crop ids of SDXL
            pooled = torch.zeros(1, sizes.projection_class_embeddings_input_dim - ids)
            return torch.zeros(1, EMPTY_TOKENS, sizes.cross_attention_dim), pooled
        folder = self._folder()
        if (folder / _components.EMPTY_PROMPT).is_file():
            return _read(folder / _components.EMPTY_PROMPT)
        return self._encoded("", folder, device)

    def _prompt(self, words: str, device: torch.device) -> Embedded:
        try:
            return self._encoded(words, self._folder(), device)
        except MissingData as error:
            raise MissingData(
                f"the prompt {words!r} needs text encoders: {error.message}",
                "give a whole SDXL folder, or no prompt",
            ) from error

    def _folder(self) -> Path:
        return _components.folder_of(self._config.source, self._config.variant, text=True)

    def _encoded(self, words: str, folder: Path, device: torch.device) -> Embedded:
        import transformers as tf
        from diffusers import StableDiffusionXLPipeline

        for name in _components.TEXT:
            _components.read(folder, name)
        classes = {"text_encoder": tf.CLIPTextModel, "text_encoder_2": tf.CLIPTextModelWithProjection}
        given = (self._unet.dtype, self._config.variant)
        text = {name: _components.pretrained(cls, folder, name, *given) for name, cls in classes.items()}
        text |= {name: _tokenizer(folder, name) for name in ("tokenizer", "tokenizer_2")}
        others = dict.fromkeys(("vae", "unet", "scheduler"))
        pipeline: Any = StableDiffusionXLPipeline(**text, **others, add_watermarker=False)
        pipeline.to(device)
        with torch.no_grad():
            found = pipeline.encode_prompt(words, device=device, do_classifier_free_guidance=False)
        return found[0], found[2]


def _read(file: Path) -> Embedded:
    held = load_file(file)
    return held["prompt_embeds"], held["pooled_prompt_embeds"]


def _tokenizer(folder: Path, component: str) -> Any:
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(folder / component)
    except Exception as error:  # the library of tokenizers raises nothing narrower
        raise _components.damaged(component, folder, first_line(error)) from error
