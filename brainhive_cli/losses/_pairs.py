"""What the losses share: the similarities of a batch, and which of them are pairs."""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.mixing import Mixing

MixAlpha = Annotated[
    float,
    Field(ge=0, description="Signals are mixed in pairs, with shares from Beta(alpha, alpha); 0: not mixed."),
]


def cosines(signal_tokens: Tensor, image_tokens: Tensor) -> Tensor:
    """Compare every signal with every image, both [B, D]: [B, B], a signal a row.

    Raises:
        BrainhiveError: if the tokens are not pairs.
    """
    if signal_tokens.shape != image_tokens.shape or signal_tokens.ndim != 2:
        raise BrainhiveError(
            f"signal tokens {list(signal_tokens.shape)} and image tokens {list(image_tokens.shape)} "
            "are not pairs [B, D]",
            "brain encoder and fuser need the same token width",
        )
    cosine = F.normalize(signal_tokens, dim=-1) @ F.normalize(image_tokens, dim=-1).T
    return cosine.to(signal_tokens.dtype)  # under autocast only the product is of less precision


def scaled(cosine: Tensor, logit_scale: Tensor, fixed: float | None) -> Tensor:
    """Turn cosines into logits by the scale exp(logit_scale), or exp(fixed) where one is given."""
    return cosine * (logit_scale.exp() if fixed is None else math.exp(fixed))


def shares(mixing: Mixing | None, cosine: Tensor) -> Tensor:
    """Say how much of each image each signal of the batch holds: [B, B], rows sum to 1."""
    return as_mixed(torch.eye(len(cosine), dtype=cosine.dtype, device=cosine.device), mixing)


def as_mixed(wanted: Tensor, mixing: Mixing | None) -> Tensor:
    """Mix what is wanted of each signal, the rows [B, B], as the signals were mixed.

    Raises:
        BrainhiveError: if the mixing is of another batch.
    """
    if mixing is None:
        return wanted
    if len(mixing.partner) != len(wanted):
        raise BrainhiveError(
            f"a mixing of {len(mixing.partner)} signals does not fit a batch of {len(wanted)}",
            "join the mixings of all processes as their tokens are joined",
        )
    return mixing.mix(wanted)


def cross_entropy(logits: Tensor, wanted: Tensor, dim: int) -> Tensor:
    """Compare the softmax over `dim` with what is wanted, both [B, B]: the sum over all, divided by B."""
    return -(wanted * logits.log_softmax(dim)).sum() / len(logits)
