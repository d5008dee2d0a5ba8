"""Loss of a trained model when a part of the signal, or of the targets, is replaced by its mean."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.selection import inside, region_masks, window_starts
from brainhive_cli.evaluation.explanation.profiles import BAND, LEVEL, REGION, SENSOR, Axis, Profile
from brainhive_cli.evaluation.explanation.reader import Reader
from brainhive_cli.evaluation.explanation.recipe import Window

LOST = "margin_lost"
"""Name of the metric: how much of the margin, the cosine similarity with the seen picture less its mean over
the candidates, is lost."""
ORDER = 4
"""Order of the Butterworth filter that runs forth and back over the signal."""


def lost(reader: Reader, axis: Axis, margins: Iterator[NDArray[np.float64]]) -> Profile:
    """Compare margins [N, M] at each place with those of the whole signal."""
    return Profile.of(LOST, axis, (reader.whole - without for without in margins), reader.labels)


def lost_without(reader: Reader, axis: Axis, signals: Iterator[Tensor]) -> Profile:
    """Measure what signals [N, C, T], changed at each place, lose."""
    return lost(reader, axis, (reader.margins(signal) for signal in signals))


def window_masks(times_ms: NDArray[np.float64], window: Window) -> tuple[Axis, list[Tensor]]:
    """List sliding windows, and their samples [T] as masks.

    Raises:
        BrainhiveError: if there is one sample.
        RecipeError: if the window is longer than the signal.
    """
    if len(times_ms) < 2:
        raise BrainhiveError("the signals have one sample", "fMRI has regions instead of windows")
    starts = window_starts(times_ms, window.width_ms, window.step_ms, "window")
    masks = [torch.from_numpy(inside(times_ms, start, window.width_ms)) for start in starts]
    read = [(start, mask) for start, mask in zip(starts, masks, strict=True) if mask.any()]
    spans = np.array([[start, start + window.width_ms] for start, _ in read])
    return Axis.of_windows(spans), [mask for _, mask in read]


def read_windows(reader: Reader, window: Window) -> dict[str, Profile]:
    """Rank with all of the signal but a window replaced: what the model uses of each window alone."""
    axis, masks = window_masks(reader.times_ms, window)
    ranks = (reader.ranks(torch.where(mask, reader.signal, reader.baseline)) for mask in masks)
    return Profile.of_ranks(axis, ranks, reader.labels)


def occlude_windows(reader: Reader, window: Window) -> Profile:
    """Replace one window at a time."""
    axis, masks = window_masks(reader.times_ms, window)
    return lost_without(reader, axis, (torch.where(mask, reader.baseline, reader.signal) for mask in masks))


def occlude_columns(reader: Reader) -> Profile:
    """Replace one column of the last feature map of a convolutional network by that of the mean signal.

    Raises:
        BrainhiveError: if the network has no such map.
    """
    if len(reader.times_ms) < 2:
        raise BrainhiveError("the signals have one sample", "fMRI has regions instead of columns")
    module = reader.member.model.backbone
    columns = Columns.find(module, reader.predict, *reader.signal.shape[1:])
    with torch.inference_mode():
        rest = columns.features(reader.predict, reader.baseline[None])

    def changed() -> Iterator[NDArray[np.float64]]:
        for column in range(len(columns.spans)):
            with columns.replaced(column, rest):
                yield reader.margins(reader.signal)

    step_ms = (reader.times_ms[-1] - reader.times_ms[0]) / (len(reader.times_ms) - 1)
    spans = reader.times_ms[0] + step_ms * np.array(columns.spans, np.float64)
    reader.whole  # noqa: B018  (before a column is replaced)
    return lost(reader, Axis.of_windows(spans), changed())


def occlude_sensors(reader: Reader) -> Profile:
    """Replace one sensor at a time, in sensor space.

    Raises:
        BrainhiveError: if the signals are of voxels, or whitened in a way that is not known.
    """
    if not reader.selection.channels:
        raise BrainhiveError("the signals are of voxels", "fMRI has regions instead of sensors")
    space = reader.space
    return lost_without(reader, Axis(SENSOR, space.names), map(space.without, range(space.sensors)))


def occlude_bands(reader: Reader, bands: Mapping[str, tuple[float, float]]) -> Profile:
    """Filter one frequency band at a time out of what deviates from the mean signal.

    Raises:
        BrainhiveError: if the signals have no rate, or are too short or too slow for every band.
    """
    rate_hz = reader.selection.recording.rate_hz
    if rate_hz is None:
        raise BrainhiveError("the signals have one sample", "fMRI has no frequency bands")
    away = reader.signal - reader.baseline
    most_hz = rate_hz / 2 - 1  # what the sampling rate holds
    usable = {
        name: (max(low, 0.1), min(high, most_hz)) for name, (low, high) in bands.items() if low < most_hz
    }
    if not usable or away.shape[-1] <= 3 * (2 * ORDER + 1):
        raise BrainhiveError(
            f"{away.shape[-1]} samples at {rate_hz:g} Hz hold none of the bands", "name others: bands"
        )
    names = [f"{name} ({low:g}–{high:g} Hz)" for name, (low, high) in usable.items()]
    signals = (reader.signal - _band_pass(away, *band, rate_hz) for band in usable.values())
    return lost_without(reader, Axis(BAND, names), signals)


def _band_pass(signal: Tensor, low_hz: float, high_hz: float, rate_hz: float) -> Tensor:
    """Keep a band of signals [N, C, T], without a delay."""
    from scipy.signal import butter, sosfiltfilt

    sections = butter(ORDER, (low_hz, high_hz), "bandpass", fs=rate_hz, output="sos")
    padding = min(signal.shape[-1] - 1, int(3 * rate_hz / low_hz))
    filtered = sosfiltfilt(sections, signal.numpy(), padtype="odd", padlen=padding)
    return torch.from_numpy(np.ascontiguousarray(filtered, np.float32))


def occlude_regions(reader: Reader) -> Profile:
    """Replace the voxels of one region at a time.

    Raises:
        BrainhiveError: if the signals are of sensors, or the voxels belong to no region.
    """
    masks = region_masks(regions_of(reader), reader.signal.shape[1])
    signals = (torch.where(torch.from_numpy(mask), reader.baseline, reader.signal) for mask in masks.values())
    return lost_without(reader, Axis(REGION, [*masks]), signals)


def regions_of(reader: Reader) -> dict[str, tuple[int, ...]]:
    """List the regions that have voxels, by name, as places among those that the model reads.

    Raises:
        BrainhiveError: if there are none.
    """
    if reader.selection.channels:
        raise BrainhiveError("the signals are of sensors", "EEG and MEG have sensors instead of regions")
    regions = {name: places for name, places in reader.selection.regions.items() if places}
    if not regions:
        raise BrainhiveError("the voxels belong to no region", "prepare the signals with regions")
    return regions


def drop_levels(reader: Reader) -> Profile:
    """Replace one encoder's embeddings at a time, for all pictures, by their mean.

    Raises:
        BrainhiveError: if the target is of one encoder.
    """
    keys = sorted(reader.member.model.layout.compared_keys)
    if len(keys) < 2:
        raise BrainhiveError(
            f"the target is of one encoder, {keys[0]}", "levels=NAME compares the signals with others"
        )
    tokens = reader.member.encode(reader.subject, reader.signal)
    galleries = (reader.member.images(reader.split, reader.gallery_rows, without=key) for key in keys)
    return lost(reader, Axis(LEVEL, keys), (reader.margins_of(tokens, gallery) for gallery in galleries))


PROBES = 4
"""Random signals whose gradients say what a column sees: an activation may be flat for one of them."""
Predict = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Columns:
    """The last feature map of a network whose columns each see a part of the window.

    Attributes:
        layer: The layer that gives it, [..., columns].
        spans: First and last sample that each column sees.
    """

    layer: nn.Module
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def find(cls, module: nn.Module, predict: Predict, channels: int, samples: int) -> Self:
        """Find it by the gradients of random signals, whatever the network is made of.

        Args:
            module: The network.
            predict: Runs it on signals [B, C, T].
            channels: C.
            samples: T.

        Raises:
            BrainhiveError: if every layer sees all samples at once, as attention and linear layers do.
        """
        probe = torch.randn(PROBES, channels, samples, generator=torch.Generator().manual_seed(0))
        probe = probe.to(next(module.parameters()).device).requires_grad_()
        outputs: dict[nn.Module, Tensor] = {}

        def keep(layer: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim > 2 and output.shape[-1] > 1:
                outputs.pop(layer, None)  # one that is used again counts where it was used last
                outputs[layer] = output

        with ExitStack() as hooks, torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            for layer in module.modules():
                if not [*layer.children()]:
                    hooks.enter_context(layer.register_forward_hook(keep))
            predict(probe)
        for layer, output in reversed(outputs.items()):
            columns = output.shape[-1]
            ends = [_span(output, probe, column) for column in (0, columns - 1)]
            if _moves(ends) and _moves(spans := [_span(output, probe, column) for column in range(columns)]):
                return cls(layer, tuple(span for span in spans if span))
        raise BrainhiveError(
            f"{type(module).__name__} has no layer whose columns see a part of the window each",
            "the time course by windows serves every brain encoder",
        )

    def replaced(self, column: int, features: Tensor) -> RemovableHandle:
        """Let a column of the feature map be that of other signals, while a block runs.

        Args:
            column: Which.
            features: Feature maps [B, ..., columns] of the other signals.
        """

        def swap(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            changed = output.clone()
            changed[..., column] = features[..., column]
            return changed

        return self.layer.register_forward_hook(swap)

    def features(self, predict: Predict, signal: Tensor) -> Tensor:
        """Return the feature maps [B, ..., columns] of signals [B, C, T]."""
        outputs: list[Tensor] = []
        with self.layer.register_forward_hook(lambda _, __, output: outputs.append(output.detach())):
            predict(signal)
        return outputs[-1]


def _span(output: Tensor, probe: Tensor, column: int) -> tuple[int, int] | None:
    """Return the first and the last sample that a column depends on; None where it depends on none."""
    if not output.requires_grad:
        return None
    (gradient,) = torch.autograd.grad(
        output[..., column].square().sum(), probe, retain_graph=True, allow_unused=True
    )
    if gradient is None:
        return None
    seen = (gradient != 0).flatten(0, 1).any(0).nonzero()  # [T]
    return (int(seen[0]), int(seen[-1])) if len(seen) else None


def _moves(spans: Sequence[tuple[int, int] | None]) -> bool:
    """Whether all columns see samples, later ones later: a map over channels or features does not."""
    centres = [sum(span) for span in spans if span]
    return len(centres) == len(spans) and all(one < other for one, other in pairwise(centres))
