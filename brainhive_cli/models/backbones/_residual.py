"""The layers of which the networks of MindEye1 and HAVIR are made."""

from torch import nn

from brainhive_cli.models.blocks import Dropout


def layers(width: int, hidden: int, activation: nn.Module, dropout: float, bias: bool) -> list[nn.Module]:
    """Map [B, width] to [B, hidden]: linear, LayerNorm, activation, dropout."""
    return [nn.Linear(width, hidden, bias), nn.LayerNorm(hidden), activation, Dropout(dropout)]
