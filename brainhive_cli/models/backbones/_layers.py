"""Layers that several brain models share."""

from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.models.blocks import Dropout
from brainhive_cli.models.signal_spec import SignalSpec, check_signal


class BrainEncoder(nn.Sequential):
    """Layers by name, from signals [B, C, T] to tokens [B, D], that are the same for every subject."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__(OrderedDict(layers))

    def forward(self, signal: Tensor, subject_index: Tensor | None = None) -> Tensor:
        """Encode signals [B, C, T] as tokens [B, D]; the subject does not matter."""
        tokens: Tensor = super().forward(signal)
        return tokens


class Residual(nn.Module):
    """x + fn(x)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, D] to [B, D]."""
        return x + self.fn(x)


def projection_head(features: int, dim: int, dropout: float) -> nn.Sequential:
    """Map features [B, F] to tokens [B, D]: Linear, x + Dropout(Linear(GELU(x))), LayerNorm.

    Source: NICE (arXiv 2308.13234), as the BrainHiVE repository has it for all its convolutional encoders.
    """
    return nn.Sequential(
        nn.Linear(features, dim),
        Residual(nn.Sequential(nn.GELU(), nn.Linear(dim, dim), nn.Dropout(dropout))),
        nn.LayerNorm(dim),
    )


def convolution_encoder(
    channels: int, layers: nn.Sequential, features: int, dim: int, dropout: float
) -> BrainEncoder:
    """Make a plain convolutional brain encoder; the parameter names are upstream's.

    Args:
        channels: C.
        layers: What maps the signal as a picture [B, 1, C, T] to [B, F, 1, T'].
        features: F · T'.
        dim: D, width of the token.
        dropout: Probability of dropping a unit of the head.
    """
    head = nn.Sequential(nn.Flatten(), *projection_head(features, dim, dropout))
    return BrainEncoder(picture=nn.Unflatten(1, (1, channels)), backbone=layers, project=head)


class PatchSequence(nn.Module):
    """Features [B, F, 1, T'] as a sequence of patches [B, T', F]."""

    def forward(self, features: Tensor) -> Tensor:
        """Put the patches' axis before their width."""
        return features.squeeze(2).transpose(1, 2)


def dense_layers(
    width: int, hidden: int, activation: nn.Module, dropout: float, bias: bool
) -> list[nn.Module]:
    """Map [B, width] to [B, hidden]: linear, LayerNorm, activation, dropout, as MindEye1 and HAVIR do."""
    return [nn.Linear(width, hidden, bias), nn.LayerNorm(hidden), activation, Dropout(dropout)]


class BySubject(nn.ModuleDict):
    """A map of voxels for each subject, by the subject's number; a new subject learns its own alone.

    Args:
        kind: The backbone's, for errors.
        spec: Its subjects and their widths.
        maps: [B, V] to [B, H], in the order of the subjects.
    """

    def __init__(self, kind: str, spec: SignalSpec, maps: Iterable[nn.Module]) -> None:
        super().__init__(dict(zip(map(str, spec.subjects), maps, strict=True)))
        self.kind, self.widths = kind, spec.widths

    def forward(self, signal: Tensor, subject_index: Tensor | None) -> Tensor:
        """Map voxels [B, V, 1] of subjects [B] to [B, H], each by the map of its subject.

        Raises:
            BrainhiveError: for a subject without one, or one of other voxels.
        """
        if subject_index is None:
            raise BrainhiveError(
                f"the backbone {self.kind} has input layers of subject {', '.join(self)} alone",
                "fine-tune the model to the other subject first: mode=finetune",
            )
        if len(self) == 1:
            return self._map(0, signal)
        order = subject_index.argsort(stable=True)
        counts = subject_index.bincount(minlength=len(self)).tolist()
        mapped = [
            self._map(place, rows) for place, rows in enumerate(signal[order].split(counts)) if len(rows)
        ]
        return torch.cat(mapped)[order.argsort()]

    def _map(self, place: int, signal: Tensor) -> Tensor:
        check_signal(signal, self.widths[place], 1)
        mapped: Tensor = [*self.values()][place](signal[..., 0])
        return mapped


def refuse_sensors(kind: str, spec: SignalSpec) -> None:
    """Refuse signals that are no voxels of one volume."""
    if spec.names or spec.samples != 1:
        raise BrainhiveError(
            f"the backbone {kind} takes voxels, not signals of {spec.samples} samples", "another backbone"
        )
