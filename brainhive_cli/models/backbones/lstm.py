"""LSTM: the mean of its states over the samples, and a projection head."""

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import UnitDropout, projection_head
from brainhive_cli.models.blocks import Width


class Config(BackboneConfig):
    """A recurrent brain encoder, with the sizes that AlignVis gives its own.

    AlignVis takes the last state, which by then has forgotten the response: twelve epochs of the demo leave
    that at chance.
    """

    hidden: Width = Field(128, description="Width of the state; AlignVis's.")
    layers: int = Field(1, gt=0, le=100, description="LSTMs on top of each other; AlignVis's.")
    dropout: UnitDropout = 0.1

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> "LSTM":
        """Make the encoder for signals [B, C, T] and tokens [B, D]."""
        return LSTM(channels, dim, self.hidden, self.layers, self.dropout)


TINY = Config(hidden=8)


class LSTM(nn.Module):
    """Reads the signal sample by sample, from a state of zeros."""

    def __init__(self, channels: int, dim: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(channels, hidden, layers, batch_first=True, dropout=between)
        self.project = projection_head(hidden, dim, dropout)

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] as tokens [B, D]; the subject does not matter."""
        with torch.autocast(signal.device.type, enabled=False):  # cuDNN knows fp16, not bf16
            states, _ = self.lstm(signal.float().transpose(1, 2))  # [B, T, hidden]
        return self.project(states.mean(1))
