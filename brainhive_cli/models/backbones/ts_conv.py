"""TSConv: temporal convolution, pooling, then spatial convolution over the channels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import BrainEncoder, UnitDropout, convolution_encoder
from brainhive_cli.models.signal_spec import samples_left

FILTERS = 40
KERNEL = 25
POOL, STRIDE = 51, 5
"""Filters; samples of the temporal kernel, of the mean pooling and of its stride: NICE's."""


class Config(BackboneConfig):
    """The convolutions of NICE (arXiv 2308.13234) without its last projection."""

    cites = ("song2024",)

    dropout: UnitDropout = 0.1

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> BrainEncoder:
        """Make the encoder for signals [B, C, T] and tokens [B, D].

        Raises:
            BrainhiveError: if the window is shorter than the filters.
        """
        features = FILTERS * samples_left(samples, (KERNEL, 1), (POOL, STRIDE))
        layers = convolutions(channels, self.dropout)
        return convolution_encoder(channels, layers, features, dim, self.dropout)


TINY = Config()


def convolutions(channels: int, dropout: float) -> nn.Sequential:
    """Make the layers from [B, 1, C, T] to [B, F, 1, T']."""
    return nn.Sequential(
        PooledConvolution(FILTERS, KERNEL, POOL, STRIDE),
        nn.Identity(),  # in upstream's names the pooling
        nn.BatchNorm2d(FILTERS),
        nn.ELU(),
        nn.Conv2d(FILTERS, FILTERS, (channels, 1)),  # over channels: [B, F, 1, T']
        nn.BatchNorm2d(FILTERS),
        nn.ELU(),
        nn.Dropout(dropout),
    )


class PooledConvolution(nn.Conv2d):
    """`Conv2d(1, filters, (1, kernel))` and `AvgPool2d((1, pool), (1, stride))`, under the former's names.

    Both are linear, so they are one convolution, with the kernel smeared over the pooling window. It makes
    only the samples that pooling leaves: on a CPU, NICE trains four (fp32) to six times (bf16) as fast.

    Args:
        filters: F.
        kernel: Samples of the kernel.
        pool: Samples of the pooling window.
        stride: Samples from one window to the next.
    """

    def __init__(self, filters: int, kernel: int, pool: int, stride: int) -> None:
        super().__init__(1, filters, (1, kernel), stride=(1, stride))
        self.pool = pool

    def forward(self, signal: Tensor) -> Tensor:
        """Map [B, 1, C, T] to [B, F, C, T']."""
        # smear the kernel in the precision of the weights, also under autocast
        with torch.autocast(signal.device.type, enabled=False):
            window = self.weight.new_full((1, 1, 1, self.pool), 1 / self.pool)
            kernel = F.conv2d(self.weight, window, padding=(0, self.pool - 1))  # [F, 1, 1, kernel + pool - 1]
        return F.conv2d(signal, kernel, self.bias, self.stride)
