"""ATM: attention between the channels and a token of the subject, then the convolutions
of NICE.
"""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones.brain_projection import nice_layers
from brainhive_cli.models.blocks import select_rows
from brainhive_cli.models.sizes import Share

HEADS = 4
HIDDEN = 256
"""Attention heads and width of the feed-forward layer: BrainHiVE's."""


class Config(BackboneConfig):
    """The brain encoder of ATM (arXiv 2403.07721), as BrainHiVE has it."""

    cites = ("li2024",)

    dropout: Share = Field(
        0.25, description="Probability of dropping a unit; the paper's."
    )
    convolution_dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        exclude_if=lambda dropout: dropout is None,  # older runs do not name it
        description=(
            "The same behind the convolutions and in the projection; default: dropout "
            "(ATM-S: 0.5)."
        ),
    )

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> "ATM":
        """Make the encoder for signals [B, C, T] of S subjects and tokens [B, D].

        Raises:
            BrainhiveError: if the window is shorter than the filters of NICE.
        """
        # ATM-S drops more behind the convolutions
        late = (
            self.dropout
            if self.convolution_dropout is None
            else self.convolution_dropout
        )
        return ATM(channels, samples, dim, subjects, self.dropout, late)


TINY = Config()


class ATM(nn.Module):
    """Channels attend to each other and to the subject's token; the parameter names are
    upstream's.

    Upstream has one more token, `shared_embedding`, for subjects beyond its ten,
    without which its weights would not fit. Here a subject not seen in training takes
    the mean of those that were learned.
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

        # each channel is projected, and a token for each subject stands in front
        embedding = nn.ModuleDict({"value_embedding": nn.Linear(samples, samples)})
        embedding["subject_embedding"] = nn.ModuleDict(
            {"subject_embedding": nn.Embedding(subjects, samples)}
        )
        embedding["dropout"] = nn.Dropout(dropout)
        embedding["subject_embedding"].register_buffer(
            "shared_embedding", torch.zeros(1, samples)
        )

        # one transformer layer, then patches and token as NICE's
        layers = nn.Sequential(
            OrderedDict(
                attn_layers=nn.Sequential(Layer(samples, dropout)),
                norm=nn.LayerNorm(samples),
            )
        )
        self.encoder: Any = nn.ModuleDict(
            {"enc_embedding": embedding, "encoder": layers}
        )
        late = nice_layers(channels, samples, dim, convolution_dropout)
        self.enc_eeg = late["enc_eeg"]
        self.proj_eeg = late["proj_eeg"]

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] of subjects [B] as tokens [B, D]."""
        embedding = self.encoder["enc_embedding"]
        channels = embedding["value_embedding"](signal)  # [B, C, T]
        # expanded, as a new subject has one mean token for all rows
        tokens = embedding["subject_embedding"]["subject_embedding"].weight
        # [B, 1, T]
        token = select_rows(tokens, subject_index)[:, None].expand(
            signal.shape[0], -1, -1
        )
        # [B, 1 + C, T]
        embedded = embedding["dropout"](
            torch.cat([token.to(channels.dtype), channels], 1)
        )

        # the subject's token is at the beginning, so it is the last channel's that the
        # reference drops
        attended = self.encoder["encoder"](embedded)
        return self.proj_eeg(self.enc_eeg(attended[:, : self.channels]))


class Layer(nn.Module):
    """A transformer layer with its norms behind the sums.

    The attention heads together are narrower than the sequence where their number does
    not divide it.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        # a multiple of the heads, so that all have one width
        inner = width // HEADS * HEADS
        maps = {
            f"{name}_projection": nn.Linear(width, inner)
            for name in ("query", "key", "value")
        }
        self.attention = nn.ModuleDict(
            {**maps, "out_projection": nn.Linear(inner, width)}
        )
        self.conv1 = nn.Conv1d(width, HIDDEN, 1)
        self.conv2 = nn.Conv1d(HIDDEN, width, 1)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, S, T] to [B, S, T]."""
        *maps, out = self.attention.values()
        # [B, heads, S, T / heads]
        query, key, value = (
            project(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for project in maps
        )
        # the function does not know whether the module trains
        dropout = self.dropout.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        x = self.norm1(x + self.dropout(out(mixed.transpose(1, 2).flatten(2))))

        # feed-forward layer, as convolutions of width 1 over [B, T, S]
        hidden = self.dropout(F.gelu(self.conv1(x.transpose(1, 2))))
        return self.norm2(x + self.dropout(self.conv2(hidden)).transpose(1, 2))
