"""A brain model as MindEye2 and NEURONS have it: a ridge for each subject, mixers, tokens and a text vector.

Source: RidgeRegression and BrainNetwork of MindEye2 (arXiv 2403.11207, MIT), which NEURONS starts from.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core import parts
from brainhive_cli.core.heads import Heads
from brainhive_cli.core.signal_spec import SignalSpec


class Config(parts.Config):
    """Sizes inside; those of signals and heads follow from both."""

    takes_spec: ClassVar[bool] = True

    hidden: int = Field(4096, description="width of the shared space")
    blocks: int = Field(4, description="mixer blocks")
    dropout: float = Field(0.15, description="probability of dropping a unit inside a mixer")

    def build(self, spec: SignalSpec, heads: Heads) -> "Mixer":
        """Make the model; its heads are `tokens` [S, D] and `text` [E]."""
        return Mixer(self, spec, heads)


TINY = Config(hidden=8, blocks=1)


class Mixer(nn.Module):
    """Ridge, backbone and frozen projection under the reference's names."""

    def __init__(self, config: Config, spec: SignalSpec, heads: Heads) -> None:
        super().__init__()
        self.subjects = spec.subjects
        self.ridge = nn.Module()
        self.ridge.linears = nn.ModuleDict(
            {
                str(subject): nn.Linear(width, config.hidden)
                for subject, width in zip(spec.subjects, spec.widths, strict=True)
            }
        )
        self.backbone = Backbone(config, *heads["tokens"].shape)
        self.clipproj = nn.Module()
        start = torch.randn(heads["tokens"].shape[-1], heads["text"].width) / heads["text"].width
        self.clipproj.proj = nn.Parameter(start, requires_grad=False)

    def forward(self, signal: Tensor, subject_index: Tensor) -> dict[str, Tensor]:
        """Predict the heads from voxels [B, V, 1] of one subject."""
        subject = self.subjects[int(subject_index[0])]
        tokens = self.backbone(self.ridge.linears[str(subject)](signal.transpose(1, 2)))  # [B, S, D]
        return {"tokens": tokens, "text": tokens.mean(1) @ self.clipproj.proj}


class Backbone(nn.Module):
    """Mixers over features and over the axis of length 1, then tokens."""

    def __init__(self, config: Config, tokens: int, width: int) -> None:
        super().__init__()
        hidden, drop = config.hidden, config.dropout
        self.width = width
        self.mixer_blocks1 = nn.ModuleList(_mixer(hidden, drop) for _ in range(config.blocks))
        self.mixer_blocks2 = nn.ModuleList(_mixer(1, drop) for _ in range(config.blocks))
        self.backbone_linear = nn.Linear(hidden, tokens * width)
        layers = [(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width)) for _ in range(3)]
        self.clip_proj = nn.Sequential(*(layer for three in layers for layer in three))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, 1, H] to tokens [B, S, D]."""
        first, second = x, x.transpose(1, 2)
        for over_features, over_length in zip(self.mixer_blocks1, self.mixer_blocks2, strict=True):
            first = over_features(x) + first
            second = over_length(first.transpose(1, 2)) + second
            x = second.transpose(1, 2)
        return self.clip_proj(self.backbone_linear(x.flatten(1)).unflatten(1, (-1, self.width)))


def _mixer(width: int, dropout: float) -> nn.Sequential:
    layers = (nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width))
    return nn.Sequential(nn.LayerNorm(width), nn.Sequential(*layers))
