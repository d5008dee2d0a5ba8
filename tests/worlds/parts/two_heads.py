"""A user's backbone that predicts each of two heads from its own region."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.models import Decoded, Head, Heads, SignalSpec
from brainhive_cli.models.backbones import BackboneConfig

REGIONS = {"latent": "early", "tokens": "higher"}
"""The region from which each head is predicted."""


class Config(BackboneConfig):
    """Hidden width, and spread of the samples."""

    takes_spec: ClassVar[bool] = True

    hidden: int = Field(32, description="width of the spaces that subjects share")
    spread: float = Field(
        0.1,
        description="standard deviation of sampled tokens around the predicted ones",
    )

    def build(self, spec: SignalSpec, heads: Heads) -> "TwoHeads":
        """Make the model; its heads are `latent` [C, H, W] and `tokens` [S, D]."""
        return TwoHeads(self, spec, heads)


TINY = Config(hidden=4)


class TwoHeads(nn.Module):
    """A stream per head."""

    def __init__(self, config: Config, spec: SignalSpec, heads: Heads) -> None:
        super().__init__()
        self.subjects, self.spread = spec.subjects, config.spread
        self.streams = nn.ModuleDict(
            {
                name: Stream(config.hidden, spec, REGIONS[name], head)
                for name, head in heads.items()
            }
        )

    def forward(self, signal: Tensor, subject_index: Tensor) -> dict[str, Tensor]:
        """Predict the heads from voxels [B, V, 1] of a subject."""
        subject = self.subjects[int(subject_index[0])]
        return {
            name: stream(signal[..., 0], subject)
            for name, stream in self.streams.items()
        }

    def decode(
        self, signal: Tensor, subject_index: Tensor, seeds: Sequence[int]
    ) -> Decoded:
        """Sample tokens around the predictions, with a seed and a note per signal."""
        heads = self(signal, subject_index)
        shape = heads["tokens"].shape[1:]
        noise = [
            torch.randn(shape, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        heads["tokens"] = heads["tokens"] + self.spread * torch.stack(noise).to(signal)
        return Decoded(heads, {"note": [f"seed {seed}" for seed in seeds]})


class Stream(nn.Module):
    """Linear maps from a region: a map per subject, then a shared map to a head."""

    def __init__(self, hidden: int, spec: SignalSpec, region: str, head: Head) -> None:
        super().__init__()
        self.shape = head.shape
        self.voxels = dict(zip(spec.subjects, spec.regions[region], strict=True))
        self.ridge = nn.ModuleDict(
            {
                str(subject): nn.Linear(len(voxels), hidden)
                for subject, voxels in self.voxels.items()
            }
        )
        self.shared = nn.Linear(hidden, head.width)

    def forward(self, voxels: Tensor, subject: int) -> Tensor:
        """Map a subject's voxels [B, V] to the head [B, *shape]."""
        # [B, H]
        hidden = self.ridge[str(subject)](voxels[:, list(self.voxels[subject])])
        return self.shared(hidden).unflatten(1, self.shape)
