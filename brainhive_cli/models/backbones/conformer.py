"""EEG-Conformer: patches from a temporal and a spatial convolution, then a transformer over them."""

from pydantic import Field
from torch import nn

from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import BrainEncoder, PatchSequence, Share, projection_head
from brainhive_cli.models.signal_spec import samples_left

FILTERS = 40
KERNEL = 25
POOL, STRIDE = 75, 15
HEADS = 10
EXPANSION = 4
"""Filters, which are the width of a patch; samples of the temporal kernel, of the mean pooling and of its
stride; attention heads; how much wider a layer is inside: the paper's."""


class Config(BackboneConfig):
    """EEG-Conformer (Song et al. 2023, IEEE TNSRE 31), without its classifier."""

    depth: int = Field(6, gt=0, le=1_000, description="Transformer layers; the paper's.")
    dropout: Share = Field(0.5, description="Probability of dropping a unit; the paper's.")

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> BrainEncoder:
        """Make the encoder for signals [B, C, T] and tokens [B, D].

        Patches of about a third of a second at 250 Hz attend to each other.

        Raises:
            BrainhiveError: if the window is shorter than the filters.
        """
        # patches of the window: convolution over time, then over channels
        patches = samples_left(samples, (KERNEL, 1), (POOL, STRIDE))
        embedding = nn.Sequential(
            nn.Conv2d(1, FILTERS, (1, KERNEL)),
            nn.Conv2d(FILTERS, FILTERS, (channels, 1)),
            nn.BatchNorm2d(FILTERS),
            nn.ELU(),
            nn.AvgPool2d((1, POOL), (1, STRIDE)),
            nn.Dropout(self.dropout),
            nn.Conv2d(FILTERS, FILTERS, 1),
        )

        # attention between patches, then the projection of all
        layer = nn.TransformerEncoderLayer(
            FILTERS, HEADS, EXPANSION * FILTERS, self.dropout, "gelu", batch_first=True, norm_first=True
        )
        return BrainEncoder(
            picture=nn.Unflatten(1, (1, channels)),
            patches=embedding,
            sequence=PatchSequence(),
            transformer=nn.TransformerEncoder(layer, self.depth, enable_nested_tensor=False),
            flatten=nn.Flatten(),
            project=projection_head(FILTERS * patches, dim, self.dropout),
        )


TINY = Config(depth=1)
