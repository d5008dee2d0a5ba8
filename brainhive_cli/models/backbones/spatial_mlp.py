"""Brain encoder of Visual Blur Perception (VBP), with non-negative spatial filters."""

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from brainhive_cli.models import Dropout, Share
from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import BrainEncoder


class Config(BackboneConfig):
    """Settings of VBP's encoder (AAAI 2026, published repository)."""

    cites = ("liu2026",)
    called = "The brain encoder of Visual Blur Perception"

    filters: PositiveInt = Field(
        25, description="Number F of spatial filters, by default VBP's."
    )
    hidden: PositiveInt = Field(
        200, description="Width H of the layers over time, by default VBP's."
    )
    dropout: Share = Field(
        0.65,
        description="Probability of dropping a unit after the second layer over time. "
        "The default is VBP's.",
    )

    def build(
        self, channels: int, samples: int, dim: int, subjects: int = 1
    ) -> BrainEncoder:
        """Make the encoder for signals [B, C, T] and tokens [B, D]."""
        # all filters share the layers over time
        time_layers = nn.Sequential(
            nn.Linear(samples, self.hidden),
            nn.ELU(),
            # Probability of dropping a unit after the first layer over time, as in VBP.
            Dropout(0.25),
            nn.Linear(self.hidden, self.hidden),
            nn.ELU(),
            Dropout(self.dropout),
        )
        return BrainEncoder(
            spatial=NonNegativeFilters(channels, self.filters),  # [B, F, T]
            norm=nn.BatchNorm1d(self.filters),
            time=time_layers,  # [B, F, H]
            flatten=nn.Flatten(),  # [B, F · H]
            project=nn.Linear(self.filters * self.hidden, dim),
        )


TINY = Config(filters=3, hidden=8)


class NonNegativeFilters(nn.Conv1d):
    """Spatial filters by the absolute values of their weights, without bias.

    Each forward pass in training stores the absolute values as weights, as VBP does.
    """

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__(channels, filters, 1, bias=False)

    def forward(self, signal: Tensor) -> Tensor:
        """Filter signals [B, C, T] to [B, F, T]."""
        if self.training:
            # hidden from autograd, as the output does not depend on it
            self.weight.data.abs_()
        return self.weight[..., 0].abs() @ signal
