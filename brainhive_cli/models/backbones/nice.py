"""NICE: temporal, then spatial convolution over the channels, and a projection head."""

from collections import OrderedDict

from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import BrainEncoder, Share, projection_head
from brainhive_cli.models.backbones.ts_conv import FILTERS, KERNEL, POOL, STRIDE, convolutions
from brainhive_cli.models.signal_spec import samples_left


class Config(BackboneConfig):
    """The brain encoder of NICE (arXiv 2308.13234)."""

    cites = ("song2024",)

    dropout: Share = Field(0.1, description="Probability of dropping a unit; BrainHiVE's (NICE: 0.5).")

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> BrainEncoder:
        """Make the encoder for signals [B, C, T] and tokens [B, D]; the parameter names are upstream's.

        Raises:
            BrainhiveError: if the window is shorter than the filters.
        """
        # T', the samples that convolution and pooling leave
        patches = samples_left(samples, (KERNEL, 1), (POOL, STRIDE))
        return BrainEncoder(
            enc_eeg=nn.Sequential(patch_embedding(channels, self.dropout), nn.Flatten()),
            proj_eeg=projection_head(FILTERS * patches, dim, self.dropout),
        )


TINY = Config()


class PatchSequence(nn.Module):
    """Features [B, F, 1, T'] as a sequence of patches [B, T', F]."""

    def forward(self, features: Tensor) -> Tensor:
        """Put the patches' axis before their width."""
        return features.squeeze(2).transpose(1, 2)


def patch_embedding(channels: int, dropout: float) -> nn.Sequential:
    """Map signals [B, C, T] to patches [B, T', F]: convolution over time, mean pooling, over all channels."""
    return nn.Sequential(
        OrderedDict(
            picture=nn.Unflatten(1, (1, channels)),  # [B, 1, C, T]
            tsconv=convolutions(channels, dropout),  # [B, F, 1, T']
            projection=nn.Sequential(nn.Conv2d(FILTERS, FILTERS, 1)),
            sequence=PatchSequence(),  # [B, T', F]
        )
    )
