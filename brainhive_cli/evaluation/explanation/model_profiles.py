"""Analyses of one trained model and one subject."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.selection import (
    list_window_starts,
    make_region_masks,
    mark_window,
)
from brainhive_cli.evaluation.explanation.job import Reader, compute_margins
from brainhive_cli.evaluation.explanation.profiles import (
    BAND,
    LEVEL,
    REGION,
    SENSOR,
    Axis,
    Profile,
    Profiles,
    SubjectProfiles,
)
from brainhive_cli.evaluation.explanation.recipe import Recipe, Window
from brainhive_cli.evaluation.explanation.sensor_space import SensorSpace
from brainhive_cli.measurement.linear_maps import FeatureScaler, Products

LOST = "margin_lost"
"""Name of the metric: how much of the margin, the cosine similarity with the seen
picture less its mean over the candidates, is lost.
"""
ORDER = 4
"""Order of the Butterworth filter that runs forth and back over the signal."""
MIN_HZ = 0.1
"""Lowest corner frequency of a band: a Butterworth band-pass has none at 0 Hz."""
LACKING = {
    "sensors": {"regions"},
    "voxels": {"windows", "occlusion", "sensors", "bands"},
}
"""Analyses of times and sensors, which voxels lack, and of regions, which sensors
lack.
"""
MARGIN = "margin"
"""Name of the array of `attribute_margin`."""
PATHS, PATHS_AT_ONCE = 32, 512
"""Training signals that each tested one is compared with there, and signals at once,
whose activations a gradient keeps in memory.
"""
SIGNALS_AT_ONCE = 4096
"""Training signals that are multiplied at once, to bound memory."""


def explain_model(reader: Reader, spec: Recipe) -> SubjectProfiles:
    """Run the chosen analyses.

    Args:
        reader: The model with the subject's signals.
        spec: What is measured.
    """
    measured = SubjectProfiles()
    kind = "sensors" if reader.trials.channels else "voxels"
    chosen = {
        name: analyse for name, analyse in ANALYSES.items() if name in spec.analyses
    }
    with console.progress("running analyses", len(chosen)) as bar:
        for name, analyse in chosen.items():
            # an analysis that the signals cannot have is listed with the reason
            if name in LACKING[kind]:
                measured.missing[name] = f"the signals are of {kind}"
            else:
                measured.attempt(name, partial(analyse, reader, spec))
            bar.advance()
    if kind == "voxels":
        measured.attempt(MARGIN, lambda: attribute_margin(reader, spec, measured))
    return measured


def list_window_masks(times_ms: Float64, window: Window) -> tuple[Axis, list[Tensor]]:
    """List sliding windows, and their samples [T] as masks.

    Raises:
        RecipeError: if the window is longer than the signal.
    """
    # a window may lie between two samples
    starts = list_window_starts(times_ms, window.width_ms, window.step_ms)
    width_ms = window.width_ms
    masks = {
        start: mask
        for start in starts
        if (mask := mark_window(times_ms, start, width_ms)).any()
    }
    axis = Axis.from_windows(np.array([[start, start + width_ms] for start in masks]))
    return axis, [*map(torch.from_numpy, masks.values())]


def list_parts(reader: Reader, window: Window) -> tuple[Axis, list[Tensor]]:
    """List the windows of the signals of sensors as masks [T], or the regions of voxels
    as masks [V, 1].

    Raises:
        BrainhiveError: if voxels belong to no region.
        RecipeError: if the window is longer than the signal.
    """
    if reader.trials.channels:
        return list_window_masks(reader.times_ms, window)
    regions = make_region_masks(reader.list_regions(), reader.signal.shape[1])
    return Axis(REGION, [*regions]), [*map(torch.from_numpy, regions.values())]


def read_windows(reader: Reader, spec: Recipe) -> dict[str, Profile]:
    """Rank with all of the signal but a window replaced: what the model uses of each
    window alone.
    """
    axis, masks = list_parts(reader, spec.window)
    # [N, C, T] each
    signals = (torch.where(mask, reader.signal, reader.baseline) for mask in masks)
    return reader.rank(
        axis, (reader.member.encode(reader.trials, signal) for signal in signals)
    )


def measure_loss(reader: Reader, axis: Axis, signals: Iterable[Tensor]) -> Profile:
    """Measure the margin that is lost with each of some changed signals, [N, C, T] at
    each position.
    """
    # [N, M] each
    lost = (reader.margins - reader.measure_margins(signal) for signal in signals)
    return Profile.from_matrices(LOST, axis, lost, reader.labels)


def occlude_parts(reader: Reader, spec: Recipe) -> Profile:
    """Replace one window, or one region of voxels, at a time by its mean training
    signal.
    """
    axis, masks = list_parts(reader, spec.window)
    signals = (torch.where(mask, reader.baseline, reader.signal) for mask in masks)
    return measure_loss(reader, axis, signals)


def occlude_sensors(reader: Reader, _: Recipe) -> Profile:
    """Replace one sensor at a time by its mean training signal, in sensor space.

    Raises:
        BrainhiveError: if channels are unknown mixtures of sensors.
    """
    if reader.mixture:
        raise reader.mixture
    mean = reader.baseline.numpy()
    space = SensorSpace.from_trials(
        reader.trials, reader.train_trials, reader.signal.numpy(), mean
    )
    signals = map(space.remove_sensor, range(len(reader.sensors)))
    return measure_loss(reader, Axis(SENSOR, reader.sensors), signals)


def filter_bands(reader: Reader, spec: Recipe) -> Profile:
    """Filter one frequency band at a time, without a delay, out of what deviates from
    the mean signal.

    Raises:
        BrainhiveError: if the signals hold none of the bands.
    """
    from scipy.signal import butter, sosfiltfilt

    # bands that the sampling rate and the length of the signal hold
    # [N, C, T]
    deviation = reader.signal - reader.baseline
    rate_hz = reader.trials.rate_hz or 0
    samples = deviation.shape[-1]
    max_hz = rate_hz / 2 - 1
    usable = {
        name: (max(low, MIN_HZ), min(high, max_hz))
        for name, (low, high) in spec.bands.items()
        if low < max_hz
    }
    if not usable or samples <= 3 * (2 * ORDER + 1):
        raise BrainhiveError(
            f"{samples} samples at {rate_hz:g} Hz hold none of the bands",
            "name others: bands",
        )

    # the signal less each band; padding lasts three periods of the lowest frequency
    def subtract_bands() -> Iterator[Tensor]:
        for low_hz, high_hz in usable.values():
            sections = butter(
                ORDER, (low_hz, high_hz), "bandpass", fs=rate_hz, output="sos"
            )
            padding = min(samples - 1, int(3 * rate_hz / low_hz))
            filtered = sosfiltfilt(
                sections, deviation.numpy(), padtype="odd", padlen=padding
            )
            yield reader.signal - torch.from_numpy(
                np.ascontiguousarray(filtered, np.float32)
            )

    names = [f"{name} ({low:g}–{high:g} Hz)" for name, (low, high) in usable.items()]
    return measure_loss(reader, Axis(BAND, names), subtract_bands())


def drop_levels(reader: Reader, _: Recipe) -> Profile:
    """Replace one encoder's embeddings at a time, for all pictures, by their mean.

    Raises:
        BrainhiveError: if the target is of one encoder.
    """
    # one encoder cannot be left out: nothing would be left to compare with
    keys = sorted(reader.member.module.layout.compared_keys)
    if len(keys) < 2:
        raise BrainhiveError(
            f"the target is of one encoder, {keys[0]}",
            "levels=NAME compares the signals with others",
        )

    # signals stay as they are, only the candidates change
    tokens = reader.member.encode(reader.trials)
    galleries = (
        reader.member.images(reader.split, reader.gallery_rows, without=key)
        for key in keys
    )
    # [N, M] each
    lost = (reader.margins - compute_margins(tokens, gallery) for gallery in galleries)
    return Profile.from_matrices(LOST, Axis(LEVEL, keys), lost, reader.labels)


def decode_parts(reader: Reader, spec: Recipe) -> dict[str, Profile]:
    """Train a ridge on each window, or each region of voxels, and rank the pictures by
    its predictions.

    Signals are standardised by the training ones. The targets are those that the model
    learned from.

    Raises:
        BrainhiveError: if voxels belong to no region.
    """
    # target of each training signal; signals of one picture share it
    learned = torch.from_numpy(reader.train_trials.averages)
    rows, indices = np.unique(reader.train_trials.stimulus, return_inverse=True)
    targets = reader.member.images("train", rows)[torch.from_numpy(indices)]  # [n, D]

    # ranks by the predictions of each ridge, which reads a part [C, T] of the signals
    axis, masks = list_parts(reader, spec.window)
    parts = [mask.expand(learned.shape[1:]) for mask in masks]
    return reader.rank(
        axis,
        (decode(learned[:, part], targets, reader.signal[:, part]) for part in parts),
    )


def attribute_margin(
    reader: Reader, spec: Recipe, collected: SubjectProfiles
) -> dict[str, Profile]:
    """Collect what each voxel [V] adds to the margin of the seen picture, averaged over
    pictures: the values of all voxels sum to the margin less that of training signals.

    The gradient of the margin, on the way from a training signal to the tested one,
    times the difference of these. Compared with the mean training signal instead, the
    voxels of a model that ignores the signal's length (cosines, LayerNorm) sum to 0.

    Raises:
        BrainhiveError: if signals are mixtures of voxels, or the model has no gradient.

    Source: Erion et al. 2021 (expected gradients).
    """
    normaliser = reader.trials.normaliser
    if normaliser is not None and normaliser.matrix.shape[1] > 1:
        raise BrainhiveError("whitening mixes voxels", "signal.normalise=channel")

    # from the mean of the candidates' unit vectors to that of the seen picture [N, D]
    candidates = F.normalize(reader.gallery.clone())
    seen = torch.from_numpy(reader.labels.seen_indices).to(candidates.device)
    directions = candidates[seen] - candidates.mean(0)

    # from another training signal to each tested one, to another share of the way
    learned = reader.train_trials.averages
    random = np.random.default_rng(spec.seed)
    module = reader.member.module
    total = torch.zeros(reader.signal.shape[1]).double()
    for share in (np.arange(PATHS) + 0.5) / PATHS:
        for rows in torch.arange(len(reader.signal)).split(PATHS_AT_ONCE):
            drawn = random.integers(len(learned), size=len(rows))
            signal = reader.signal[rows]
            other = torch.from_numpy(learned[drawn])
            point = torch.lerp(other, signal, float(share)).requires_grad_()
            index = reader.member.index(reader.trials.subject, len(rows))
            tokens = module.encode_signal(point.to(module.device), index)
            margin = (F.normalize(tokens.to(directions)) * directions[rows]).sum()
            if not margin.requires_grad:
                raise BrainhiveError(
                    "the model has no gradient of its signals", "compute it in PyTorch"
                )
            (gradient,) = torch.autograd.grad(margin, point)
            total += (gradient * (signal - other)).sum((0, 2))
    collected.arrays[MARGIN] = total.numpy() / (PATHS * len(reader.signal))
    return {}


ANALYSES: Mapping[str, Callable[[Reader, Recipe], Profiles]] = {
    "windows": read_windows,
    "occlusion": occlude_parts,
    "sensors": occlude_sensors,
    "bands": filter_bands,
    "regions": occlude_parts,
    "levels": drop_levels,
    "trained": decode_parts,
}
"""The analyses of a model by their names in the recipe, in the order of reports."""


def decode(learned: Tensor, targets: Tensor, signal: Tensor) -> Tensor:
    """Predict the targets [N, D] of signals [N, ...] by a ridge from others [n, ...] to
    theirs [n, D].
    """
    train, test = (part.flatten(1).to(targets.device) for part in (learned, signal))
    # standardised by the training signals alone
    scale = FeatureScaler.fit(train)
    return Products.from_samples(scale(train), targets.split(SIGNALS_AT_ONCE)).predict(
        scale(test)
    )
