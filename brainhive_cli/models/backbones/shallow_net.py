"""ShallowNet: one temporal and one spatial convolution, pooled over long windows."""

from torch import nn

from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import BrainEncoder, UnitDropout, convolution_encoder
from brainhive_cli.models.backbones.ts_conv import FILTERS, KERNEL, POOL, STRIDE
from brainhive_cli.models.signal_spec import samples_left


class Config(BackboneConfig):
    """The shallow network of Schirrmeister et al. (2017) as BrainHiVE has it: ELU for square and log."""

    cites = ("schirrmeister2017", "zheng2026")

    dropout: UnitDropout = 0.1

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> BrainEncoder:
        """Make the encoder for signals [B, C, T] and tokens [B, D].

        Raises:
            BrainhiveError: if the window is shorter than the filters.
        """
        # kernel and pooling shorten the window
        features = FILTERS * samples_left(samples, (KERNEL, 1), (POOL, STRIDE))
        layers = nn.Sequential(
            nn.Conv2d(1, FILTERS, (1, KERNEL)),  # over time: [B, F, C, T']
            nn.Conv2d(FILTERS, FILTERS, (channels, 1)),  # over channels: [B, F, 1, T']
            nn.BatchNorm2d(FILTERS),
            nn.ELU(),
            nn.AvgPool2d((1, POOL), (1, STRIDE)),
            nn.Dropout(self.dropout),
        )
        return convolution_encoder(channels, layers, features, dim, self.dropout)


TINY = Config()
