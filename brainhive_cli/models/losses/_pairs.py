"""Pieces of the contrastive losses: similarities of a batch, and which of them are pairs."""

from typing import Annotated, ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.recipe import refuse_idle
from brainhive_cli.models.course import Course, at
from brainhive_cli.models.losses import Loss, LossConfig, Mixing

Temperature = Annotated[
    Annotated[float, Field(gt=0)] | Course | None,
    Field(
        description="What cosines are divided by, in place of a scale: a number, or {from, to, "
        "epochs: [a, b], course: linear|cosine}, by default over the epochs in which the term is active."
    ),
]


class ScaledConfig(LossConfig):
    """The keys of a contrastive loss whose cosines are multiplied by a scale."""

    no_effect_with_temperature: ClassVar[tuple[str, ...]] = ("initial_logit_scale", "learn_scale")

    initial_logit_scale: float = Field(
        2.6592, description="Logarithm of the scale that training starts from: ln(1 / 0.07); CLIP's."
    )
    learn_scale: bool = Field(
        True,
        description="Whether training changes the scale. False keeps it: a fixed temperature "
        "(AlignVis has 0.04, the initial logit scale 3.2189).",
    )
    temperature: Temperature = None
    mix_alpha: float = Field(
        0.0,
        ge=0,
        description="Signals are mixed in pairs, with shares from Beta(alpha, alpha); 0: not mixed.",
    )
    mix_share: float = Field(
        1.0, gt=0, le=1, description="Share of the signals that are mixed; MindEye's is 0.5."
    )

    @property
    def mixing(self) -> tuple[float, float]:
        """Alpha and share of the mixing that its keys ask for."""
        return self.mix_alpha, self.mix_share

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        if isinstance(self.temperature, Course) and not (self.temperature.start and self.temperature.stop):
            raise ValueError("a temperature is above 0")
        if self.temperature is not None:
            refuse_idle(self, self.no_effect_with_temperature, "with a temperature", "leave it out")
        if not self.mix_alpha:
            refuse_idle(self, ("mix_share",), "with mix_alpha 0", "a mix_alpha above 0")
        return self


class ScaledLoss(Loss):
    """A contrastive loss whose cosines are multiplied by a scale, learned or of a temperature.

    Args:
        config: The keys of its scale.

    Attributes:
        logit_scale: Logarithm of cosines' scale; None where there is a temperature.
    """

    logit_scale: nn.Parameter | None

    def __init__(self, config: ScaledConfig) -> None:
        super().__init__(config)
        scale = nn.Parameter(torch.tensor(config.initial_logit_scale), requires_grad=config.learn_scale)
        self.register_parameter("logit_scale", scale if config.temperature is None else None)

    def scale(self, epoch: int) -> Tensor | float:
        """Return what cosines are multiplied by in an epoch."""
        if self.config.temperature is not None:
            return 1 / at(self.config.temperature, epoch)
        assert self.logit_scale is not None
        return self.logit_scale.exp()


def cosines(predicted: Tensor, target: Tensor, with_length: bool = False) -> Tensor:
    """Compare every prediction with every target, both [B, ...]: [B, B], a prediction a row.

    With `with_length` predictions keep their length, and cosines are multiplied by it.

    Raises:
        BrainhiveError: if predictions and targets are not pairs.
    """
    if predicted.shape != target.shape or predicted.ndim < 2:
        raise BrainhiveError(
            f"predictions {list(predicted.shape)} and targets {list(target.shape)} are not pairs [B, ...]",
            "a head needs the shape of its target",
        )
    predicted, target = predicted.flatten(1), target.flatten(1)
    direction = predicted if with_length else F.normalize(predicted, dim=-1)
    cosine = direction @ F.normalize(target, dim=-1).T
    return cosine.to(predicted.dtype)  # under autocast only the product is of less precision


def pair_weights(mixing: Mixing | None, cosine: Tensor, stimuli: Tensor | None = None) -> Tensor:
    """Return how much of each target each signal of the batch holds: [B, B], rows sum to 1.

    With `stimuli` [B] all rows of a signal's stimulus are its targets, in equal shares.
    """
    if stimuli is None:
        return mixed(torch.eye(len(cosine), dtype=cosine.dtype, device=cosine.device), mixing)
    is_same = (stimuli[:, None] == stimuli).to(cosine.dtype)
    return mixed(is_same / is_same.sum(1, keepdim=True), mixing)


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
