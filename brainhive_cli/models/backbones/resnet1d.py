"""1-D ResNet: residual blocks of convolutions over time, each halving the samples."""

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.models import signal_shape
from brainhive_cli.models.backbones._head import projection_head


class Config(parts.Config):
    """The residual network for signals of Lima et al. (2021, doi 10.1038/s41467-021-25351-7)."""

    filters: tuple[int, ...] = Field(
        (64, 128, 196, 256, 320), min_length=1, description="Filters of each block; AlignVis's."
    )
    kernel: int = Field(
        17, gt=0, le=10_000, description="Samples of every kernel, an odd number; the paper's."
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Probability of dropping a unit; BrainHiVE's.")

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> "ResNet1d":
        """Make the encoder for signals [B, C, T] and tokens [B, D]."""
        return ResNet1d(channels, samples, dim, self.filters, self.kernel, self.dropout)


TINY = Config(filters=(8, 8), kernel=3)


class ResNet1d(nn.Module):
    """A convolution, residual blocks, and the head over what is left of time."""

    def __init__(
        self, channels: int, samples: int, dim: int, filters: tuple[int, ...], kernel: int, dropout: float
    ) -> None:
        super().__init__()
        self.size = (channels, samples)
        self.stem = nn.Sequential(
            nn.Conv1d(channels, filters[0], kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm1d(filters[0]),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential()
        for before, after in zip((filters[0], *filters), filters, strict=False):
            self.blocks.append(Block(before, after, kernel, dropout))
            samples = -(-samples // 2)
        self.project = projection_head(filters[-1] * samples, dim, dropout)

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] as tokens [B, D]; the subject does not matter."""
        signal_shape.check(signal, *self.size)
        return self.project(self.blocks(self.stem(signal)).flatten(1))


class Block(nn.Module):
    """Two convolutions, the second with stride 2, in parallel with a max pooling."""

    def __init__(self, before: int, after: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv1d(before, after, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm1d(after),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv1d(after, after, kernel, stride=2, padding=kernel // 2, bias=False),
        )
        self.skip = nn.Sequential(nn.MaxPool1d(2, ceil_mode=True), nn.Conv1d(before, after, 1, bias=False))
        self.norm = nn.BatchNorm1d(after)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, F, T] to [B, F', T / 2], rounded up."""
        return self.dropout(F.relu(self.norm(self.main(x) + self.skip(x))))
