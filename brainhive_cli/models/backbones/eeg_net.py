"""EEGNet: a long temporal, a spatial and a short temporal convolution, with few filters."""

from torch import nn

from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import BrainEncoder, UnitDropout, convolution_encoder
from brainhive_cli.models.signal_spec import samples_left

TEMPORAL, SPATIAL = 8, 16
LONG, SHORT = 64, 16
POOL = 2
"""Filters of the first and of the later convolutions; samples of the two temporal kernels and of the mean
pooling between them: BrainHiVE's."""


class Config(BackboneConfig):
    """EEGNet (arXiv 1611.08024) with full convolutions and one pooling, as BrainHiVE has it."""

    cites = ("lawhern2018", "zheng2026")

    dropout: UnitDropout = 0.1

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> BrainEncoder:
        """Make the encoder for signals [B, C, T] and tokens [B, D].

        Raises:
            BrainhiveError: if the window is shorter than the filters.
        """
        # both temporal kernels and the pooling shorten the window
        features = SPATIAL * samples_left(samples, (LONG, 1), (POOL, POOL), (SHORT, 1))
        layers = nn.Sequential(
            nn.Conv2d(1, TEMPORAL, (1, LONG)),  # over time: [B, F, C, T']
            nn.BatchNorm2d(TEMPORAL),
            nn.Conv2d(TEMPORAL, SPATIAL, (channels, 1)),  # over channels: [B, F, 1, T']
            nn.BatchNorm2d(SPATIAL),
            nn.ELU(),
            nn.AvgPool2d((1, POOL)),
            nn.Dropout(self.dropout),
            nn.Conv2d(SPATIAL, SPATIAL, (1, SHORT)),  # over time again
            nn.BatchNorm2d(SPATIAL),
            nn.ELU(),
            nn.Dropout(self.dropout),
        )
        return convolution_encoder(channels, layers, features, dim, self.dropout)


TINY = Config()
