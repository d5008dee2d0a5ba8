"""Layers that several brain models share."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.blocks import Dropout
from brainhive_cli.models.heads import Heads
from brainhive_cli.models.signal_spec import SignalSpec, check_signal

MAPS = "maps"
"""The head of feature maps from which a decoder makes a latent."""


class BrainEncoder(nn.Sequential):
    """Layers by name, from signals [B, C, T] to tokens [B, D], that are the same for
    every subject.
    """

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__(OrderedDict(layers))

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] as tokens [B, D]; the subject does not matter."""
        return super().forward(signal)


class Residual(nn.Module):
    """x + fn(x)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, D] to [B, D]."""
        return x + self.fn(x)


def projection_head(features: int, dim: int, dropout: float) -> nn.Sequential:
    """Map features [B, F] to tokens [B, D]: Linear, x + Dropout(Linear(GELU(x))),
    LayerNorm.

    Source: NICE (arXiv 2308.13234), as the BrainHiVE repository has it for all its
    convolutional encoders.
    """
    return nn.Sequential(
        nn.Linear(features, dim),
        Residual(nn.Sequential(nn.GELU(), nn.Linear(dim, dim), nn.Dropout(dropout))),
        nn.LayerNorm(dim),
    )


def dense_layers(
    width: int, hidden: int, activation: nn.Module, dropout: float, bias: bool
) -> list[nn.Module]:
    """Map [B, width] to [B, hidden]: linear, LayerNorm, activation, dropout, as
    MindEye1 and HAVIR do.
    """
    return [
        nn.Linear(width, hidden, bias),
        nn.LayerNorm(hidden),
        activation,
        Dropout(dropout),
    ]


class BySubject(nn.ModuleDict):
    """A map of voxels for each subject, by the subject's number; a new subject learns
    its own alone.

    Args:
        kind: The backbone's, for errors.
        spec: Its subjects and their widths.
        maps: [B, V] to [B, H], in the order of the subjects.
    """

    def __init__(self, kind: str, spec: SignalSpec, maps: Iterable[nn.Module]) -> None:
        # by number, so that weights name their subject whatever the order
        super().__init__(dict(zip(map(str, spec.subjects), maps, strict=True)))
        self.kind, self.widths = kind, dict(zip(self, spec.widths, strict=True))

    def forward(self, signal: Tensor, subject_index: Tensor | None) -> Tensor:
        """Map voxels [B, V, 1] of subjects [B] to [B, H], each by the map of its
        subject.

        Raises:
            BrainhiveError: for a subject without one, or one of other voxels.
        """
        maps = [partial(self._map, subject) for subject in self]
        return map_by_subject(self.kind, signal, subject_index, maps)

    def _map(self, subject: str, signal: Tensor) -> Tensor:
        check_signal(signal, self.widths[subject], 1)
        return self[subject](signal[..., 0])


def map_by_subject(
    kind: str,
    signal: Tensor,
    subject_index: Tensor | None,
    maps: Sequence[Callable[[Tensor], Tensor]],
) -> Tensor:
    """Map signals [B, ...] of subjects [B] to [B, H], each by the map of its subject.

    Raises:
        BrainhiveError: for a subject without a map.
    """
    if subject_index is None:
        raise BrainhiveError(
            f"the backbone {kind} knows the subjects it was fitted on only",
            "fine-tune the model to the other subject first (mode=finetune), or "
            "fit one to this subject",
        )
    # nothing to sort where there is one map
    if len(maps) == 1:
        return maps[0](signal)
    # an exported model has no sizes that depend on values: all maps, then the subject's
    if torch.compiler.is_compiling():
        mapped = torch.stack([apply(signal) for apply in maps])  # [S, B, H]
        return mapped[subject_index, torch.arange(signal.shape[0])]
    # sort rows by subject, so that each map is one matrix product
    order = subject_index.argsort(stable=True)
    counts = subject_index.bincount(minlength=len(maps)).tolist()
    groups = zip(maps, signal[order].split(counts), strict=True)
    # back in the order of the batch
    return torch.cat([apply(rows) for apply, rows in groups if len(rows)])[
        order.argsort()
    ]


def refuse_sensors(kind: str, spec: SignalSpec) -> None:
    """Refuse signals that are no voxels of one volume."""
    # voxels have neither sensor names nor a time axis
    if spec.names or spec.samples != 1:
        raise BrainhiveError(
            f"the backbone {kind} takes voxels, not signals of {spec.samples} samples",
            "another backbone",
        )


def map_size(heads: Heads, latent: str, scale: int) -> tuple[int, int]:
    """Return height and width of the feature maps that a decoder upsamples to the head
    of a latent.

    Args:
        heads: That head [C, H, W], and perhaps `maps` [S, D].
        latent: Its name.
        scale: How many times the decoder enlarges.

    Raises:
        BrainhiveError: if the decoder cannot make a latent of that size, or as many
            maps.
    """
    # the latent must be a multiple of what the decoder enlarges by
    shape = heads[latent].shape
    if len(shape) != 3 or shape[1] % scale or shape[2] % scale:
        raise BrainhiveError(
            f"the head {latent} is {list(shape)}, the decoder makes [C, H, W] of "
            f"multiples of {scale}",
            "the latent of an autoencoder at another size, or another number of "
            "decoder channels",
        )
    # as many maps as the decoder starts from
    size = shape[1] // scale, shape[2] // scale
    if MAPS in heads and heads[MAPS].shape[:-1] != (size[0] * size[1],):
        raise BrainhiveError(
            f"the head {MAPS} is {list(heads[MAPS].shape)}, the decoder starts "
            f"from {size[0]}×{size[1]} maps",
            f"maps of [{size[0] * size[1]}, D], or another number of decoder channels",
        )
    return size


def upsampler(
    features: int,
    latents: int,
    channels: tuple[int, ...],
    depth: int = 1,
    groups: int = 32,
) -> Any:
    """Make diffusers' decoder of feature maps to a latent, without attention in its
    blocks.
    """
    from diffusers.models.autoencoders.vae import Decoder

    # every block but the last doubles height and width
    kinds = ("UpDecoderBlock2D",) * len(channels)
    return Decoder(features, latents, kinds, channels, depth, groups)


def maps_projector(features: int, first: int, second: int, last: int) -> nn.Sequential:
    """Make the layers from feature maps [B, F, h, w] to maps of other channels, [B, D,
    h, w].
    """
    # 1 × 1 convolutions, normalised over all channels and positions
    return nn.Sequential(
        nn.Conv2d(features, first, 1, bias=False),
        nn.GroupNorm(1, first),
        nn.ReLU(),
        nn.Conv2d(first, second, 1, bias=False),
        nn.GroupNorm(1, second),
        nn.ReLU(),
        nn.Conv2d(second, last, 1),
    )
