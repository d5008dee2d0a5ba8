"""EEG-Conformer: patches from a temporal and a spatial convolution, then a transformer over them."""

from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.models import signal_shape
from brainhive_cli.models.backbones._head import projection_head

FILTERS = 40
KERNEL = 25
POOL, STRIDE = 75, 15
HEADS = 10
EXPANSION = 4
"""Filters, which are the width of a patch; samples of the temporal kernel, of the mean pooling and of its
stride; attention heads; how much wider a layer is inside: the paper's."""


class Config(parts.Config):
    """EEG-Conformer (Song et al. 2023, IEEE TNSRE 31), without its classifier."""

    depth: int = Field(6, gt=0, le=1_000, description="Transformer layers; the paper's.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Probability of dropping a unit; the paper's.")

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> "Conformer":
        """Make the encoder for signals [B, C, T] and tokens [B, D].

        Raises:
            BrainhiveError: if the window is shorter than the filters.
        """
        return Conformer(channels, samples, dim, self.depth, self.dropout)


TINY = Config(depth=1)


class Conformer(nn.Module):
    """Patches of about a third of a second at 250 Hz, which attend to each other."""

    def __init__(self, channels: int, samples: int, dim: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.size = (channels, samples)
        patches = signal_shape.samples_left(samples, (KERNEL, 1), (POOL, STRIDE))
        self.patches = nn.Sequential(
            nn.Conv2d(1, FILTERS, (1, KERNEL)),
            nn.Conv2d(FILTERS, FILTERS, (channels, 1)),
            nn.BatchNorm2d(FILTERS),
            nn.ELU(),
            nn.AvgPool2d((1, POOL), (1, STRIDE)),
            nn.Dropout(dropout),
            nn.Conv2d(FILTERS, FILTERS, 1),
        )
        layer = nn.TransformerEncoderLayer(
            FILTERS, HEADS, EXPANSION * FILTERS, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.project = projection_head(FILTERS * patches, dim, dropout)

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] as tokens [B, D]; the subject does not matter."""
        signal_shape.check(signal, *self.size)
        patches = self.patches(signal[:, None]).squeeze(2).transpose(1, 2)  # [B, T', F]
        return self.project(self.transformer(patches).flatten(1))
