"""my_parts/net.py: one hidden layer from a signal to a token."""

from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.models.backbones import BackboneConfig


class Config(BackboneConfig):
    """Source: a paper, a section."""

    hidden: int = Field(64, gt=0, description="width of the hidden layer")
    dropout: float = Field(
        0.1, ge=0, lt=1, description="probability of dropping a hidden unit"
    )

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> "Net":
        """Build the backbone for signals [B, C, T] and tokens [B, D]."""
        return Net(channels * samples, self.hidden, dim, self.dropout)


TINY = Config(hidden=8)


class Net(nn.Module):
    """Perceptron with one hidden layer."""

    def __init__(self, values: int, hidden: int, dim: int, dropout: float) -> None:
        super().__init__()
        layers = (
            nn.Linear(values, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, dim),
        )
        self.layers = nn.Sequential(*layers)

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T], whose size is checked, as tokens [B, D]."""
        return self.layers(signal.flatten(1))
