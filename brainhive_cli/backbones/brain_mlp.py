"""Brain MLP: all channels and samples through one linear map and one residual MLP."""

from pydantic import Field
from torch import Tensor, nn

from brainhive_cli import parts
from brainhive_cli.backbones import _signal
from brainhive_cli.blocks import Stack


class Config(parts.Config):
    """The brain encoder of BrainHiVE (arXiv 2602.07495)."""

    dropout: float = Field(0.1, ge=0, lt=1, description="Probability of dropping a hidden unit; BrainHiVE's.")

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> "BrainMLP":
        """Make the encoder for signals [B, C, T] and tokens [B, D]."""
        return BrainMLP(channels, samples, dim, self.dropout)


TINY = Config()
"""Its size follows from the signal and the token."""


class BrainMLP(nn.Module):
    """Flatten, project, one residual MLP as wide inside as outside.

    Args:
        channels: C.
        samples: T.
        dim: D, width of the token.
        dropout: Probability of dropping a hidden unit.
    """

    def __init__(self, channels: int, samples: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.size = (channels, samples)
        self.proj_in = nn.Linear(channels * samples, dim)
        self.block = Stack(dim, dim, dropout)

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] as tokens [B, D]; the subject does not matter."""
        _signal.check(signal, *self.size)
        return self.block(self.proj_in(signal.flatten(1)))
