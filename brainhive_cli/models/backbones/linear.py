"""Linear: one linear map of all channels and samples, or of all voxels."""

from pydantic import Field
from torch import nn

from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import BrainEncoder, Share


class Config(BackboneConfig):
    """The baseline that any other brain encoder has to beat (after AlignVis)."""

    dropout: Share = Field(0.0, description="Probability of dropping an input value.")

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> BrainEncoder:
        """Make the encoder for signals [B, C, T] (voxels: [B, V, 1]) and tokens [B, D]."""
        return BrainEncoder(
            flatten=nn.Flatten(), dropout=nn.Dropout(self.dropout), project=nn.Linear(channels * samples, dim)
        )


TINY = Config(dropout=0.1)
