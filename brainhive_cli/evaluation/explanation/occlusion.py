"""Loss of a trained model when a part of the signal, or of the targets, is replaced by its mean."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.selection import inside, region_masks, window_starts
from brainhive_cli.evaluation.explanation.profiles import (
    BAND,
    LEVEL,
    REGION,
    SENSOR,
    TIME,
    Axis,
    Profile,
)
from brainhive_cli.evaluation.explanation.reader import Reader, margins_among
from brainhive_cli.evaluation.explanation.recipe import Explanation, Window
from brainhive_cli.measurement.ranks import ranks_of_all

LOST = "margin_lost"
"""Name of the metric: how much of the margin, the cosine similarity with the seen picture less its mean over
the candidates, is lost."""
ORDER = 4
"""Order of the Butterworth filter that runs forth and back over the signal."""
MIN_HZ = 0.1
"""Lowest corner frequency of a band: a Butterworth band-pass has none at 0 Hz."""


def window_masks(times_ms: Float64, window: Window) -> tuple[Axis, list[Tensor]]:
    """List sliding windows, and their samples [T] as masks.

    Raises:
        BrainhiveError: if there is one sample.
        RecipeError: if the window is longer than the signal.
    """
    if len(times_ms) < 2:
        raise BrainhiveError("the signals have one sample", "fMRI has regions instead of windows")
    starts = window_starts(times_ms, window.width_ms, window.step_ms, "window")
    masks = [torch.from_numpy(inside(times_ms, start, window.width_ms)) for start in starts]

    # a window may lie between two samples
    nonempty = [(start, mask) for start, mask in zip(starts, masks, strict=True) if mask.any()]
    spans = np.array([[start, start + window.width_ms] for start, _ in nonempty])
    return Axis.of_windows(spans), [mask for _, mask in nonempty]


def read_windows(reader: Reader, spec: Explanation) -> dict[str, Profile]:
    """Rank with all of the signal but a window replaced: what the model uses of each window alone."""
    axis, masks = window_masks(reader.times_ms, spec.window)
    signals = (torch.where(mask, reader.signal, reader.baseline) for mask in masks)  # [N, C, T] each
    tokens = (reader.member.encode(reader.subject, signal) for signal in signals)
    ranks = (ranks_of_all(part, reader.gallery, len(reader.gallery)) for part in tokens)  # [N, M] each
    return Profile.of_ranks(axis, ranks, reader.labels)


def occlude(axis_name: str, reader: Reader, spec: Explanation) -> Profile:
    """Measure the margin that is lost when one part of the signal at a time is replaced by its mean.

    Args:
        axis_name: Kind of the parts: `TIME` (windows), `SENSOR` (in sensor space), `BAND` (a frequency band
            filtered out of the deviation from the mean signal) or `REGION` (of voxels).
        reader: The model with the subject's signals.
        spec: Windows and bands.

    Raises:
        BrainhiveError: if the signals have no such parts: of voxels no sensors, of sensors no regions, of one
            sample neither windows nor bands, of unknown whitening no sensors.
        RecipeError: if a window is longer than the signal.
    """
    # the parts, and the signals without each of them
    signals: Iterator[Tensor]  # [N, C, T] each
    if axis_name == SENSOR:
        if not reader.trials.channels:
            raise BrainhiveError("the signals are of voxels", "fMRI has regions instead of sensors")
        space = reader.space
        axis, signals = Axis(SENSOR, space.names), map(space.without, range(space.deviation.shape[2]))
    elif axis_name == BAND:
        # one band at a time is filtered, without a delay, out of what deviates from the mean signal
        from scipy.signal import butter, sosfiltfilt

        rate_hz = reader.trials.rate_hz
        if rate_hz is None:
            raise BrainhiveError("the signals have one sample", "fMRI has no frequency bands")

        # bands that the sampling rate and the length of the signal hold
        deviation = reader.signal - reader.baseline  # [N, C, T]
        samples, max_hz = deviation.shape[-1], rate_hz / 2 - 1
        usable = {
            name: (max(low, MIN_HZ), min(high, max_hz))
            for name, (low, high) in spec.bands.items()
            if low < max_hz
        }
        if not usable or samples <= 3 * (2 * ORDER + 1):
            raise BrainhiveError(
                f"{samples} samples at {rate_hz:g} Hz hold none of the bands", "name others: bands"
            )

        # the signal less each band; padding lasts three periods of the lowest frequency
        def subtract_bands() -> Iterator[Tensor]:
            for low_hz, high_hz in usable.values():
                sections = butter(ORDER, (low_hz, high_hz), "bandpass", fs=rate_hz, output="sos")
                padding = min(samples - 1, int(3 * rate_hz / low_hz))
                filtered = sosfiltfilt(sections, deviation.numpy(), padtype="odd", padlen=padding)
                yield reader.signal - torch.from_numpy(np.ascontiguousarray(filtered, np.float32))

        names = [f"{name} ({low:g}–{high:g} Hz)" for name, (low, high) in usable.items()]
        axis, signals = Axis(BAND, names), subtract_bands()
    else:
        if axis_name == TIME:
            axis, masks = window_masks(reader.times_ms, spec.window)
        else:
            regions = region_masks(regions_of(reader), reader.signal.shape[1])
            axis, masks = Axis(REGION, [*regions]), [*map(torch.from_numpy, regions.values())]  # [C, 1] each
        signals = (torch.where(mask, reader.baseline, reader.signal) for mask in masks)

    # the margin of each item with each candidate
    lost = (reader.whole - reader.margins(signal) for signal in signals)  # [N, M] each
    return Profile.of(LOST, axis, lost, reader.labels)


def regions_of(reader: Reader) -> dict[str, tuple[int, ...]]:
    """List the regions that have voxels, by name, as rows among those that the model reads.

    Raises:
        BrainhiveError: if there are none.
    """
    if reader.trials.channels:
        raise BrainhiveError("the signals are of sensors", "EEG and MEG have sensors instead of regions")
    regions = {name: rows for name, rows in reader.trials.regions.items() if rows}
    if not regions:
        raise BrainhiveError("the voxels belong to no region", "prepare the signals with regions")
    return regions


def occlude_columns(reader: Reader, _: Explanation) -> Profile:
    """Replace one column of the last feature map of a convolutional network by that of the mean signal.

    Raises:
        BrainhiveError: if the network has no such map.
    """
    if len(reader.times_ms) < 2:
        raise BrainhiveError("the signals have one sample", "fMRI has regions instead of columns")
    columns = Columns.find(reader.member.module.backbone, reader.predict, *reader.signal.shape[1:])

    # the feature map of the mean signal; margins of the whole signal, before a column is replaced
    with torch.inference_mode():
        baseline = columns.features(reader.predict, reader.baseline[None])
    unchanged = reader.whole  # [N, M]

    # margins without each column
    def lost() -> Iterator[Float64]:
        for column in range(len(columns.spans)):
            with columns.replaced(column, baseline):
                yield unchanged - reader.margins(reader.signal)

    step_ms = (reader.times_ms[-1] - reader.times_ms[0]) / (len(reader.times_ms) - 1)
    spans = reader.times_ms[0] + step_ms * np.array(columns.spans, np.float64)
    return Profile.of(LOST, Axis.of_windows(spans), lost(), reader.labels)


def drop_levels(reader: Reader, _: Explanation) -> Profile:
    """Replace one encoder's embeddings at a time, for all pictures, by their mean.

    Raises:
        BrainhiveError: if the target is of one encoder.
    """
    keys = sorted(reader.member.module.layout.compared_keys)
    if len(keys) < 2:
        raise BrainhiveError(
            f"the target is of one encoder, {keys[0]}", "levels=NAME compares the signals with others"
        )
    tokens = reader.member.encode(reader.subject, reader.signal)
    galleries = (reader.member.images(reader.split, reader.gallery_rows, without=key) for key in keys)
    lost = (reader.whole - margins_among(tokens, gallery) for gallery in galleries)  # [N, M] each
    return Profile.of(LOST, Axis(LEVEL, keys), lost, reader.labels)


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
        """Find the map by the gradients of random signals, whatever the network is made of.

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

        # outputs of the innermost layers, in the order of their last use
        def record_output(layer: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim > 2 and output.shape[-1] > 1:
                outputs.pop(layer, None)  # a layer that is used again counts where it was used last
                outputs[layer] = output

        with ExitStack() as hooks, torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            for layer in module.modules():
                if not [*layer.children()]:
                    hooks.enter_context(layer.register_forward_hook(record_output))
            predict(probe)

        # the last layer all of whose columns see samples, later columns later ones: a map over channels or
        # features does not; the first and the last column are compared first, as most layers fail there
        for layer, output in reversed(outputs.items()):
            columns = output.shape[-1]
            for numbers in ((0, columns - 1), range(columns)):
                spans = [span for column in numbers if (span := _span(output, probe, column))]
                centres = [sum(span) for span in spans]
                if len(spans) < len(numbers) or any(one >= other for one, other in pairwise(centres)):
                    break
            else:
                return cls(layer, tuple(spans))
        raise BrainhiveError(
            f"{type(module).__name__} has no layer whose columns see a part of the window each",
            "the time course by windows serves every brain encoder",
        )

    def replaced(self, column: int, features: Tensor) -> RemovableHandle:
        """Let a column of the feature map be that of other signals, while a block runs.

        Args:
            column: Its index.
            features: Feature maps [B, ..., columns] of the other signals.
        """

        def swap(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            changed = output.clone()
            changed[..., column] = features[..., column]
            return changed

        return self.layer.register_forward_hook(swap)

    def features(self, predict: Predict, signal: Tensor) -> Tensor:
        """Compute the feature maps [B, ..., columns] of signals [B, C, T]."""
        outputs = []
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
