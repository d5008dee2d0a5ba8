"""1-D ResNet: residual blocks of convolutions over time, each halving the samples."""

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import BrainEncoder, UnitDropout, projection_head


class Config(BackboneConfig):
    """The residual network for signals of Lima et al. (2021, doi 10.1038/s41467-021-25351-7)."""

    filters: tuple[int, ...] = Field(
        (64, 128, 196, 256, 320), min_length=1, description="Filters of each block; AlignVis's."
    )
    kernel: int = Field(
        17, gt=0, le=10_000, description="Samples of every kernel, an odd number; the paper's."
    )
    dropout: UnitDropout = 0.1

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> BrainEncoder:
        """Make the encoder for signals [B, C, T] and tokens [B, D]."""
        first, blocks = self.filters[0], nn.Sequential()
        stem = nn.Sequential(
            nn.Conv1d(channels, first, self.kernel, padding=self.kernel // 2, bias=False),
            nn.BatchNorm1d(first),
            nn.ReLU(),
        )
        for before, after in zip((first, *self.filters), self.filters, strict=False):
            blocks.append(Block(before, after, self.kernel, self.dropout))
            samples = -(-samples // 2)
        head = projection_head(self.filters[-1] * samples, dim, self.dropout)
        return BrainEncoder(stem=stem, blocks=blocks, flatten=nn.Flatten(), project=head)


TINY = Config(filters=(8, 8), kernel=3)


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
