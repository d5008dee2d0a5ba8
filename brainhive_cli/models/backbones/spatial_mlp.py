"""Visual Blur Perception's brain encoder: non-negative spatial filters, then dense
layers over time.
"""

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import BrainEncoder
from brainhive_cli.models.blocks import Dropout
from brainhive_cli.models.sizes import Share

FIRST_DROPOUT = 0.25
"""Probability of dropping a unit behind the first layer over time; VBP's."""


class Config(BackboneConfig):
    """The encoder of Visual Blur Perception (AAAI 2026, published repository)."""

    cites = ("liu2026",)

    filters: PositiveInt = Field(25, description="Spatial filters; VBP's.")
    hidden: PositiveInt = Field(
        200, description="Width of the layers over time; VBP's."
    )
    dropout: Share = Field(
        0.65, description="Behind the second layer over time; VBP's."
    )

    def build(
        self, channels: int, samples: int, dim: int, subjects: int = 1
    ) -> BrainEncoder:
        """Make the encoder for signals [B, C, T] and tokens [B, D]."""
        # layers over time that all filters share: [B, F, T] to [B, F, H]
        over_time = nn.Sequential(
            nn.Linear(samples, self.hidden),
            nn.ELU(),
            Dropout(FIRST_DROPOUT),
            nn.Linear(self.hidden, self.hidden),
            nn.ELU(),
            Dropout(self.dropout),
        )
        return BrainEncoder(
            spatial=NonNegativeFilters(channels, self.filters),  # [B, F, T]
            norm=nn.BatchNorm1d(self.filters),
            time=over_time,
            flatten=nn.Flatten(),  # [B, F · H]
            project=nn.Linear(self.filters * self.hidden, dim),
        )


TINY = Config(filters=3, hidden=8)


class NonNegativeFilters(nn.Conv1d):
    """A mixing of channels by the absolute values of its weights, without bias.

    In training the weights are replaced by these before each step, as in VBP's code.
    """

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__(channels, filters, 1, bias=False)

    def forward(self, signal: Tensor) -> Tensor:
        """Map [B, C, T] to [B, F, T]."""
        if self.training:
            # a second forward pass changes nothing, so autograd need not know
            self.weight.data.abs_()
        return self.weight[..., 0].abs() @ signal
