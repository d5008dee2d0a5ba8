"""Image tokens as a U-Net takes them that a prior is attached to."""

import inspect
from typing import Any

import torch
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError


def conditioning(
    unet: Any, tokens: Tensor | None, empty_tokens: Tensor | None, device: torch.device, is_guided: bool
) -> dict[str, Tensor] | None:
    """Make the `cross_attention_kwargs` of diffusers' pipelines; None for pictures without a prior.

    Args:
        unet: The U-Net.
        tokens: [B, S, D_cross].
        empty_tokens: Those of the zeroed token [1, S, D_cross], which guidance moves away from.
        device: Where the U-Net computes.
        is_guided: Whether there is any guidance.
    """
    if tokens is None:
        return None
    check_attached(unet)
    if is_guided:
        if empty_tokens is None:
            raise BrainhiveError(
                "guidance above 1 needs the tokens of the zeroed token", "give empty_tokens, or guidance 0"
            )
        tokens = torch.cat([empty_tokens.expand_as(tokens), tokens])  # the negative half stands first
    return {"ip_hidden_states": tokens.to(device, unet.dtype)}


def check_attached(unet: Any) -> None:
    """Refuse a U-Net without a prior: diffusers would drop the tokens in silence."""
    processors = unet.attn_processors.values()
    if not any("ip_hidden_states" in inspect.signature(p.__call__).parameters for p in processors):
        raise BrainhiveError("no prior is attached to the U-Net, so tokens have no effect", "attach it first")
