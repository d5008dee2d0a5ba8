"""Layers that are learned for each subject, before the brain encoder."""

import torch
from torch import Tensor, nn

from brainhive_cli.models.blocks import rows_of


class Token(nn.Module):
    """One more channel, learned for each subject; it starts as zeros."""

    def __init__(self, subjects: int, channels: int, samples: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(subjects, 1, samples))

    def forward(self, signal: Tensor, subject_index: Tensor | None) -> Tensor:
        """Map [B, C, T] to [B, C + 1, T], the token first."""
        token = rows_of(self.token, subject_index).to(signal.dtype)
        return torch.cat([token.expand(len(signal), -1, -1), signal], 1)


class Linear(nn.Module):
    """A mixing of the channels for each subject; it starts as the identity.

    Source: the subject layer of Défossez et al. (arXiv 2208.12266).
    """

    def __init__(self, subjects: int, channels: int, samples: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(channels).repeat(subjects, 1, 1))

    def forward(self, signal: Tensor, subject_index: Tensor | None) -> Tensor:
        """Map [B, C, T] to [B, C, T]."""
        return rows_of(self.weight, subject_index) @ signal


class ChannelAttention(nn.Module):
    """Weights over the channels for each subject, of mean 1; they start equal."""

    def __init__(self, subjects: int, channels: int, samples: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(subjects, channels))

    def forward(self, signal: Tensor, subject_index: Tensor | None) -> Tensor:
        """Map [B, C, T] to [B, C, T]."""
        weights = rows_of(self.logits, subject_index).softmax(-1) * signal.shape[1]  # [B, C]
        return weights[..., None] * signal


LAYERS: dict[str, type[nn.Module]] = {"token": Token, "linear": Linear, "channel_attention": ChannelAttention}
"""By their names in a recipe; each is built from the number of subjects, C and T."""
