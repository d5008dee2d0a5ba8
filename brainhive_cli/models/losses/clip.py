"""The contrastive loss of CLIP: each prediction should find its target, each target its prediction."""

import torch
from pydantic import Field
from torch import Tensor

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
        cosine = cosines(predicted, target)  # [B, B]
        pairs = pair_weights(context.mixing, cosine)
        logits = cosine * self.scale(context.epoch)
        beta = self.config.hard_negative_beta
        to_target, to_prediction = (
            cross_entropy(harder(logits, pairs == 0, beta, dim), pairs, dim) for dim in (1, 0)
        )
        distance = 1 - (pairs * cosine).sum() / len(pairs)
        return (to_target + to_prediction) / 2 + self.config.cosine_weight * distance


def harder(logits: Tensor, is_wrong: Tensor, hard_negative_beta: float, dim: int) -> Tensor:
    """Weigh the wrong candidates along `dim` by exp(beta · logit), with mean 1; all [B, B].

    A softmax over the result is the one in which each wrong candidate counts as often as it weighs.
    """
    if not hard_negative_beta:
        return logits
    similar = (hard_negative_beta * logits).masked_fill(~is_wrong, torch.finfo(logits.dtype).min)
    log_weights = similar - similar.logsumexp(dim, keepdim=True) + is_wrong.sum(dim, keepdim=True).log()
    return torch.where(is_wrong, logits + log_weights, logits)
