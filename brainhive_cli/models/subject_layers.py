"""Layer that is learned for each subject, before the brain encoder."""

import torch
from torch import Tensor, nn

from brainhive_cli.models.blocks import rows_of

LINEAR = "linear"
"""Its name in a recipe."""


class ChannelMixing(nn.Module):
    """A mixing of the channels for each subject; it starts as the identity.

    Source: the subject layer of Défossez et al. (arXiv 2208.12266).
    """

    def __init__(self, subjects: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(channels).repeat(subjects, 1, 1))  # [subjects, C, C]

    def forward(self, signal: Tensor, subject_index: Tensor | None) -> Tensor:
        """Map [B, C, T] to [B, C, T]."""
        return rows_of(self.weight, subject_index) @ signal
