"""BRIDGE's brain encoder: parts of the window through one map and block, pooled by
attention.
"""

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.blocks import ResidualMLP
from brainhive_cli.models.sizes import InnerWidth, Share


class Config(BackboneConfig):
    """The encoder of BRIDGE (NeurIPS 2026, published repository)."""

    cites = ("bridge2026",)

    segments: PositiveInt = Field(
        2, description="Parts of the window; the last takes what is left. BRIDGE's."
    )
    hidden: InnerWidth = Field(1024, description="Width inside the block; BRIDGE's.")
    dropout: Share = Field(
        0.1, description="Probability of dropping a hidden unit of the block."
    )

    def build(
        self, channels: int, samples: int, dim: int, subjects: int = 1
    ) -> "Segments":
        """Make the encoder for signals [B, C, T] and tokens [B, D].

        Raises:
            RecipeError: if there are more segments than samples.
        """
        if self.segments > samples:
            raise RecipeError(
                f"{self.segments} segments of a window of {samples} samples",
                "fewer segments",
            )
        return Segments(channels, samples, dim, self)


TINY = Config(hidden=8)


class Segments(nn.Module):
    """One linear map and block for all segments, and the attention that pools them."""

    def __init__(self, channels: int, samples: int, dim: int, config: Config) -> None:
        super().__init__()
        # the last segment takes the remainder
        self.length = samples // config.segments
        self.lengths = [self.length] * (config.segments - 1) + [
            samples - self.length * (config.segments - 1)
        ]
        self.proj_in = nn.Linear(channels * max(self.lengths), dim)
        self.block = ResidualMLP(dim, config.hidden, config.dropout)
        self.attention = nn.Sequential(
            nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1)
        )

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] as tokens [B, D]; the subject does not matter."""
        parts_of_window = signal.split(self.lengths, -1)  # the last is the longest
        # one map serves all segments, so that they need one length
        padded = [
            F.pad(part, (0, self.lengths[-1] - part.shape[-1]))
            for part in parts_of_window
        ]
        # [B, S, D]
        tokens = self.block(self.proj_in(torch.stack(padded, 1).flatten(2)))
        return (self.attention(tokens).softmax(1) * tokens).sum(1)  # [B, D]
