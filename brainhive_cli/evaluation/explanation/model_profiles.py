"""Analyses of a trained model with the signals of a subject."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import starmap

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brainhive_cli.core.base import Array, BrainhiveError, Float64, console
from brainhive_cli.data.signals import (
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
from brainhive_cli.evaluation.explanation.recipe import ANALYSES, Recipe, Window
from brainhive_cli.evaluation.explanation.sensor_space import SensorSpace
from brainhive_cli.measurement import FeatureScaler, Products

LOST_MARGIN = "margin_lost"
"""Metric: decrease of the margin, which is the cosine similarity with the seen picture
minus the mean over the candidates.
"""
FILTER_ORDER = 4
"""Order of the Butterworth filter, which runs forwards and backwards."""
MARGIN = "margin"
"""Name of the array of `attribute_margin`."""
SIGNALS_PER_GRADIENT = 512
"""Largest number of signals whose activations a gradient keeps in memory."""
SIGNALS_PER_PRODUCT = 4096
"""Largest number of training signals in a product, to limit memory."""


def explain_model(reader: Reader, recipe: Recipe) -> SubjectProfiles:
    """Run the analyses of the recipe on a model with the signals of a subject.

    Default analyses that do not apply are listed as excluded. An analysis that the user
    names is listed as missing in this case, which causes a warning.
    """
    subject_profiles = SubjectProfiles()
    kind = "sensors" if reader.trials.channels else "voxels"
    # Analyses that signals of sensors or voxels do not have, with the signals that have
    # them. Sensors have no regions, and voxels have no times.
    unsuitable_analyses = {
        "sensors": {"regions": "for fMRI"},
        "voxels": {
            "windows": "for EEG and MEG",
            "occlusion": "for EEG and MEG",
            "sensors": "for EEG and MEG",
            "bands": "for EEG and MEG",
        },
    }
    unsuitable = dict(unsuitable_analyses[kind])
    encoder_names = reader.model.module.layout.compared_keys
    if len(encoder_names) < 2:
        unsuitable["levels"] = "for targets of several encoders"
    is_default = recipe.analyses == list(ANALYSES)

    # Analyses of a model by name, in the order of reports.
    analysis_functions: Mapping[str, Callable[[Reader, Recipe], Profiles]] = {
        "windows": rank_single_windows,
        "occlusion": occlude_positions,
        "sensors": occlude_sensors,
        "bands": remove_bands,
        "regions": occlude_positions,
        "levels": remove_levels,
        "trained": train_ridges,
    }
    names = [name for name in analysis_functions if name in recipe.analyses]
    with console.progress("running analyses", len(names)) as bar:
        for name in names:
            if is_default and name in unsuitable:
                subject_profiles.excluded[name] = unsuitable[name]
            elif name in unsuitable_analyses[kind]:
                subject_profiles.missing[name] = f"the signals are of {kind}"
            else:
                analyse = partial(analysis_functions[name], reader, recipe)
                subject_profiles.attempt(name, analyse)
            bar.advance()
    if kind == "voxels":
        subject_profiles.attempt(
            MARGIN, lambda: attribute_margin(reader, recipe, subject_profiles)
        )
    return subject_profiles


def rank_single_windows(reader: Reader, recipe: Recipe) -> dict[str, Profile]:
    """Rank the candidates by each window, or each region of voxels, alone.

    The rest of the signal is replaced by the mean training signal.
    """
    axis, masks = list_position_masks(reader, recipe.window)
    signals = (torch.where(mask, reader.signal, reader.baseline) for mask in masks)
    tokens = map(partial(reader.model.encode, reader.trials), signals)
    return reader.rank(axis, tokens)


def occlude_positions(reader: Reader, recipe: Recipe) -> Profile:
    """Measure the margin lost with the mean training signal in a window or region."""
    axis, masks = list_position_masks(reader, recipe.window)
    signals = (torch.where(mask, reader.baseline, reader.signal) for mask in masks)
    return measure_lost_margin(reader, axis, signals)


def occlude_sensors(reader: Reader, _: Recipe) -> Profile:
    """Measure the margin lost with the mean training signal in each sensor.

    If channels mix sensors, such as by whitening, the mixing is undone first.

    Raises:
        BrainhiveError: if channels are unknown mixtures of sensors.
    """
    if reader.mixture:
        raise reader.mixture
    space = SensorSpace.from_trials(
        reader.trials,
        reader.person.train_trials,
        reader.signal.numpy(),
        reader.baseline.numpy(),
    )
    signals = map(space.remove_sensor, range(len(reader.sensors)))
    return measure_lost_margin(reader, Axis(SENSOR, reader.sensors), signals)


def remove_bands(reader: Reader, recipe: Recipe) -> Profile:
    """Measure the margin lost without each frequency band.

    A filter without delay removes it from the deviation from the mean training signal.

    Raises:
        BrainhiveError: if the signals are too short, or sampled too slowly, for all
            bands.
    """
    n_samples = reader.signal.shape[-1]
    rate_hz = reader.trials.rate_hz or 0
    max_hz = rate_hz / 2 - 1
    bands = {}
    # Lowest edge of a band. A Butterworth band-pass has no edge at 0 Hz.
    min_hz = 0.1
    for name, (low_hz, high_hz) in recipe.bands.items():
        if low_hz < max_hz:
            bands[name] = (max(low_hz, min_hz), min(high_hz, max_hz))
    if not bands or n_samples <= 3 * (2 * FILTER_ORDER + 1):
        raise BrainhiveError(
            f"{n_samples} samples at {rate_hz:g} Hz contain none of the bands",
            "choose other bands: bands",
        )

    names = []
    for name, (low_hz, high_hz) in bands.items():
        names.append(f"{name} ({low_hz:g}–{high_hz:g} Hz)")
    deviation = (reader.signal - reader.baseline).numpy()
    signals = starmap(partial(_remove_band, reader, deviation), bands.values())
    return measure_lost_margin(reader, Axis(BAND, names), signals)


def _remove_band(
    reader: Reader, deviation: Array, low_hz: float, high_hz: float
) -> Tensor:
    """Compute the signals [N, C, T] without a frequency band of their deviation."""
    from scipy.signal import butter, sosfiltfilt

    rate_hz = reader.trials.rate_hz or 0
    sections = butter(
        FILTER_ORDER, (low_hz, high_hz), "bandpass", fs=rate_hz, output="sos"
    )
    # the padding lasts three periods of the lowest frequency
    padding = min(deviation.shape[-1] - 1, int(3 * rate_hz / low_hz))
    band = sosfiltfilt(sections, deviation, padtype="odd", padlen=padding)
    return reader.signal - torch.from_numpy(np.ascontiguousarray(band, np.float32))


def remove_levels(reader: Reader, _: Recipe) -> Profile:
    """Measure the margin lost with the mean embedding of each encoder for all pictures.

    Raises:
        BrainhiveError: if the target has a single encoder.
    """
    keys = sorted(reader.model.module.layout.compared_keys)
    if len(keys) < 2:
        raise BrainhiveError(
            f"the target has a single encoder, {keys[0]}",
            "compare the signals with other encoders: levels=NAME",
        )

    # only the candidates change, not the signals
    tokens = reader.model.encode(reader.trials)

    def lose_margin(key: str) -> Float64:
        gallery = reader.encode_pictures(
            reader.tests.split, reader.gallery_rows, without=key
        )
        return reader.margins - compute_margins(tokens, gallery)

    axis = Axis(LEVEL, keys)
    losses = map(lose_margin, keys)
    return Profile.from_matrices(LOST_MARGIN, axis, losses, reader.labels)


def train_ridges(reader: Reader, recipe: Recipe) -> dict[str, Profile]:
    """Train a ridge regression on each window or region, and rank by its predictions.

    Its targets are the targets of the model.

    Raises:
        BrainhiveError: if the voxels belong to no region.
    """
    # targets [n, D] of the training signals, equal for the same picture
    train_signals = torch.from_numpy(reader.person.train_trials.averages)
    rows, indices = np.unique(reader.person.train_trials.stimulus, return_inverse=True)
    targets = reader.encode_pictures("train", rows)[torch.from_numpy(indices)]

    axis, masks = list_position_masks(reader, recipe.window)
    full_masks = [mask.expand(train_signals.shape[1:]) for mask in masks]  # [C, T]
    predictions = (
        predict_with_ridge(train_signals[:, mask], targets, reader.signal[:, mask])
        for mask in full_masks
    )
    return reader.rank(axis, predictions)


def predict_with_ridge(train: Tensor, targets: Tensor, test: Tensor) -> Tensor:
    """Predict targets by a ridge regression on signals.

    Signals are standardised by the mean and spread of the training signals.

    Args:
        train: Training signals [n, ...].
        targets: Targets [n, D] of the training signals.
        test: Tested signals [N, ...].

    Returns:
        Predicted targets [N, D].
    """
    train_features = train.flatten(1).to(targets.device)
    test_features = test.flatten(1).to(targets.device)
    scale = FeatureScaler.fit(train_features)
    chunks = targets.split(SIGNALS_PER_PRODUCT)
    products = Products.from_samples(scale(train_features), chunks)
    return products.predict(scale(test_features))


def measure_lost_margin(
    reader: Reader, axis: Axis, signals: Iterable[Tensor]
) -> Profile:
    """Measure how much margin is lost with changed signals [N, C, T] per position.

    The margin is the similarity with the seen picture minus the mean over candidates.
    """
    losses = (reader.margins - reader.measure_margins(signal) for signal in signals)
    return Profile.from_matrices(LOST_MARGIN, axis, losses, reader.labels)


def list_position_masks(reader: Reader, window: Window) -> tuple[Axis, list[Tensor]]:
    """List the windows of sensors as masks [T], or the regions of voxels as [V, 1].

    Raises:
        BrainhiveError: if voxels belong to no region.
        RecipeError: if the window is longer than the signal.
    """
    if reader.trials.channels:
        return list_window_masks(reader.times_ms, window)
    masks = make_region_masks(reader.list_regions(), reader.signal.shape[1])
    return Axis(REGION, list(masks)), list(map(torch.from_numpy, masks.values()))


def list_window_masks(times_ms: Float64, window: Window) -> tuple[Axis, list[Tensor]]:
    """List sliding windows, and the samples of each as a mask [T].

    Raises:
        RecipeError: if the window is longer than the signal.
    """
    spans = []
    masks = []
    width_ms = window.width_ms
    for start_ms in list_window_starts(times_ms, width_ms, window.step_ms):
        mask = mark_window(times_ms, start_ms, width_ms)
        # a window between two samples is left out
        if mask.any():
            spans.append([start_ms, start_ms + width_ms])
            masks.append(torch.from_numpy(mask))
    return Axis.from_windows(np.array(spans)), masks


def attribute_margin(
    reader: Reader, recipe: Recipe, subject_profiles: SubjectProfiles
) -> dict[str, Profile]:
    """Compute how much each voxel adds to the margin, by expected gradients.

    The values [V], averaged over pictures, are stored as the array `MARGIN`. They sum
    to the margin minus the mean margin of random training signals. (If gradients began
    at the mean training signal, values of a model that ignores the length of a signal
    would sum to 0.)

    Returns:
        No profiles.

    Raises:
        BrainhiveError: if whitening mixes voxels, or the model has no gradient.

    Source: Erion et al. 2021 (expected gradients).
    """
    normaliser = reader.trials.normaliser
    if normaliser is not None and normaliser.matrix.shape[1] > 1:
        raise BrainhiveError("whitening mixes voxels", "signal.normalise=channel")

    # the margin of a token is its product with a direction [N, D]
    candidates = F.normalize(reader.gallery.clone())
    seen_indices = torch.from_numpy(reader.labels.seen_indices).to(candidates.device)
    directions = candidates[seen_indices] - candidates.mean(0)

    # gradients at points between a random training signal and the tested signal
    train_signals = reader.person.train_trials.averages
    rng = np.random.default_rng(recipe.seed)
    module = reader.model.module
    total = torch.zeros(reader.signal.shape[1]).double()
    # Number of training signals that are compared with each tested signal.
    paths_per_signal = 32
    for share in (np.arange(paths_per_signal) + 0.5) / paths_per_signal:
        for rows in torch.arange(len(reader.signal)).split(SIGNALS_PER_GRADIENT):
            train_rows = rng.integers(len(train_signals), size=len(rows))
            train_signal = torch.from_numpy(train_signals[train_rows])
            signal = reader.signal[rows]
            point = torch.lerp(train_signal, signal, float(share)).requires_grad_()
            subject_index = reader.model.make_subject_index(
                reader.trials.subject, len(rows)
            )
            tokens = module.encode_signal(point.to(module.device), subject_index)
            unit_tokens = F.normalize(tokens.to(directions))
            margin = (unit_tokens * directions[rows]).sum()
            if not margin.requires_grad:
                raise BrainhiveError(
                    "the model has no gradient of its signals", "compute it in PyTorch"
                )
            (gradient,) = torch.autograd.grad(margin, point)
            total += (gradient * (signal - train_signal)).sum((0, 2))
    n_gradients = paths_per_signal * len(reader.signal)
    subject_profiles.arrays[MARGIN] = total.numpy() / n_gradients
    return {}
