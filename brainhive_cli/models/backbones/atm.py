"""ATM, with attention between channels and a subject token, then NICE's layers."""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.models import Share, select_rows
from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones.brain_projection import make_nice_layers

N_HEADS = 4
"""Number of attention heads, as in BrainHiVE."""


class Config(BackboneConfig):
    """Settings of ATM's brain encoder (arXiv 2403.07721), as in BrainHiVE."""

    cites = ("li2024",)
    called = "ATM"

    dropout: Share = Field(
        0.25, description="Probability of dropping a unit, by default the paper's."
    )
    convolution_dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        exclude_if=lambda dropout: (
            dropout is None
        ),  # keep the fingerprints of older runs
        description=(
            "Probability of dropping a unit after the convolutions and in the "
            "projection (0.5 in ATM-S). Default: as dropout."
        ),
    )

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> "ATM":
        """Make the encoder for signals [B, C, T] of S subjects and tokens [B, D].

        Raises:
            BrainhiveError: if the window is shorter than the filters of NICE.
        """
        convolution_dropout = self.convolution_dropout
        if convolution_dropout is None:
            convolution_dropout = self.dropout
        return ATM(channels, samples, dim, subjects, self.dropout, convolution_dropout)


TINY = Config()


class ATM(nn.Module):
    """Attention between channels and a subject token, with upstream's parameter names.

    A new subject gets the mean of the learned subject tokens. The buffer
    `shared_embedding`, upstream's token of other subjects, only lets its weights load.
    """

    def __init__(
        self,
        channels: int,
        samples: int,
        dim: int,
        subjects: int,
        dropout: float,
        convolution_dropout: float,
    ) -> None:
        super().__init__()
        self.channels = channels

        # projection of each channel, and a token for each subject
        embedding = nn.ModuleDict({"value_embedding": nn.Linear(samples, samples)})
        embedding["subject_embedding"] = nn.ModuleDict(
            {"subject_embedding": nn.Embedding(subjects, samples)}
        )
        embedding["dropout"] = nn.Dropout(dropout)
        embedding["subject_embedding"].register_buffer(
            "shared_embedding", torch.zeros(1, samples)
        )

        # transformer layer, then the layers of NICE
        layers = nn.Sequential(
            OrderedDict(
                attn_layers=nn.Sequential(Layer(samples, dropout)),
                norm=nn.LayerNorm(samples),
            )
        )
        self.encoder: Any = nn.ModuleDict(
            {"enc_embedding": embedding, "encoder": layers}
        )
        nice = make_nice_layers(channels, samples, dim, convolution_dropout)
        self.enc_eeg = nice["enc_eeg"]
        self.proj_eeg = nice["proj_eeg"]

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] of subjects [B] as tokens [B, D]."""
        embedding = self.encoder["enc_embedding"]
        channels = embedding["value_embedding"](signal)  # [B, C, T]
        # a new subject has the same mean token [1, T] in all rows
        table = embedding["subject_embedding"]["subject_embedding"].weight
        token = select_rows(table, subject_index)[:, None]
        token = token.expand(signal.shape[0], -1, -1).to(channels.dtype)  # [B, 1, T]
        sequence = embedding["dropout"](torch.cat([token, channels], 1))

        # The reference keeps the first C of 1 + C outputs. It drops the last channel,
        # not the subject token.
        attended = self.encoder["encoder"](sequence)
        return self.proj_eeg(self.enc_eeg(attended[:, : self.channels]))


class Layer(nn.Module):
    """Transformer layer with post-normalisation.

    If the number of attention heads does not divide the width, the heads together are
    narrower.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        inner = width // N_HEADS * N_HEADS
        self.attention = nn.ModuleDict(
            {
                "query_projection": nn.Linear(width, inner),
                "key_projection": nn.Linear(width, inner),
                "value_projection": nn.Linear(width, inner),
                "out_projection": nn.Linear(inner, width),
            }
        )
        # Width of the feed-forward layer, as in BrainHiVE.
        feed_forward_width = 256
        self.conv1 = nn.Conv1d(width, feed_forward_width, 1)
        self.conv2 = nn.Conv1d(feed_forward_width, width, 1)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, S, T] to [B, S, T]."""
        to_query, to_key, to_value, to_out = self.attention.values()
        query, key, value = (
            project(x).unflatten(-1, (N_HEADS, -1)).transpose(1, 2)
            for project in (to_query, to_key, to_value)
        )  # [B, heads, S, T / heads]
        dropout = self.dropout.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        x = self.norm1(x + self.dropout(to_out(mixed.transpose(1, 2).flatten(2))))

        # the feed-forward layer as convolutions of width 1 over [B, T, S]
        hidden = self.dropout(F.gelu(self.conv1(x.transpose(1, 2))))
        return self.norm2(x + self.dropout(self.conv2(hidden)).transpose(1, 2))
