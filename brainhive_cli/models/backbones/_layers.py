"""Layers that several backbones share."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from brainhive_cli.core.base import BrainhiveError
from brainhive_cli.models import Dropout, Heads, SignalSpec, check_signal

MAPS = "maps"
"""Name of the head of feature maps, from which a decoder makes a latent."""


class BrainEncoder(nn.Sequential):
    """Named layers from signals [B, C, T] to tokens [B, D], shared by all subjects."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__(OrderedDict(layers))

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] as tokens [B, D]. The subject has no effect."""
        return super().forward(signal)


class Residual(nn.Module):
    """Residual connection, x + fn(x)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, D] to [B, D]."""
        return x + self.fn(x)


def make_projection_head(features: int, dim: int, dropout: float) -> nn.Sequential:
    """Make the layers from features [B, F] to tokens [B, D].

    They are Linear, x + Dropout(Linear(GELU(x))) and LayerNorm.

    Source: NICE (arXiv 2308.13234), as in the BrainHiVE repository.
    """
    return nn.Sequential(
        nn.Linear(features, dim),
        Residual(nn.Sequential(nn.GELU(), nn.Linear(dim, dim), nn.Dropout(dropout))),
        nn.LayerNorm(dim),
    )


def make_dense_layers(
    width: int, hidden: int, activation: nn.Module, dropout: float, bias: bool
) -> list[nn.Module]:
    """Make a dense layer from [B, width] to [B, hidden], as in MindEye1 and HAVIR.

    Returns:
        Linear map, LayerNorm, activation and dropout.
    """
    return [
        nn.Linear(width, hidden, bias),
        nn.LayerNorm(hidden),
        activation,
        Dropout(dropout),
    ]


class BySubject(nn.ModuleDict):
    """Maps of voxels by the number of the subject. Each subject has its own map.

    Args:
        kind: Kind of the backbone, for errors.
        spec: Signals, with the subjects and their number of voxels.
        maps: Modules from [B, V] to [B, H], in the order of the subjects.
    """

    def __init__(self, kind: str, spec: SignalSpec, maps: Iterable[nn.Module]) -> None:
        numbers = map(str, spec.subjects)
        super().__init__(dict(zip(numbers, maps, strict=True)))
        self.kind = kind
        self.widths = dict(zip(self, spec.widths, strict=True))

    def forward(self, signal: Tensor, subject_index: Tensor | None) -> Tensor:
        """Map voxels [B, V, 1] of subjects [B] to [B, H].

        Raises:
            BrainhiveError: for a new subject, or another number of voxels.
        """
        maps = [partial(self._map, subject) for subject in self]
        return map_by_subject(self.kind, signal, subject_index, maps)

    def _map(self, subject: str, signal: Tensor) -> Tensor:
        """Map voxels [B, V, 1] of one subject to [B, H]."""
        check_signal(signal, self.widths[subject], 1)
        return self[subject](signal[..., 0])


def map_by_subject(
    kind: str,
    signal: Tensor,
    subject_index: Tensor | None,
    maps: Sequence[Callable[[Tensor], Tensor]],
) -> Tensor:
    """Map each signal by the map of its subject.

    Args:
        kind: Kind of the backbone, for errors.
        signal: Signals [B, ...].
        subject_index: Index [B] of each signal's subject in `maps`, or None for a new
            subject.
        maps: Function of each subject, from [B, ...] to [B, H].

    Returns:
        Mapped signals [B, H].

    Raises:
        BrainhiveError: for a new subject.
    """
    if subject_index is None:
        raise BrainhiveError(
            f"a {kind} model decodes only the people that it was trained on",
            "train a model on this person, or fine-tune one (mode=finetune)",
        )
    if len(maps) == 1:
        return maps[0](signal)

    # shapes in an exported model cannot depend on values, so apply all maps
    if torch.compiler.is_compiling():
        outputs = [apply(signal) for apply in maps]
        by_subject = torch.stack(outputs)  # [subjects, B, H]
        return by_subject[subject_index, torch.arange(signal.shape[0])]

    # apply each map to the rows of its subject at once, then restore their order
    order = subject_index.argsort(stable=True)
    counts = subject_index.bincount(minlength=len(maps)).tolist()
    groups = signal[order].split(counts)
    outputs = []
    for apply, group in zip(maps, groups, strict=True):
        if len(group):
            outputs.append(apply(group))
    return torch.cat(outputs)[order.argsort()]


def refuse_sensors(kind: str, spec: SignalSpec) -> None:
    """Raise an error if signals are not voxels of one volume."""
    # voxels have no names
    if spec.names or spec.samples != 1:
        raise BrainhiveError(
            f"the backbone {kind} takes voxels, not signals of {spec.samples} samples",
            "another backbone",
        )


def find_map_size(heads: Heads, latent: str, scale: int) -> tuple[int, int]:
    """Find the size of the feature maps from which a decoder makes a latent.

    Args:
        heads: Heads, with the latent [C, H, W], and `maps` [S, D] if trained.
        latent: Name of the latent's head.
        scale: Factor by which the decoder enlarges.

    Returns:
        Height and width.

    Raises:
        BrainhiveError: if the decoder cannot make a latent of that size, or `maps` has
            another number of positions.
    """
    shape = heads[latent].shape
    if len(shape) != 3 or shape[1] % scale or shape[2] % scale:
        raise BrainhiveError(
            f"the head {latent} is {list(shape)}, the decoder makes [C, H, W] of "
            f"multiples of {scale}",
            "the latent of an autoencoder at another size, or another number of "
            "decoder channels",
        )
    height, width = shape[1] // scale, shape[2] // scale
    n_positions = height * width
    if MAPS in heads and heads[MAPS].shape[:-1] != (n_positions,):
        raise BrainhiveError(
            f"the head {MAPS} is {list(heads[MAPS].shape)}, the decoder starts "
            f"from {height}×{width} maps",
            f"maps of [{n_positions}, D], or another number of decoder channels",
        )
    return height, width


def make_upsampler(
    features: int,
    latents: int,
    channels: tuple[int, ...],
    depth: int = 1,
    groups: int = 32,
) -> Any:
    """Make diffusers' decoder, without attention in its blocks.

    All blocks but the last double height and width.

    Args:
        features: Channels of the feature maps.
        latents: Channels of the latent.
        channels: Channels of the blocks, from the output to the input.
        depth: Layers per block.
        groups: Groups of the normalisations.
    """
    from diffusers.models.autoencoders.vae import Decoder

    block_types = ("UpDecoderBlock2D",) * len(channels)
    return Decoder(features, latents, block_types, channels, depth, groups)


def make_maps_projector(n_maps: int, widths: tuple[int, int, int]) -> nn.Sequential:
    """Make 1 × 1 convolutions from feature maps [B, F, h, w] to maps [B, D, h, w].

    Args:
        n_maps: Number F of feature maps.
        widths: Channels after each of the three convolutions, the last of them D.
    """
    width_1, width_2, width_3 = widths
    # a single group normalises over all channels and positions
    return nn.Sequential(
        nn.Conv2d(n_maps, width_1, 1, bias=False),
        nn.GroupNorm(1, width_1),
        nn.ReLU(),
        nn.Conv2d(width_1, width_2, 1, bias=False),
        nn.GroupNorm(1, width_2),
        nn.ReLU(),
        nn.Conv2d(width_2, width_3, 1),
    )
