"""SigLIP: each prediction and target of the batch is a pair or not, whatever the others are."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.models.losses import LossContext
from brainhive_cli.models.losses._pairs import ContrastiveConfig, MixAlpha, MixShare, cosines, pair_weights


class Config(ContrastiveConfig):
    """Sigmoid loss of scaled and shifted cosine similarities (SigLIP, arXiv 2303.15343)."""

    initial_logit_scale: float = Field(
        2.3026, description="Logarithm of the scale that training starts from: ln 10; the paper's."
    )
    initial_bias: float = Field(
        -10.0,
        description="Initial value of the learned bias of all logits, as most are no pairs; the paper's.",
    )
    mix_alpha: MixAlpha = 0.0
    mix_share: MixShare = 1.0

    def build(self) -> "SigLipLoss":
        """Make the loss."""
        return SigLipLoss(self.initial_logit_scale, self.initial_bias)


TINY = Config()


class SigLipLoss(nn.Module):
    """Binary cross-entropies of all predictions and targets of the batch, summed, over the batch size.

    Attributes:
        logit_scale: Logarithm of the scale of cosines, a scalar.
        bias: What is added to the scaled cosines, a scalar.
    """

    def __init__(self, initial_logit_scale: float, initial_bias: float) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(initial_logit_scale))
        self.bias = nn.Parameter(torch.tensor(initial_bias))

    def forward(self, predicted: Tensor, target: Tensor, context: LossContext) -> Tensor:
        """Compare every prediction with every target, both [B, ...], as a scalar.

        A mixed signal is the pair of two targets, by their shares.

        Raises:
            BrainhiveError: if they are not pairs, or the mixing is of another batch.
        """
        cosine = cosines(predicted, target)  # [B, B]
        logits = cosine * self.logit_scale.exp() + self.bias
        pairs = pair_weights(context.mixing, cosine)
        return F.binary_cross_entropy_with_logits(logits, pairs, reduction="sum") / len(pairs)
