"""Brain projection: all channels and samples straight into the projection head."""

from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.models import signal_shape
from brainhive_cli.models.backbones._head import projection_head


class Config(parts.Config):
    """The smallest brain encoder of BrainHiVE (arXiv 2602.07495)."""

    dropout: float = Field(0.3, ge=0, lt=1, description="Probability of dropping a unit; BrainHiVE's.")

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> "BrainProjection":
        """Make the encoder for signals [B, C, T] and tokens [B, D]."""
        return BrainProjection(channels, samples, dim, self.dropout)


TINY = Config()


class BrainProjection(nn.Module):
    """Flatten, then the projection head; the parameter names are upstream's."""

    def __init__(self, channels: int, samples: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.size = (channels, samples)
        self.model = projection_head(channels * samples, dim, dropout)

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] as tokens [B, D]; the subject does not matter."""
        signal_shape.check(signal, *self.size)
        return self.model(signal.flatten(1))
