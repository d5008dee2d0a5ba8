"""NICE: temporal, then spatial convolution over the channels, and a projection head."""

from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.models import signal_shape
from brainhive_cli.models.backbones._head import projection_head
from brainhive_cli.models.backbones.ts_conv import FILTERS, KERNEL, POOL, STRIDE, convolutions


class Config(parts.Config):
    """The brain encoder of NICE (arXiv 2308.13234)."""

    dropout: float = Field(
        0.1, ge=0, lt=1, description="Probability of dropping a unit; BrainHiVE's (NICE: 0.5)."
    )

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> "NICE":
        """Make the encoder for signals [B, C, T] and tokens [B, D].

        Raises:
            BrainhiveError: if the window is shorter than the filters.
        """
        return NICE(channels, samples, dim, self.dropout)


TINY = Config()


class NICE(nn.Module):
    """Convolutions over time and channels; the parameter names are upstream's."""

    def __init__(self, channels: int, samples: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.size = (channels, samples)
        self.enc_eeg = nn.Sequential(PatchEmbedding(channels, dropout), nn.Flatten())
        patches = signal_shape.samples_left(samples, (KERNEL, 1), (POOL, STRIDE))
        self.proj_eeg = projection_head(FILTERS * patches, dim, dropout)

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] as tokens [B, D]; the subject does not matter."""
        signal_shape.check(signal, *self.size)
        return self.proj_eeg(self.enc_eeg(signal))


class PatchEmbedding(nn.Module):
    """Temporal convolution, mean pooling, spatial convolution over all channels."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.tsconv = convolutions(channels, dropout)
        self.projection = nn.Sequential(nn.Conv2d(FILTERS, FILTERS, 1))

    def forward(self, signal: Tensor) -> Tensor:
        """Map [B, C, T] to patches [B, T', F]."""
        features = self.projection(self.tsconv(signal[:, None]))  # [B, F, 1, T']
        return features.squeeze(2).transpose(1, 2)
