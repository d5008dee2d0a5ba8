"""A conditioning as an SDXL-type U-Net takes it: text, and the image tokens of an attached prior."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from brainhive_cli.core.conditioning import Conditioning
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.generators._prompts import Prompts


@dataclass(frozen=True)
class Inputs:
    """What the U-Net is given of B rows, on its device and in its dtype.

    Attributes:
        text: [B, S, D_cross].
        pooled: [B, D_pooled].
        tokens: Image tokens of the attached prior [B, S, D_cross]; None without any.
    """

    text: Tensor
    pooled: Tensor
    tokens: Tensor | None

    @classmethod
    def of(
        cls,
        conditioning: Conditioning,
        prompt: str,
        rows: int,
        unet: Any,
        prompts: Prompts,
        device: torch.device,
    ) -> Self:
        """Embed the texts, and let embeddings condition through the attached prior.

        Where no prior is attached, embeddings stand behind the text in the U-Net's own cross-attention.

        Args:
            conditioning: Of B rows, or without any condition.
            prompt: The text of rows that bring none.
            rows: B.
            unet: The U-Net.
            prompts: Embeds texts.
            device: Where the U-Net computes.

        Raises:
            BrainhiveError: if there are other conditions, or they do not fit the U-Net or the rows.
        """
        _check(conditioning, rows)
        text, pooled = _embedded(conditioning.texts, prompt, rows, prompts, device)
        tokens = conditioning.embeddings
        if tokens is not None and not is_attached(unet):
            width = unet.config.cross_attention_dim
            if tokens.shape[-1] != width:
                raise BrainhiveError(
                    "no prior is attached to the U-Net, whose own cross-attention takes tokens of width "
                    f"{width}, not {tokens.shape[-1]}",
                    "use a prior that was trained for this generator",
                )
            text, tokens = torch.cat([text, tokens.to(text)], 1), None
        return cls(text, pooled, None if tokens is None else tokens.to(device, unet.dtype))


def _check(conditioning: Conditioning, rows: int) -> None:
    for name in ("images", "masks"):
        if getattr(conditioning, name) is not None:
            raise BrainhiveError(f"an SDXL-type generator takes no condition {name}", "use another prior")
    embeddings = conditioning.embeddings
    if len(conditioning) not in (0, rows) or (embeddings is not None and embeddings.ndim != 3):
        shape = None if embeddings is None else list(embeddings.shape)
        raise BrainhiveError(
            f"{rows} seeds need a conditioning of {rows} rows, embeddings [{rows}, S, D]; got "
            f"{len(conditioning)} rows, embeddings {shape}",
            "give one seed for each row",
        )


def _embedded(
    texts: Tensor | Sequence[str] | None, prompt: str, rows: int, prompts: Prompts, device: torch.device
) -> tuple[Tensor, Tensor]:
    if texts is None:
        return prompts.embed(prompt, rows, device)
    if isinstance(texts, Tensor):
        text, pooled = prompts.embed(prompt, rows, device)
        return texts.to(text), pooled
    each = [prompts.embed(words, 1, device) for words in texts]
    return torch.cat([text for text, _ in each]), torch.cat([pooled for _, pooled in each])


def guided(inputs: Inputs, null: Inputs | None) -> Tensor | None:
    """Join the image tokens of both sides of guidance, the unconditional side first: [2 B, S, D_cross].

    Raises:
        BrainhiveError: if the unconditional side has none.
    """
    if inputs.tokens is None:
        return None
    if null is None or null.tokens is None:
        raise BrainhiveError(
            "guidance above 1 needs the prior's null conditioning", "give null, or guidance 0"
        )
    return torch.cat([null.tokens, inputs.tokens])


def is_attached(unet: Any) -> bool:
    """Whether a prior is attached to the U-Net: without one, diffusers would drop image tokens silently."""
    processors = unet.attn_processors.values()
    return any("ip_hidden_states" in inspect.signature(p.__call__).parameters for p in processors)
