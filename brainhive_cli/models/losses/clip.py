"""The contrastive loss of CLIP: each prediction should find its target, each target its prediction."""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.losses import LossContext
from brainhive_cli.models.losses._pairs import (
    ScaledConfig,
    ScaledLoss,
    cosines,
    cross_entropy,
    pair_weights,
)


class Config(ScaledConfig):
    """Symmetric cross-entropy of scaled cosine similarities (CLIP, arXiv 2103.00020)."""

    cites: ClassVar[tuple[str, ...]] = ("radford2021",)
    no_effect_with_temperature = (*ScaledConfig.no_effect_with_temperature, "scale_by")

    cosine_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of 1 - cosine of each pair, which is added: retrieval needs only the right "
        "order, but a prior samples from where a token lies. BrainHiVE has none.",
    )
    hard_negative_beta: float = Field(
        0.0,
        ge=0,
        description="Wrong candidates weigh more the more similar they are: by exp(beta · logit), with "
        "mean 1 (beta of Robinson et al., arXiv 2010.04592; both ways as in arXiv 2301.02280). 0: all "
        "the same. A picture that is twice in a batch counts as wrong too.",
    )

    normalise_signal: bool = Field(
        True,
        description="Whether predictions are brought to unit length, as targets are; UBP, NeuroBridge and "
        "SAMGA leave theirs as they are. Retrieval compares by cosines either way.",
    )
    scale_by: Literal["exp", "softplus", "itself"] = Field(
        "exp",
        description="What makes the scale of its logarithm, or of what stands in its place: softplus (UBP), "
        "or itself, so that ln(1 / 0.07) is the scale (ATM-S).",
    )
    positives: Literal["row", "stimulus"] = Field(
        "row",
        description="stimulus: all signals of a batch that were shown one stimulus are pairs, as those of "
        "several subjects; row: each has its own target alone, and the others' count as wrong.",
    )

    def build(self) -> "ClipLoss":
        """Make the loss."""
        return ClipLoss(self)


TINY = Config()


class ClipLoss(ScaledLoss):
    """Mean of the cross-entropies in both directions."""

    def forward(self, predicted: Tensor, target: Tensor, context: LossContext) -> Tensor:
        """Compare predictions [B, ...] with targets [B, ...], pair by pair, as a scalar.

        A mixed signal is the pair of two targets, by their shares (MixCo; both ways as in MindEye).

        Raises:
            BrainhiveError: if they are not pairs, or the mixing is of another batch.
        """
        # which targets belong to a prediction: its row's, or all of its stimulus
        has_stimuli = self.config.positives == "stimulus"
        if has_stimuli and context.stimuli is None:
            raise BrainhiveError("positives=stimulus needs the stimuli of the rows, and has none")
        cosine = cosines(predicted, target, not self.config.normalise_signal)  # [B, B]
        pairs = pair_weights(context.mixing, cosine, context.stimuli if has_stimuli else None)  # [B, B]

        # cross-entropies in both directions, and the distance of pairs
        logits = cosine * self.scale(context.epoch)
        beta = self.config.hard_negative_beta
        to_target, to_prediction = (
            cross_entropy(harder(logits, pairs == 0, beta, dim), pairs, dim) for dim in (1, 0)
        )
        distance = 1 - (pairs * cosine).sum() / len(pairs)
        return (to_target + to_prediction) / 2 + self.config.cosine_weight * distance

    def of_pairs(self, predicted: Tensor, target: Tensor, context: LossContext) -> Tensor:
        """Return the scaled similarity of each prediction [B, ...] and its own target: [B]."""
        cosine = cosines(predicted, target, not self.config.normalise_signal)  # [B, B]
        return cosine.diagonal() * self.scale(context.epoch)

    def scale(self, epoch: int) -> Tensor | float:
        """Return what similarities are multiplied by in an epoch."""
        if self.logit_scale is None or self.config.scale_by == "exp":
            return super().scale(epoch)
        return F.softplus(self.logit_scale) if self.config.scale_by == "softplus" else self.logit_scale


def harder(logits: Tensor, is_wrong: Tensor, hard_negative_beta: float, dim: int) -> Tensor:
    """Weigh the wrong candidates along `dim` by exp(beta · logit), with mean 1; all [B, B].

    A softmax over the result is the one in which each wrong candidate counts as often as it weighs.
    """
    if not hard_negative_beta:
        return logits
    similar = (hard_negative_beta * logits).masked_fill(~is_wrong, torch.finfo(logits.dtype).min)
    log_weights = similar - similar.logsumexp(dim, keepdim=True) + is_wrong.sum(dim, keepdim=True).log()
    return torch.where(is_wrong, logits + log_weights, logits)
