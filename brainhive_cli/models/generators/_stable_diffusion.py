"""Base of generators with Stable Diffusion 1's U-Net: its sizes, and the tokens that condition it."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.models.clip_conditions import PLAIN_TEXT, token_ids, tower_of
from brainhive_cli.models.generators import _components
from brainhive_cli.models.generators._components import RANDOM
from brainhive_cli.models.generators._latent_diffusion import TEXT_TOKENS, LatentDiffusion

TEXT_STEM = "text_encoder/model"


class StableDiffusion(LatentDiffusion):
    """Latents by text tokens.

    Where the config's `unconditional` says `encoded`, an absent text is encoded; else it is zeros.

    Attributes:
        text_encoder: Encoder whose embeddings these are, for hints.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
    pipeline_options = {  # noqa: RUF012 (never changed)
        **dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor")),
        "requires_safety_checker": False,
    }
    refused: ClassVar[tuple[str, ...]] = ("images", "masks")
    text_encoder: ClassVar[str] = "sd15-text"

    def prepare(self, components: dict[str, Any]) -> None:
        """Know no text yet."""
        self.embedded_texts: dict[str, Tensor] = {}
        self._encode_text: Callable[[str], Tensor] | None = None

    def load_text_encoder(self) -> Callable[[str], Tensor]:
        """Load what embeds a text as tokens [1, S, D]: here a Stable Diffusion 1 folder's last states."""
        variant = self.config.variant
        folder = _components.find_folder(self.config.source, variant, text=True)
        # configs first, so that an absent component is named
        for name in ("text_encoder", "tokenizer"):
            _components.read_config(folder, name)
        tower = tower_of(folder, "text_encoder", PLAIN_TEXT, variant)
        ids = token_ids(folder)
        return lambda words: tower(input_ids=ids(words)[None]).last_hidden_state

    @property
    def encodes_absent(self) -> bool:
        """Whether an absent condition is encoded, for which there must be weights."""
        return self.config.source != RANDOM and self.config.unconditional == "encoded"

    def text_tokens(
        self,
        texts: Tensor | list[str] | None,
        prompt: str,
        rows: int,
        towards: Tensor | None = None,
        absent: str = "",
    ) -> Tensor:
        """Give text tokens [B, S, D] of the rows' texts, else of the prompt, or of no text.

        Args:
            texts: Of B rows, or their tokens.
            prompt: For all rows; on the other side of guidance it replaces texts.
            rows: B.
            towards: Tokens whose other side of guidance these are.
            absent: What is embedded where there is neither text nor prompt.
        """
        # choose between texts and prompt
        width = self.unet.config.cross_attention_dim
        if prompt and towards is not None:
            texts = None
        if texts is not None and prompt:
            raise RecipeError("prompt has no effect where the conditioning has texts", "leave prompt out")

        # where there is no text, encode an empty one, or take zeros
        if texts is None and (prompt or self.encodes_absent):
            texts = [prompt or absent]
        if texts is None:
            texts = torch.zeros(1, TEXT_TOKENS if towards is None else towards.shape[1], width)

        # bring the tokens to B rows, and to as many tokens as `towards` has
        tokens = texts if isinstance(texts, Tensor) else self._embed(texts)
        return self.match_tokens("text", tokens, width, rows, self.text_encoder, towards)

    def match_tokens(
        self, kind: str, tokens: Tensor, width: int, rows: int, encoder: str, towards: Tensor | None
    ) -> Tensor:
        """Give tokens as the U-Net takes them; on the other side of guidance there are as many."""
        hint = f"use a head that predicts the encoder {encoder}"
        tokens = self.fit_tokens(f"{kind} tokens", tokens, width, rows, hint)
        # both sides of guidance are rows of one batch
        if towards is not None and tokens.shape != towards.shape:
            raise BrainhiveError(
                f"the {kind} tokens are {list(towards.shape)}, the unconditional ones {list(tokens.shape)}",
                f"{hint}, or generator.unconditional=zeros",
            )
        return tokens

    def _embed(self, texts: Sequence[str]) -> Tensor:
        """Embed texts, each once, by an encoder that is loaded for that alone: [B, S, D]."""
        # texts that were not embedded before, each once
        for words in {*texts} - {*self.embedded_texts}:
            if self._encode_text is None:
                if self.config.source == RANDOM:
                    raise MissingData(
                        "a generator of random weights has no text encoder for prompts", "leave prompts out"
                    )
                self._encode_text = self.load_text_encoder()
            with torch.inference_mode():
                self.embedded_texts[words] = self._encode_text(words)
        return torch.cat([self.embedded_texts[words] for words in texts])
