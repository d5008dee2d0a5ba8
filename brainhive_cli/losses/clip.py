"""The contrastive loss of CLIP: each signal should find its image, each image its signal."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli import parts
from brainhive_cli.errors import BrainhiveError


class Config(parts.Config):
    """Symmetric cross-entropy of scaled cosine similarities (CLIP, arXiv 2103.00020)."""

    initial_logit_scale: float = Field(
        2.6592, description="Logarithm of the scale that training starts from: ln(1 / 0.07); CLIP's."
    )
    pull: float = Field(
        0.0,
        ge=0,
        description="Weight of 1 - cosine of each pair beside it: retrieval needs only the right order, "
        "but a prior draws from where a token lies. BrainHiVE has none.",
    )

    def build(self) -> "ClipLoss":
        """Make the loss."""
        return ClipLoss(self.pull)


TINY = Config()
"""It has no size."""


class ClipLoss(nn.Module):
    """Mean of the cross-entropies in both directions, over the batch.

    Args:
        pull: Weight of the mean of 1 - cosine of the pairs.
    """

    def __init__(self, pull: float = 0.0) -> None:
        super().__init__()
        self.pull = pull

    def forward(self, signal_tokens: Tensor, image_tokens: Tensor, logit_scale: Tensor) -> Tensor:
        """Compare tokens pair by pair.

        Args:
            signal_tokens: [B, D].
            image_tokens: [B, D], row by row those of the signals.
            logit_scale: Logarithm of the scale, a scalar.

        Returns:
            A scalar.

        Raises:
            BrainhiveError: if the tokens are not pairs.
        """
        if signal_tokens.shape != image_tokens.shape or signal_tokens.ndim != 2:
            raise BrainhiveError(
                f"signal tokens {list(signal_tokens.shape)} and image tokens {list(image_tokens.shape)} "
                "are not pairs [B, D]",
                "brain encoder and fuser need the same token width",
            )
        cosine = F.normalize(signal_tokens, dim=-1) @ F.normalize(image_tokens, dim=-1).T  # [B, B]
        logits = cosine * logit_scale.exp()
        pairs = torch.arange(len(logits), device=logits.device)
        contrast = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
        return contrast + self.pull * (1 - cosine.diagonal().mean())
