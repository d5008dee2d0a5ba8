"""Brain MLP: all channels and samples through one linear map and one residual MLP."""

from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.models import signal_shape
from brainhive_cli.models.blocks import Stack


class Config(parts.Config):
    """The brain encoder of BrainHiVE (arXiv 2602.07495)."""

    hidden: int | None = Field(
        None, gt=0, le=2**16, description="Width inside the residual MLP; default: the token's, BrainHiVE's."
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Probability of dropping a hidden unit; BrainHiVE's.")

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> "BrainMLP":
        """Make the encoder for signals [B, C, T] (voxels: [B, V, 1]) and tokens [B, D]."""
        return BrainMLP(channels, samples, dim, self.hidden or dim, self.dropout)


TINY = Config()


class BrainMLP(nn.Module):
    """Flatten, project, one residual MLP."""

    def __init__(self, channels: int, samples: int, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.size = (channels, samples)
        self.proj_in = nn.Linear(channels * samples, dim)
        self.block = Stack(dim, hidden, dropout)

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] as tokens [B, D]; the subject does not matter."""
        signal_shape.check(signal, *self.size)
        return self.block(self.proj_in(signal.flatten(1)))
