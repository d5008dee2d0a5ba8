"""Brain encoder of BRIDGE, which pools segments of the window by attention."""

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from brainhive_cli.core.base import RecipeError
from brainhive_cli.models import InnerWidth, ResidualMLP, Share
from brainhive_cli.models.backbones import BackboneConfig


class Config(BackboneConfig):
    """Settings of BRIDGE's encoder (NeurIPS 2026, published repository)."""

    cites = ("bridge2026",)
    called = "BRIDGE's brain encoder"

    segments: PositiveInt = Field(
        2,
        description="Number S of equal segments. The last also gets the remaining "
        "samples. The default is BRIDGE's.",
    )
    hidden: InnerWidth = Field(
        1024, description="Width inside the block, by default BRIDGE's."
    )
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
    """Linear map and block that all segments share, and attention that pools them."""

    def __init__(self, channels: int, samples: int, dim: int, config: Config) -> None:
        super().__init__()
        length = samples // config.segments
        n_equal = config.segments - 1
        self.lengths = [length] * n_equal + [samples - length * n_equal]
        self.proj_in = nn.Linear(channels * max(self.lengths), dim)
        self.block = ResidualMLP(dim, config.hidden, config.dropout)
        self.attention = nn.Sequential(
            nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1)
        )

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] as tokens [B, D]. The subject has no effect."""
        # pad all segments to the length of the last, which is the longest
        padded = []
        for segment in signal.split(self.lengths, -1):
            padding = self.lengths[-1] - segment.shape[-1]
            padded.append(F.pad(segment, (0, padding)))
        features = torch.stack(padded, 1).flatten(2)
        tokens = self.block(self.proj_in(features))  # [B, S, D]
        weights = self.attention(tokens).softmax(1)  # [B, S, 1]
        return (weights * tokens).sum(1)
