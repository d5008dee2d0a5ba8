"""Linear: one linear map of all channels and samples, or of all voxels."""

from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.models import signal_shape


class Config(parts.Config):
    """The baseline that any other brain encoder has to beat (after AlignVis)."""

    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an input value.")

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> "LinearEncoder":
        """Make the encoder for signals [B, C, T] (voxels: [B, V, 1]) and tokens [B, D]."""
        return LinearEncoder(channels, samples, dim, self.dropout)


TINY = Config(dropout=0.1)


class LinearEncoder(nn.Module):
    """Flatten and project."""

    def __init__(self, channels: int, samples: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.size = (channels, samples)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(channels * samples, dim)

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] as tokens [B, D]; the subject does not matter."""
        signal_shape.check(signal, *self.size)
        return self.project(self.dropout(signal.flatten(1)))
