"""Trials in memory: mne.Epochs, arrays and xarray.DataArray."""

from collections.abc import Iterable, Mapping, Sequence, Sized
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainhive_cli.core.base import (
    BrainhiveError,
    Float64,
    Int64,
    RecipeError,
    console,
    guess,
    naming,
)
from brainhive_cli.core.files import show_value
from brainhive_cli.data.files import NUMBERS
from brainhive_cli.data.recordings.channels import describe_size, keep_channels
from brainhive_cli.data.recordings.headers import make_header
from brainhive_cli.data.recordings.opening import CHANNEL_UNITS, get_scales
from brainhive_cli.data.recordings.tables import EMPTY_CELLS
from brainhive_cli.data.signals import (
    Cutting,
    Sensors,
    Steps,
    Trials,
    Voxels,
    name_electrodes,
    refuse_stimulus_channels,
    standardise_name,
    standardise_names,
)
from brainhive_cli.models import UNIT_SIZES, convert_unit, normalise_unit

CH_TYPES = {"V": "eeg", "T": "mag", "T/m": "grad"}
"""Type of channels in mne, by the SI unit of their signals."""
PICTURE_COLUMN = "picture"
"""Column that names the picture of each trial, unless the user names another column."""
SIGNAL_FORMS = "an array [n, C, T] or [n, V], mne.Epochs or xarray.DataArray"
"""Forms of a signal in memory, in words."""
AXIS_FORMS: Mapping[str, tuple[str, Any, int]] = {
    "channels": ("names", str, 1),
    "times_s": ("seconds, in order", np.float64, 1),
    "rate_hz": ("a number above 0", np.float64, 0),
    "unit": ("a name", str, 0),
}
"""Form in words, dtype and number of dimensions of the axes of an array."""


class JoinedEpochs(NamedTuple):
    """Epochs that are joined into a recording.

    Attributes:
        raw: Recording in mne with all n trials in order.
        names: Names [n] of the pictures or events of each trial. A trial has several
            names if several events lie at its onset.
        span: First and last sample of a trial, relative to its onset.
        runs: Run number [n] of each trial, or None.
        onset_s: Onset [n] of each trial in its run, or None.
        is_ordered: True if the file format keeps trials in the order of time.
        warnings: Unusual facts about the table of trials, a line each.
    """

    raw: Any
    names: Sequence[Sequence[str]]
    span: tuple[int, int]
    runs: Int64 | None = None
    onset_s: Float64 | None = None
    is_ordered: bool = False
    warnings: Sequence[str] = ()


def join_epochs(
    epochs: Any,
    path: Path,
    rename: Mapping[str, str],
    montage: str,
    names: Sequence[Sequence[str]],
) -> JoinedEpochs:
    """Join mne.Epochs into a recording with standard names of electrodes.

    Args:
        epochs: Epochs of n trials.
        path: Path of their file, for errors.
        rename: New names of channels.
        montage: Montage in mne, or "" for the positions in `epochs`.
        names: Names [n] of the pictures of each trial.
    """
    import mne

    if not len(epochs):
        raise BrainhiveError(f"{path} has no trials", "export it again")
    signal = epochs.get_data(verbose="ERROR")  # [n, C, T]
    n_trials, n_channels, n_times = signal.shape
    joined_signal = signal.transpose(1, 0, 2).reshape(n_channels, -1)
    raw = mne.io.RawArray(joined_signal, epochs.info, verbose="ERROR")
    name_electrodes(raw, path, rename, montage)
    sfreq = epochs.info["sfreq"]
    start = round(float(epochs.times[0]) * sfreq)

    # the events of EpochsArray count trials instead of samples
    samples = epochs.events[:, 0]
    onset_s = None
    if n_trials > 1 and np.diff(samples).min() > 1:
        raw_sfreq = getattr(epochs, "_raw_sfreq", None)
        onset_s = samples / (raw_sfreq or sfreq)
    span = (start, start + n_times - 1)
    return JoinedEpochs(raw, names, span, onset_s=onset_s)


def read_picture_names(names: Any) -> list[str]:
    """Read names of pictures as text, or "" for None, NaN and n/a.

    Raises:
        BrainhiveError: if `names` is not a one-dimensional list.
    """
    is_list = np.iterable(names)
    values = list(names) if is_list else []
    has_lists = any(np.ndim(value) or isinstance(value, np.void) for value in values)
    if has_lists or not is_list:
        raise BrainhiveError(
            f"the list of pictures has the shape {list(np.shape(names))}, not [trials]",
            "give one name of a picture for each trial",
        )
    texts = []
    for value in values:
        text = value.decode() if isinstance(value, bytes) else value
        # only NaN differs from itself
        is_empty = text is None or text in EMPTY_CELLS or text != text
        texts.append("" if is_empty else str(text))
    return texts


