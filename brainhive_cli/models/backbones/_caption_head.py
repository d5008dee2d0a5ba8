"""NEURONS' caption head: GPT-2 behind a token that a linear map makes of a text vector (ClipCap)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from brainhive_cli.core.errors import BrainhiveError

TIED, SOURCE = "decoder.lm_head.weight", "decoder.transformer.wte.weight"
"""GPT-2's last layer is its embedding: a file holds it once, NEURONS' twice."""
PADDING = 0
"""The id behind a caption's last token."""


class CaptionHead(nn.Module):
    """Writes captions of up to `length` token ids for text vectors [B, E].

    Args:
        dim: E.
        length: Ids of a caption, the first and the last included.
        vocabulary: How many ids there are; CLIP's are used in GPT-2's own vocabulary.
        width: D of GPT-2.
        layers: Its layers.
        heads: Its attention heads.
        positions: Its longest sequence.

    Source: ClipCap (arXiv 2111.09734), GPT-2; names of NEURONS.
    """

    def __init__(
        self, dim: int, length: int, vocabulary: int, width: int, layers: int, heads: int, positions: int
    ) -> None:
        super().__init__()
        self.length = length
        config = GPT2Config(
            vocab_size=vocabulary,
            n_positions=positions,
            n_embd=width,
            n_layer=layers,
            n_head=heads,
            bos_token_id=PADDING,
            eos_token_id=PADDING,
        )
        self.decoder = GPT2LMHeadModel(config)
        self.clip_project = nn.ModuleDict({"model": nn.Sequential(nn.Linear(dim, width))})

        self.register_state_dict_post_hook(_without_tied)
        self.register_load_state_dict_pre_hook(_with_tied)

    def prefix(self, text: Tensor) -> Tensor:
        """Make the first token [B, 1, D] of text vectors [B, E], of which only the direction counts."""
        made: Tensor = self.clip_project["model"](F.normalize(text, dim=-1))
        return made[:, None]

    def forward(self, text: Tensor, ids: Tensor) -> Tensor:
        """Predict each id of captions [B, L] from those before it: logits [B, L, vocabulary].

        Raises:
            BrainhiveError: if it does not know an id.
        """
        known = self.decoder.config.vocab_size
        if not ids.is_meta and (largest := int(ids.max())) >= known:
            raise BrainhiveError(
                f"a caption has the id {largest}, and the caption head knows {known}",
                "a larger backbone.vocabulary, or another tokenizer",
            )
        words = self.decoder.transformer.wte(ids)
        found: Tensor = self.decoder(inputs_embeds=torch.cat([self.prefix(text), words], 1)).logits
        return found[:, :-1]

    def write(self, text: Tensor, end: int) -> Tensor:
        """Write captions, each time the likeliest token: ids [B, length], with zeros behind the last."""
        prefix = self.prefix(text)
        given = {"inputs_embeds": prefix, "attention_mask": torch.ones_like(prefix[..., 0], dtype=torch.long)}
        options = {"max_new_tokens": self.length, "do_sample": False}
        written: Tensor = self.decoder.generate(
            **given, **options, eos_token_id=end, pad_token_id=PADDING, bos_token_id=PADDING
        )
        return F.pad(written, (0, self.length - written.shape[1]), value=PADDING)


def _without_tied(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    state.pop(prefix + TIED, None)


def _with_tied(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    if prefix + SOURCE in state:
        state.setdefault(prefix + TIED, state[prefix + SOURCE])
