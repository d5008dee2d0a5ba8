"""The contrastive loss of CLIP: each signal should find its image, each image its signal."""

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.core.mixing import Mixing
from brainhive_cli.losses._pairs import MixAlpha, cosines, cross_entropy, scaled, shares


class Config(parts.Config):
    """Symmetric cross-entropy of scaled cosine similarities (CLIP, arXiv 2103.00020)."""

    initial_logit_scale: float = Field(
        2.6592, description="Logarithm of the scale that training starts from: ln(1 / 0.07); CLIP's."
    )
    learn_scale: bool = Field(
        True,
        description="Whether training moves the scale. False keeps it: a fixed temperature "
        "(AlignVis has 0.04, the initial logit scale 3.2189).",
    )
    cosine_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of 1 - cosine of each pair beside it: retrieval needs only the right order, "
        "but a prior draws from where a token lies. BrainHiVE has none.",
    )
    hard_negative_beta: float = Field(
        0.0,
        ge=0,
        description="Wrong candidates weigh more the more similar they are: by exp(beta · logit), with "
        "mean 1 (beta of Robinson et al., arXiv 2010.04592; both ways as in arXiv 2301.02280). 0: all alike. "
        "A picture that is twice in a batch counts as wrong too.",
    )
    mix_alpha: MixAlpha = 0.0

    def build(self) -> "ClipLoss":
        """Make the loss."""
        fixed = None if self.learn_scale else self.initial_logit_scale
        return ClipLoss(self.cosine_weight, self.hard_negative_beta, fixed)


TINY = Config()
"""It has no size."""


class ClipLoss(nn.Module):
    """Mean of the cross-entropies in both directions, over the batch.

    Args:
        cosine_weight: Weight of the mean of 1 - cosine of the pairs.
        hard_negative_beta: Exponent with which similar wrong candidates weigh more.
        fixed_logit_scale: Logarithm of the scale, instead of the one that is learned.
    """

    def __init__(
        self,
        cosine_weight: float = 0.0,
        hard_negative_beta: float = 0.0,
        fixed_logit_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.cosine_weight, self.hard_negative_beta, self.fixed_logit_scale = (
            cosine_weight,
            hard_negative_beta,
            fixed_logit_scale,
        )

    def forward(
        self, signal_tokens: Tensor, image_tokens: Tensor, logit_scale: Tensor, mixing: Mixing | None = None
    ) -> Tensor:
        """Compare tokens pair by pair.

        Args:
            signal_tokens: [B, D].
            image_tokens: [B, D], row by row those of the signals.
            logit_scale: Logarithm of the scale, a scalar.
            mixing: How the signals were mixed; each is then the pair of two images, by their shares
                (MixCo, arXiv 2010.06300; both ways as in MindEye, arXiv 2305.18274).

        Returns:
            A scalar.

        Raises:
            BrainhiveError: if the tokens are not pairs, or the mixing is of another batch.
        """
        cosine = cosines(signal_tokens, image_tokens)  # [B, B]
        pairs = shares(mixing, cosine)
        logits = scaled(cosine, logit_scale, self.fixed_logit_scale)
        to_image, to_signal = (
            cross_entropy(harder(logits, pairs == 0, self.hard_negative_beta, dim), pairs, dim)
            for dim in (1, 0)
        )
        return (to_image + to_signal) / 2 + self.cosine_weight * (1 - (pairs * cosine).sum() / len(pairs))


def harder(logits: Tensor, is_wrong: Tensor, hard_negative_beta: float, dim: int) -> Tensor:
    """Weigh the wrong candidates along `dim` by exp(beta · logit), with mean 1; all [B, B].

    A softmax over the result is the one in which each wrong candidate counts as often as it weighs.
    """
    if not hard_negative_beta:
        return logits
    similar = (hard_negative_beta * logits).masked_fill(~is_wrong, torch.finfo(logits.dtype).min)
    log_weights = similar - similar.logsumexp(dim, keepdim=True) + is_wrong.sum(dim, keepdim=True).log()
    return torch.where(is_wrong, logits + log_weights, logits)