def read_epoch_names(epochs: Any, column: str, source: str = "the epochs") -> list[str]:
    """Read the name of each epoch from mne's metadata, or else from its event.

    Args:
        epochs: mne.Epochs.
        column: Column of the metadata, or "" for the column `picture` if it exists.
        source: Name of the epochs in errors.
    """
    columns = []
    if epochs.metadata is not None:
        columns = list(map(str, epochs.metadata))
    if column:
        require_column(column, columns, f"the metadata of {source}")
    picture_column = column or PICTURE_COLUMN
    if picture_column in columns:
        return read_picture_names(epochs.metadata[picture_column])
    event_names = {code: str(name) for name, code in epochs.event_id.items()}
    return [event_names[code] for code in epochs.events[:, 2]]


def require_column(column: str, columns: Sequence[str], source: str) -> None:
    """Raise an error if a column does not exist in a source."""
    if column not in columns:
        raise BrainhiveError(
            f"{source} has no column {column}",
            f"{guess(column, columns)}it has: {', '.join(columns) or 'none'}",
        )


def as_trials(
    signal: Any, pictures: Any = None, source: str = "the array", **axes: Any
) -> Trials:
    """Convert arrays, mne.Epochs or xarray to trials [n, C, T].

    Args:
        signal: Sensors [n, C, T], voxels [n, V], mne.Epochs, or an xarray.DataArray
            with these dimensions.
        pictures: Names [n] of pictures, or the column of mne's metadata or coordinate
            of xarray with them. Default: the column `picture`, else mne's events.
        source: Name of the signal in errors.
        axes: For arrays: `space` or `channels`, `times_s`, `rate_hz`, `unit`. For
            epochs: `channels` or `types` to select. For all: `onset_s` [n], or "in
            order" if the trials are in the order of time. Default: the times of mne's
            events, else unknown.

    Raises:
        BrainhiveError: if an axis is missing or does not fit.
    """
    # Names of the axes that `as_trials` accepts.
    axis_names = ("space", "channels", "types", "times_s", "rate_hz", "unit", "onset_s")
    for name in axes.keys() - set(axis_names):
        hint = guess(name, axis_names) + ", ".join(axis_names)
        raise RecipeError(f"no axis {name!r}", hint)
    if hasattr(signal, "event_id") and hasattr(signal, "get_data"):
        trials = _convert_epochs(signal, axes)
        if pictures is None or isinstance(pictures, str):
            pictures = read_epoch_names(signal, pictures or "")
    else:
        if hasattr(signal, "dims") and hasattr(signal, "coords"):
            signal, pictures, own_axes = _read_xarray(signal, pictures)
            axes = own_axes | axes
        trials = _convert_array(_read_array(signal, source), axes, source)
    if pictures is not None:
        image_ids = read_picture_names(pictures)
        _require_length("pictures", image_ids, trials.signal, "trials", source)
        trials = replace(trials, image_ids=image_ids)

    # onsets of the trials, or else their order. Rows are often shuffled or sorted
    onset_s = axes.get("onset_s")
    if onset_s is None:
        return trials
    if not isinstance(onset_s, str):
        onsets = np.asarray(onset_s, np.float64).ravel()
        _require_length("onset_s", onsets, trials.signal, "trials", source)
        return replace(trials, onset_s=onsets)
    if onset_s not in ("in order", "unknown"):
        raise RecipeError(
            f"onset_s={onset_s!r} is invalid",
            'give [n] seconds, "in order" or "unknown"',
        )
    numbers = None
    if onset_s == "in order":
        numbers = np.arange(len(trials.signal))
    return replace(trials, onset_s=None, trial_numbers=numbers)


