"""What the plain convolutional brain encoders share: layers over the signal as a picture, then the head."""

from torch import Tensor, nn

from brainhive_cli.models import signal_shape
from brainhive_cli.models.backbones._head import projection_head


class ConvolutionNet(nn.Module):
    """Convolutions, flattened, and the projection head; the parameter names are upstream's.

    Args:
        channels: C.
        samples: T.
        layers: What maps [B, 1, C, T] to [B, F, 1, T'].
        features: F · T'.
        dim: D, width of the token.
        dropout: Probability of dropping a unit of the head.
    """

    def __init__(
        self, channels: int, samples: int, layers: nn.Sequential, features: int, dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.size = (channels, samples)
        self.backbone = layers
        self.project = nn.Sequential(nn.Flatten(), *projection_head(features, dim, dropout))

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] as tokens [B, D]; the subject does not matter."""
        signal_shape.check(signal, *self.size)
        return self.project(self.backbone(signal[:, None]))
