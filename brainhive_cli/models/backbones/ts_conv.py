"""TSConv: temporal convolution, pooling, then spatial convolution over the channels."""

from pydantic import Field
from torch import nn

from brainhive_cli.core import parts
from brainhive_cli.models.backbones._convolution import ConvolutionNet
from brainhive_cli.models.backbones._pooled import PooledConvolution
from brainhive_cli.models.signal_shape import samples_left

FILTERS = 40
KERNEL = 25
POOL, STRIDE = 51, 5
"""Filters; samples of the temporal kernel, of the mean pooling and of its stride: NICE's."""


class Config(parts.Config):
    """The convolutions of NICE (arXiv 2308.13234) without its last projection."""

    dropout: float = Field(0.1, ge=0, lt=1, description="Probability of dropping a unit; BrainHiVE's.")

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> ConvolutionNet:
        """Make the encoder for signals [B, C, T] and tokens [B, D].

        Raises:
            BrainhiveError: if the window is shorter than the filters.
        """
        features = FILTERS * samples_left(samples, (KERNEL, 1), (POOL, STRIDE))
        layers = convolutions(channels, self.dropout)
        return ConvolutionNet(channels, samples, layers, features, dim, self.dropout)


TINY = Config()


def convolutions(channels: int, dropout: float) -> nn.Sequential:
    """Make the layers from [B, 1, C, T] to [B, F, 1, T']."""
    return nn.Sequential(
        PooledConvolution(FILTERS, KERNEL, POOL, STRIDE),
        nn.Identity(),  # in upstream's names the pooling
        nn.BatchNorm2d(FILTERS),
        nn.ELU(),
        nn.Conv2d(FILTERS, FILTERS, (channels, 1)),
        nn.BatchNorm2d(FILTERS),
        nn.ELU(),
        nn.Dropout(dropout),
    )
