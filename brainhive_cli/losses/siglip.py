"""SigLIP: each signal and image of the batch by themselves are a pair or not."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.core.mixing import Mixing
from brainhive_cli.losses._pairs import MixAlpha, cosines, shares


class Config(parts.Config):
    """Sigmoid loss of scaled and shifted cosine similarities (SigLIP, arXiv 2303.15343)."""

    initial_logit_scale: float = Field(
        2.3026, description="Logarithm of the scale that training starts from: ln 10; the paper's."
    )
    initial_bias: float = Field(
        -10.0, description="What is added to every logit at first, as most are no pairs; the paper's."
    )
    mix_alpha: MixAlpha = 0.0

    def build(self) -> "SigLipLoss":
        """Make the loss."""
        return SigLipLoss(self.initial_bias)


TINY = Config()
"""It has no size."""


class SigLipLoss(nn.Module):
    """Binary cross-entropies of all signals and images of the batch, summed, over the batch size.

    Args:
        initial_bias: What is added to the logits at first; it is learned.
    """

    def __init__(self, initial_bias: float = -10.0) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(initial_bias))

    def forward(
        self, signal_tokens: Tensor, image_tokens: Tensor, logit_scale: Tensor, mixing: Mixing | None = None
    ) -> Tensor:
        """Compare every signal with every image.

        Args:
            signal_tokens: [B, D].
            image_tokens: [B, D], row by row those of the signals.
            logit_scale: Logarithm of the scale, a scalar.
            mixing: How the signals were mixed; each is then the pair of two images, by their shares.

        Returns:
            A scalar.

        Raises:
            BrainhiveError: if the tokens are not pairs, or the mixing is of another batch.
        """
        cosine = cosines(signal_tokens, image_tokens)  # [B, B]
        logits = cosine * logit_scale.exp() + self.bias
        pairs = shares(mixing, cosine)
        return F.binary_cross_entropy_with_logits(logits, pairs, reduction="sum") / len(pairs)
