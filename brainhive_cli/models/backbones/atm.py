"""ATM: attention between the channels and a token of the subject, then the convolutions of NICE."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import projection_head
from brainhive_cli.models.backbones.nice import patch_embedding
from brainhive_cli.models.backbones.ts_conv import FILTERS, KERNEL, POOL, STRIDE
from brainhive_cli.models.blocks import Share, rows_of
from brainhive_cli.models.signal_spec import samples_left

HEADS = 4
HIDDEN = 256
"""Attention heads and width of the feed-forward layer: BrainHiVE's."""


class Config(BackboneConfig):
    """The brain encoder of ATM (arXiv 2403.07721), as BrainHiVE has it."""

    cites = ("li2024",)

    dropout: Share = Field(0.25, description="Probability of dropping a unit; the paper's.")
    convolution_dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        exclude_if=lambda dropout: dropout is None,  # older runs do not name it
        description="The same behind the convolutions and in the projection; default: dropout (ATM-S: 0.5).",
    )

    def build(self, channels: int, samples: int, dim: int, subjects: int = 1) -> "ATM":
        """Make the encoder for signals [B, C, T] of S subjects and tokens [B, D].

        Raises:
            BrainhiveError: if the window is shorter than the filters of NICE.
        """
        # ATM-S drops more behind the convolutions
        late = self.dropout if self.convolution_dropout is None else self.convolution_dropout
        return ATM(channels, samples, dim, subjects, self.dropout, late)


TINY = Config()


class ATM(nn.Module):
    """Channels attend to each other and to the subject's token; the parameter names are upstream's."""

    def __init__(
        self, channels: int, samples: int, dim: int, subjects: int, dropout: float, convolution_dropout: float
    ) -> None:
        super().__init__()
        self.channels = channels
        patches = samples_left(samples, (KERNEL, 1), (POOL, STRIDE))

        # channels as a sequence, behind a token of the subject, through one transformer layer
        embedding = ChannelEmbedding(samples, subjects, dropout)
        layers = nn.Sequential(
            OrderedDict(attn_layers=nn.Sequential(Layer(samples, dropout)), norm=nn.LayerNorm(samples))
        )
        self.encoder = nn.ModuleDict({"enc_embedding": embedding, "encoder": layers})

        # patches and token as NICE's
        self.enc_eeg = nn.Sequential(patch_embedding(channels, convolution_dropout), nn.Flatten())
        self.proj_eeg = projection_head(FILTERS * patches, dim, convolution_dropout)

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] of subjects [B] as tokens [B, D]."""
        embedded = self.encoder["enc_embedding"](signal, subject_index)  # [B, 1 + C, T]
        attended = self.encoder["encoder"](embedded)
        # the subject's token is at the beginning, so it is the last channel's that the reference drops
        return self.proj_eeg(self.enc_eeg(attended[:, : self.channels]))


class ChannelEmbedding(nn.Module):
    """Each channel projected, and the subject's token in front."""

    def __init__(self, samples: int, subjects: int, dropout: float) -> None:
        super().__init__()
        self.value_embedding = nn.Linear(samples, samples)
        self.subject_embedding = SubjectEmbedding(samples, subjects)
        self.dropout = nn.Dropout(dropout)

    def forward(self, signal: Tensor, subject_index: Tensor | None) -> Tensor:
        """Map [B, C, T] to [B, 1 + C, T]."""
        channels = self.value_embedding(signal)
        # expanded, as a new subject has one mean token for all rows
        token = self.subject_embedding(subject_index).expand(len(signal), -1, -1)
        return self.dropout(torch.cat([token.to(channels.dtype), channels], 1))


class SubjectEmbedding(nn.Module):
    """A token for each subject.

    Upstream has one more, `shared_embedding`, for subjects beyond its ten; it is kept so that upstream's
    weights fit. Here a subject not seen in training takes the mean of those that were learned.
    """

    def __init__(self, samples: int, subjects: int) -> None:
        super().__init__()
        self.subject_embedding = nn.Embedding(subjects, samples)
        self.register_buffer("shared_embedding", torch.zeros(1, samples))

    def forward(self, subject_index: Tensor | None) -> Tensor:
        """Map [B] to [B, 1, T], None to [1, 1, T]."""
        return rows_of(self.subject_embedding.weight, subject_index)[:, None]


class Layer(nn.Module):
    """A transformer layer with its norms behind the sums."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, dropout)
        self.conv1 = nn.Conv1d(width, HIDDEN, 1)
        self.conv2 = nn.Conv1d(HIDDEN, width, 1)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, S, T] to [B, S, T]."""
        x = self.norm1(x + self.dropout(self.attention(x)))
        # feed-forward layer, as convolutions of width 1 over [B, T, S]
        hidden = self.dropout(F.gelu(self.conv1(x.transpose(1, 2))))
        return self.norm2(x + self.dropout(self.conv2(hidden)).transpose(1, 2))


class Attention(nn.Module):
    """Attention whose heads together are narrower than the sequence where their number does not divide it."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        # a multiple of the heads, so that all have one width
        inner = width // HEADS * HEADS
        self.query_projection = nn.Linear(width, inner)
        self.key_projection = nn.Linear(width, inner)
        self.value_projection = nn.Linear(width, inner)
        self.out_projection = nn.Linear(inner, width)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, S, T] to [B, S, T]."""
        query, key, value = (
            project(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)  # [B, heads, S, T / heads]
            for project in (self.query_projection, self.key_projection, self.value_projection)
        )

        # the function does not know whether the module trains
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.out_projection(mixed.transpose(1, 2).flatten(2))  # [B, S, T]
