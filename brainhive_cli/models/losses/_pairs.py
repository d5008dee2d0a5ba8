"""Pieces of the contrastive losses: similarities of a batch, and which of them are pairs."""

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.recipe import refuse_idle
from brainhive_cli.models.course import Course, at
from brainhive_cli.models.mixing import Mixing

MixAlpha = Annotated[
    float,
    Field(ge=0, description="Signals are mixed in pairs, with shares from Beta(alpha, alpha); 0: not mixed."),
]

MixShare = Annotated[
    float, Field(gt=0, le=1, description="Share of the signals that are mixed; MindEye's is 0.5.")
]
Temperature = Annotated[
    Annotated[float, Field(gt=0)] | Course | None,
    Field(
        description="What cosines are divided by, in place of a scale: a number, or {from, to, "
        "epochs: [a, b], course: linear|cosine}, by default over the epochs in which the term is active."
    ),
]


def refuse_idle_keys(config: Any, *with_temperature: str) -> None:
    """Refuse keys of a contrastive loss that have no effect: some with a temperature, one without mixing."""
    temperature = getattr(config, "temperature", None)
    if isinstance(temperature, Course) and not (temperature.start and temperature.stop):
        raise ValueError("a temperature is above 0")
    if temperature is not None:
        refuse_idle(config, with_temperature, "with a temperature", "leave it out")
    if not config.mix_alpha:
        refuse_idle(config, ("mix_share",), "with mix_alpha 0", "a mix_alpha above 0")


def scale_of(logit_scale: Tensor | None, temperature: float | Course | None, epoch: int) -> Tensor | float:
    """Return what cosines are multiplied by: 1 / temperature where there is one, else the learned scale."""
    if temperature is not None:
        return 1 / at(temperature, epoch)
    assert logit_scale is not None
    return logit_scale.exp()


def cosines(predicted: Tensor, target: Tensor) -> Tensor:
    """Compare every prediction with every target, both [B, ...]: [B, B], a prediction a row.

    Raises:
        BrainhiveError: if predictions and targets are not pairs.
    """
    if predicted.shape != target.shape or predicted.ndim < 2:
        raise BrainhiveError(
            f"predictions {list(predicted.shape)} and targets {list(target.shape)} are not pairs [B, ...]",
            "a head needs the shape of its target",
        )
    predicted, target = predicted.flatten(1), target.flatten(1)
    cosine = F.normalize(predicted, dim=-1) @ F.normalize(target, dim=-1).T
    return cosine.to(predicted.dtype)  # under autocast only the product is of less precision


def pair_weights(mixing: Mixing | None, cosine: Tensor) -> Tensor:
    """Return how much of each target each signal of the batch holds: [B, B], rows sum to 1."""
    return mixed(torch.eye(len(cosine), dtype=cosine.dtype, device=cosine.device), mixing)


def mixed(weights: Tensor, mixing: Mixing | None) -> Tensor:
    """Mix the target weights of each signal, the rows [B, B], as the signals were mixed.

    Raises:
        BrainhiveError: if the mixing is of another batch.
    """
    if mixing is None:
        return weights
    if len(mixing.partner) != len(weights):
        raise BrainhiveError(
            f"a mixing of {len(mixing.partner)} signals does not fit a batch of {len(weights)}",
            "join the mixings of all processes as their predictions are joined",
        )
    return mixing.mix(weights)


def cross_entropy(logits: Tensor, weights: Tensor, dim: int) -> Tensor:
    """Compare the softmax over `dim` with target weights, both [B, B]: the sum over all, divided by B."""
    return -(weights * logits.log_softmax(dim)).sum() / len(logits)
