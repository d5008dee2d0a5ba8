"""Brain projection: all channels and samples straight into the projection head."""

from torch import nn

from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import BrainEncoder, UnitDropout, projection_head


class Config(BackboneConfig):
    """The smallest brain encoder of BrainHiVE (arXiv 2602.07495)."""

    cites = ("zheng2026",)

    dropout: UnitDropout = 0.3

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> BrainEncoder:
        """Make the encoder for signals [B, C, T] and tokens [B, D]; the parameter names are upstream's."""
        head = projection_head(channels * samples, dim, self.dropout)
        return BrainEncoder(flatten=nn.Flatten(), model=head)


TINY = Config()
