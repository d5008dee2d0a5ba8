"""DeepNet: four blocks of convolution and max pooling, the first with a spatial convolution."""

from itertools import pairwise

from pydantic import Field
from torch import nn

from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import BrainEncoder, UnitDropout, convolution_encoder
from brainhive_cli.models.signal_spec import samples_left

FILTERS = (25, 50, 100, 200)
POOL = 2
"""Filters of each block; samples that max pooling takes as one: BrainHiVE's."""


class Config(BackboneConfig):
    """The deep network of Schirrmeister et al. (2017), pooled by two as BrainHiVE has it."""

    cites = ("schirrmeister2017", "zheng2026")

    kernel: int = Field(
        10,
        gt=0,
        le=10_000,
        description="Samples of every temporal kernel; the paper's. Windows below 151 need less.",
    )
    dropout: UnitDropout = 0.1

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> BrainEncoder:
        """Make the encoder for signals [B, C, T] and tokens [B, D].

        Raises:
            BrainhiveError: if the window is shorter than the filters.
        """
        # kernel and pooling of every block shorten the window
        features = FILTERS[-1] * samples_left(samples, *[(self.kernel, 1), (POOL, POOL)] * len(FILTERS))
        layers: list[nn.Module] = []
        for before, filters in pairwise((1, *FILTERS)):
            # convolution over time, in the first block also over channels
            layers.append(nn.Conv2d(before, filters, (1, self.kernel)))
            if before == 1:  # [B, F, C, T'] to [B, F, 1, T']
                layers.append(nn.Conv2d(filters, filters, (channels, 1)))
            layers += [nn.BatchNorm2d(filters), nn.ELU(), nn.MaxPool2d((1, POOL)), nn.Dropout(self.dropout)]
        return convolution_encoder(channels, nn.Sequential(*layers), features, dim, self.dropout)


TINY = Config(kernel=3)
"""Short enough kernels for the tests' windows."""