def read_axes(axes: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Read the axes of an array in the forms of `AXIS_FORMS`. Absent axes are skipped.

    Raises:
        RecipeError: if an axis has another form.
    """
    values: dict[str, Any] = {}
    for name, (form, dtype, ndim) in AXIS_FORMS.items():
        if axes.get(name) is None:
            continue
        array = np.asarray(axes[name])
        # MATLAB writes a number or text as an array
        if ndim == 0 and array.size == 1:
            array = array.reshape(())
        is_valid = array.ndim == ndim and array.dtype.kind not in "cmM"
        if is_valid:
            try:
                converted: Any = array.astype(dtype)
            except (TypeError, ValueError):
                is_valid = False
            else:
                is_valid = dtype is str or _is_ordered(converted)
        if not is_valid:
            shape = list(array.shape)
            raise RecipeError(f"{source}: {name} is {shape} of {array.dtype}", form)
        values[name] = converted.tolist() if dtype is str else converted
    if "rate_hz" in values:
        values["rate_hz"] = float(values["rate_hz"])
    return values


def warn_of_size(trials: Trials, source: str) -> None:
    """Warn about signals that are too large or too small for their unit."""
    size, si_unit = UNIT_SIZES.get(trials.unit, (1.0, ""))
    if si_unit not in CH_TYPES:
        return
    spread = float(np.median(np.std(trials.signal, -1))) * size
    text = describe_size(CH_TYPES[si_unit], spread)
    if text:
        console.warn(f"{source}: {text}")


def cut_trials(
    signal: Any, times_s: Float64, rate_hz: float, steps: Steps, names: Iterable[str]
) -> tuple[Any, Cutting]:
    """Apply the steps of a preparation to trials.

    Args:
        signal: Trials [n, C, T].
        times_s: Time [T] of each sample, relative to the onset.
        rate_hz: Sampling rate.
        steps: Steps of the preparation. Whitening is skipped.
        names: Names [C] of the channels.

    Returns:
        Trials [n, C, T'], and the cutting with their times.

    Raises:
        BrainhiveError: if the trials are shorter than `epoch_ms`.
    """
    cutting = Cutting(steps, rate_hz)
    n_trials, n_channels, n_times = signal.shape
    start = round(float(times_s[0]) * rate_hz)
    require_span(cutting, (start, start + n_times - 1))
    onsets = np.arange(n_trials) * n_times - start
    rows = (np.ravel(signal[:, row]).astype(np.float64) for row in range(n_channels))
    return cutting.cut_trials(rows, list(names), onsets, 1.0), cutting


def require_span(cutting: Cutting, span: tuple[int, int]) -> None:
    """Raise an error if trials do not cover the window `epoch_ms`.

    Args:
        cutting: Cutting with this window.
        span: First and last sample of the trials, relative to the onset.
    """
    window = cutting.span
    if span[0] > window[0] or span[1] < window[1]:
        limits_ms = [round(sample * 1000 / cutting.recorded_hz, 3) for sample in span]
        raise BrainhiveError(
            f"the epochs last from {limits_ms[0]:g} to {limits_ms[1]:g} ms, but "
            f"preparation.epoch_ms is {list(cutting.steps.epoch_ms)}",
            f"set preparation.epoch_ms={limits_ms}, or export longer epochs",
        )


def _is_ordered(values: Float64) -> bool:
    """Return True for finite numbers that ascend, or for a finite number above 0."""
    if not np.isfinite(values).all():
        return False
    return bool((np.diff(values) > 0).all() if values.ndim else values > 0)


def _read_array(signal: Any, source: str) -> Any:
    """Read an array of numbers, or lists inside lists.

    Raises:
        RecipeError: if the signal is something else.
    """
    if hasattr(signal, "splits"):
        raise RecipeError(
            f"{source} has several splits", 'choose one of them, such as X["test"]'
        )
    array = None
    is_list = isinstance(signal, Sequence) and not isinstance(signal, str | bytes)
    if is_list or hasattr(signal, "__array__"):
        with suppress(ValueError):  # lists of different lengths
            array = np.asarray(signal)
    if array is None:
        raise RecipeError(
            f"{source} is {show_value(signal)}, of type {type(signal).__name__}",
            f"give {SIGNAL_FORMS}",
        )
    if array.dtype.kind not in NUMBERS:
        raise RecipeError(
            f"{source} is an array of dtype {array.dtype}", "give real numbers"
        )
    return array


def _convert_array(signal: Any, axes: Mapping[str, Any], source: str) -> Trials:
    """Convert an array [n, C, T] or [n, V] to trials without pictures."""
    axes = dict(axes) | read_axes(axes, source)
    channels = axes.get("channels")
    times_s: Any = axes.get("times_s")

    # voxels may be written as [n, V, 1]
    is_flat = sum(size > 1 for size in signal.shape[1:]) < 2
    if signal.ndim > 1 and is_flat and channels is None and times_s is None:
        signal = signal.reshape(len(signal), -1)
    if signal.ndim not in (2, 3):
        raise RecipeError(
            f"{source} has the shape {list(signal.shape)}", f"give {SIGNAL_FORMS}"
        )
    is_voxels = signal.ndim == 2
    space: Any = axes.get("space")
    unit: Any = axes.get("unit")
    if space is None and channels is not None:
        space = Sensors(standardise_names(channels))
    if isinstance(space, Sensors):
        refuse_stimulus_channels(space.names, source)
    if is_voxels:
        space = space or Voxels({})
        times_s = np.zeros(1)
        unit = unit or "beta"

    # lists of each axis
    if isinstance(space, Sensors):
        _require_length("channels", space.names, signal, "channels", source)
    elif isinstance(space, Voxels):
        for region, mask in space.regions.items():
            name = f"the region {region} of space"
            _require_length(name, mask, signal, "voxels", source)
    if times_s is not None and not is_voxels:
        _require_length("times_s", times_s, signal, "samples", source)

    required_axes = {"channels": space, "times_s": times_s, "unit": unit}
    missing_axes = [name for name, value in required_axes.items() if value is None]
    if missing_axes:
        raise RecipeError(
            f"{source} comes without its {' and '.join(missing_axes)}",
            "give channels=[NAME, …], times_s=[T] seconds from the onset, unit='µV'. "
            "In a file: ch_names, times and unit in .npz, or preparation.axes",
        )
    rate_hz = axes.get("rate_hz")
    if rate_hz is None and len(times_s) > 1:
        rate_hz = (len(times_s) - 1) / float(times_s[-1] - times_s[0])
        if not rate_hz > 1:  # the times are probably milliseconds
            raise BrainhiveError(
                f"the times of {source} are no seconds: {times_s[0]:g} to "
                f"{times_s[-1]:g}",
                "give times_s=[T] in seconds, ascending",
            )
    # convert to the units in which files are stored
    unit = stored_unit = normalise_unit(unit)
    _, si_unit = UNIT_SIZES.get(unit, (1.0, ""))
    if si_unit in CH_TYPES:
        _, stored_unit = CHANNEL_UNITS[CH_TYPES[si_unit]]
    if stored_unit != unit:
        signal = signal * np.float64(convert_unit(unit, stored_unit))
    with naming(source):
        return Trials(
            signal.reshape(*signal.shape[:2], -1),
            (),
            space,
            times_s,
            rate_hz,
            stored_unit,
            # each trial is decoded by itself
            repetitions=np.ones(len(signal), np.int64),
        )


def _require_length(
    name: str, values: Sized, signal: Any, noun: str, source: str
) -> None:
    """Raise an error that names a list whose length does not fit the signal.

    Args:
        name: Name of the list.
        values: The list.
        signal: Signals [n, C, T] or [n, V].
        noun: What the list counts: trials, channels, voxels or samples.
        source: Name of the signal in errors.
    """
    axis = {"trials": 0, "samples": 2}.get(noun, 1)
    count = signal.shape[axis]
    if len(values) != count:
        raise RecipeError(
            f"{name} has length {len(values)}, but {source} {list(signal.shape)} has "
            f"{count} {noun}",
            f"give one for each of the {count} {noun}; the axes are [trials, channels, "
            "times], or [trials, voxels]",
        )


def _convert_epochs(epochs: Any, axes: Mapping[str, Any]) -> Trials:
    """Convert mne.Epochs to trials with the selected channels, by default good EEG."""
    path = Path("the epochs")
    joined = join_epochs(epochs, path, {}, "", ())
    header = make_header(joined.raw, "", ())
    selection = []
    for name in axes.get("channels") or ():
        is_present = name in header.ch_names
        selection.append(name if is_present else standardise_name(name))
    try:
        channels = keep_channels(
            {path: header}, axes.get("types"), selection, exclude=(), whiten=False
        )
    except BrainhiveError as error:
        error.hint = error.hint.replace("preparation.", "")
        raise

    picks = list(channels.ch_names)
    scales = np.array(get_scales(channels.ch_types))
    signal = joined.raw.get_data(picks=picks) * scales[:, None]
    signal = signal.reshape(len(picks), len(epochs), -1).transpose(1, 0, 2)
    onset_s = joined.onset_s
    return Trials(
        signal,
        (),
        channels.space,
        np.asarray(epochs.times, np.float64),
        header.rate_hz,
        channels.unit,
        # each trial is decoded by itself
        repetitions=np.ones(len(signal), np.int64),
        onset_s=onset_s,
    )


def _read_xarray(array: Any, pictures: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Read the signal [n, C, T] or [n, V], pictures [n] and axes of a DataArray."""
    # order the dimensions by the beginnings of their names
    dims = []
    # Beginnings of the names of xarray dimensions: trials, channels and times.
    dimension_prefixes = (
        ("trial", "epoch", "presentation"),
        ("channel", "sensor", "voxel"),
        ("time",),
    )
    for prefixes in dimension_prefixes:
        for name in array.dims:
            if str(name).lower().startswith(prefixes):
                dims.append(name)
                break
    if len(dims) != len(array.dims) or len(dims) < 2:
        raise BrainhiveError(
            f"the array has dimensions {', '.join(map(str, array.dims))}",
            f"names that begin with {', '.join(map('/'.join, dimension_prefixes))}",
        )
    if isinstance(pictures, str):
        require_column(pictures, list(map(str, array.coords)), "the array")
        pictures = array.coords[pictures].values
    axes: dict[str, Any] = {}
    if len(dims) == 3:  # voxels have no names
        for axis, name in (("channels", dims[1]), ("times_s", dims[2])):
            if name in array.coords:
                axes[axis] = array.coords[name].values
    unit = array.attrs.get("unit", array.attrs.get("units"))
    if unit:
        axes["unit"] = unit
    return array.transpose(*dims).values, pictures, axes
