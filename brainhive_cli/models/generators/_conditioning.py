"""A conditioning as an SDXL-type U-Net takes it: text, and the image tokens of an attached prior."""

import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.conditioning import Conditioning
from brainhive_cli.models.generators._prompts import Prompts


class Inputs(NamedTuple):
    """The U-Net's inputs for B rows, on its device and in its dtype."""

    text: Tensor  # [B, S, D_cross]
    pooled: Tensor  # [B, D_pooled]
    tokens: Tensor | None  # of the attached prior, [B, S, D_cross]


def inputs_of(
    conditioning: Conditioning, prompt: str, rows: int, unet: Any, prompts: Prompts, device: torch.device
) -> Inputs:
    """Embed the texts (`prompt` where rows bring none), and let embeddings condition through a prior.

    Where no prior is attached, embeddings stand behind the text in the U-Net's own cross-attention.

    Raises:
        BrainhiveError: if there are other conditions, or they do not fit the U-Net or the rows.
    """
    _check(conditioning, rows)
    texts, tokens = conditioning.texts, conditioning.embeddings
    if isinstance(texts, list):
        text, pooled = prompts.embed_rows(texts, device)
    else:
        text, pooled = prompts.embed(prompt, rows, device)
        text = text if texts is None else texts.to(text)
    if tokens is not None and not is_attached(unet):
        width = unet.config.cross_attention_dim
        if tokens.shape[-1] != width:
            raise BrainhiveError(
                "no prior is attached to the U-Net, whose own cross-attention takes tokens of width "
                f"{width}, not {tokens.shape[-1]}",
                "use a prior that was trained for this generator",
            )
        text, tokens = torch.cat([text, tokens.to(text)], 1), None
    return Inputs(text, pooled, None if tokens is None else tokens.to(device, unet.dtype))


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


def guided(inputs: Inputs, null: Inputs) -> Tensor | None:
    """Join the image tokens of both sides of guidance, the unconditional side first: [2 B, S, D_cross]."""
    if inputs.tokens is None:
        return None
    if null.tokens is None:
        raise BrainhiveError(
            "guidance above 1 needs the prior's null conditioning", "give null, or guidance 0"
        )
    return torch.cat([null.tokens, inputs.tokens])


def is_attached(unet: Any) -> bool:
    """Whether a prior is attached to the U-Net: without one, diffusers would drop image tokens silently."""
    processors = unet.attn_processors.values()
    return any("ip_hidden_states" in inspect.signature(p.__call__).parameters for p in processors)
