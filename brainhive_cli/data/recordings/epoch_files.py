"""Files of epochs: mne, EEGLAB, and arrays of NumPy and MATLAB."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from brainhive_cli.core.base import BrainhiveError, Int64, choose_only
from brainhive_cli.core.files import is_file
from brainhive_cli.core.recipes import Section, UniqueNames
from brainhive_cli.data.files import natural_key, normalise_name, pickles, require_own
from brainhive_cli.data.recordings.epochs import (
    CH_TYPES,
    PICTURE_COLUMN,
    JoinedEpochs,
    as_trials,
    join_epochs,
    read_axes,
    read_epoch_names,
    read_picture_names,
    require_column,
)
from brainhive_cli.data.recordings.opening import (
    refuse_truncated,
    report_unreadable,
    require_own_content,
)
from brainhive_cli.data.recordings.tables import read_table
from brainhive_cli.data.signals import list_eye_channels
from brainhive_cli.models import UNIT_SIZES


class Axes(Section):
    """Axes of arrays [trials, channels, times] whose file does not hold them."""

    channels: UniqueNames | None = Field(
        None, description="names of the channels, in order"
    )
    rate_hz: float | None = Field(None, gt=0, description="sampling rate in Hz")
    start_ms: float | None = Field(
        None, description="time of the first sample, relative to the picture's onset"
    )
    unit: str = Field("", description="unit of the signals, such as µV")


def name_trial_tables(path: Path) -> list[Path]:
    """Return the possible paths of the table that names the pictures of a file."""
    stem = path.name.partition(".")[0]
    stems = dict.fromkeys([re.sub(r"[-_]epo$", "", stem), stem])
    tables = []
    for table_stem in stems:
        for extension in (".csv", ".tsv"):
            tables.append(path.with_name(f"{table_stem}_trials{extension}"))
    return tables


def read_epochs(
    path: Path, axes: Axes, rename: Mapping[str, str], montage: str, column: str
) -> JoinedEpochs:
    """Read the epochs of a file, with the picture of each trial.

    The table `STEM_trials.csv` (or .tsv) names the pictures, else a column of mne's
    metadata or of the arrays, else the events. The table has a row for each trial, or
    for each event before rejection.

    Args:
        path: Path of the file.
        axes: Axes that replace the axes of the file.
        rename: New names of channels, by their names in the file.
        montage: Montage in mne, or "" for the positions in the file.
        column: Column of the table or metadata, or "" for `picture`, if it exists.

    Raises:
        MissingData: if the file is damaged.
        BrainhiveError: if axes or pictures are missing or do not fit the file.
    """
    suffix = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    epochs, content = _open_epochs(path, suffix, axes)

    picture_column = column or PICTURE_COLUMN
    tables = name_trial_tables(path)
    table = _find_trial_table(tables)
    rows: list[dict[str, str]] = []
    if table is None and suffix == "set" and not column:
        trial_names = _name_eeglab_trials(content, path)
    else:
        if table is not None:
            rows = _read_trial_rows(table, epochs, picture_column)
            names = read_picture_names(row[picture_column] for row in rows)
        elif suffix == "fif":
            names = read_epoch_names(epochs, column, str(path))
        else:
            columns = list(content) if isinstance(content, Mapping) else []
            if column:
                require_column(column, columns, str(path))
            has_names = picture_column in columns
            names = read_picture_names(content[picture_column]) if has_names else []
        trial_names = [(name,) for name in names]
    if len(trial_names) != len(epochs):
        raise BrainhiveError(
            f"{path} has {len(epochs)} trials, but {table or 'nothing'} names the "
            f"pictures of {len(trial_names)} of them",
            f"write {table or tables[0]} with a row for each trial. Its column "
            f"{picture_column} (preparation.column) names the picture",
        )

    joined = join_epochs(epochs, path, rename, montage, trial_names)
    run_names = read_picture_names(row.get("run", "n/a") for row in rows)
    labels = list(map(normalise_name, run_names))
    runs = None
    warnings = []
    if labels and "" not in labels:
        runs = _number_runs(labels)
    elif any(labels):
        warnings = [
            f"runs are not read: {labels.count('')} of {len(labels)} lines of {table} "
            "have no run"
        ]
    # EEGLAB counts samples over its epochs, which it keeps in the order of time
    return joined._replace(
        runs=runs,
        warnings=warnings,
        onset_s=joined.onset_s if suffix == "fif" else None,
        is_ordered=suffix == "set",
    )


def _open_epochs(path: Path, suffix: str, axes: Axes) -> tuple[Any, Any]:
    """Open a file as mne.Epochs.

    Returns:
        The epochs, and the content of the file: the EEG structure of a .set file,
        arrays, or None for .fif.
    """
    import mne

    with refuse_truncated(path), report_unreadable(path):
        require_own_content(path)
        if suffix == "fif":
            return mne.read_epochs(path, proj=False, verbose="WARNING"), None
        if suffix == "set":
            content = _load_eeglab(path)
            return _open_eeglab(path, content), content
        content = pickles.load(path)
    return _convert_arrays(path, content, axes), content


def _load_eeglab(path: Path) -> Any:
    """Load the structure EEG of a .set file."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, simplify_cells=True)
    except NotImplementedError:  # a file of MATLAB 7.3
        from pymatreader import read_mat

        content = read_mat(path)
    return content.get("EEG", content)


def _open_eeglab(path: Path, eeg: Any) -> Any:
    """Open a .set file as mne.Epochs with an event for each trial.

    Raises:
        ValueError: if its number of trials is impossible.
    """
    import mne

    n_trials = int(eeg["trials"])
    size = path.stat().st_size
    if isinstance(eeg["data"], str):
        # mne falls back to the usual name of the signal file
        has_signal = (path.parent / eeg["data"]).exists()
        signal_name = eeg["data"] if has_signal else f"{path.stem}.fdt"
        require_own(path, signal_name)
        size = path.with_name(signal_name).stat().st_size
    if not 0 < n_trials <= size:
        raise ValueError(f"it names {n_trials} trials")
    # mne cannot read simultaneous events from the file
    events = np.ones((n_trials, 3), int)
    events[:, 0] = np.arange(n_trials)
    return mne.read_epochs_eeglab(path, events, {"trial": 1}, verbose="WARNING")


def _name_eeglab_trials(eeg: Any, path: Path) -> list[tuple[str, ...]]:
    """Return the names of the events at the onset of each trial of a .set file.

    Raises:
        BrainhiveError: if most events are not at the onset.
    """
    with report_unreadable(path):
        events = eeg["event"] if isinstance(eeg["event"], list) else [eeg["event"]]
        # distance from the onset in samples, and name of the events of each trial
        trial_events: dict[int, list[tuple[float, str]]] = {}
        for event in events:
            if not event:
                continue
            # latencies count samples over all trials, from 1
            trial, sample = divmod(event["latency"] - 1, eeg["pnts"])
            distance = abs(sample + eeg["xmin"] * eeg["srate"])
            name = event["type"]
            if not isinstance(name, str):
                name = f"{name:g}"
            trial_events.setdefault(int(trial), []).append((distance, name))
    min_distances = {trial: min(pairs)[0] for trial, pairs in trial_events.items()}
    distance = np.median(list(min_distances.values())) if min_distances else 0.0
    if distance > 1.5:
        raise BrainhiveError(
            f"{path}: events lie {distance * 1000 / eeg['srate']:.0f} ms from the "
            "onset that its limits define",
            "correct EEG.xmin and EEG.xmax in EEGLAB, and save it again",
        )
    trial_names = []
    for trial in range(int(eeg["trials"])):
        names = []
        for distance, name in trial_events.get(trial, []):
            if distance < min_distances[trial] + 0.5 and name not in names:
                names.append(name)
        trial_names.append(tuple(names))
    return trial_names


def _convert_arrays(path: Path, content: Any, axes: Axes) -> Any:
    """Convert the array of a file to mne.Epochs. `axes` replace its axes."""
    import mne

    arrays = content if isinstance(content, Mapping) else {"": content}
    signals = [array for array in arrays.values() if np.ndim(array) == 3]
    if len(signals) != 1 or signals[0].dtype.kind not in "fiu":
        raise BrainhiveError(
            f"{path} holds {len(signals)} arrays [trials, channels, times] instead of "
            "one",
            "write a single array into each file. For betas [trials, voxels]: "
            "brainhive prepare --from betas",
        )
    signal = signals[0]
    if not signal.size:
        raise BrainhiveError(f"{path} has no trials", "export it again")

    # read the axes
    # Names of the axes in an .npz file. The last names are mne's.
    axis_keys = {
        "channels": ("channels", "ch_names"),
        "times_s": ("times_s", "times"),
        "rate_hz": ("rate_hz", "sfreq"),
        "unit": ("unit",),
    }
    axis_values: dict[str, Any] = dict.fromkeys(axis_keys)
    for axis, keys in axis_keys.items():
        for key in reversed(keys):  # the first key wins
            axis_values[axis] = arrays.get(key, axis_values[axis])
    axis_values |= axes.model_dump(exclude_defaults=True, exclude={"start_ms"})
    axis_values |= read_axes(axis_values, str(path))
    rate_hz = axis_values["rate_hz"]
    if axes.start_ms is not None and rate_hz is not None:
        sample_times_s = np.arange(signal.shape[2]) / rate_hz
        axis_values["times_s"] = axes.start_ms / 1000 + sample_times_s

    # MATLAB programs write [channels, times, trials]
    channels = axis_values["channels"]
    times_s = axis_values["times_s"]
    if channels is not None and times_s is not None:
        sizes = (len(channels), len(times_s))
        if signal.shape[1:] != sizes and signal.shape[:2] == sizes:
            signal = np.moveaxis(signal, 2, 0)
        if signal.shape[1:] != sizes:
            raise BrainhiveError(
                f"{path} has the shape {list(signal.shape)}, but {sizes[0]} names of "
                f"channels and {sizes[1]} times",
                "write an array [trials, channels, times] with as many names and times",
            )

    # convert to SI units
    trials = as_trials(signal, None, str(path), **axis_values)
    if trials.unit not in UNIT_SIZES:
        raise BrainhiveError(
            f"the unit {trials.unit!r} of {path} is unknown",
            f"use one of {', '.join(UNIT_SIZES)}",
        )
    size, si_unit = UNIT_SIZES[trials.unit]
    names = list(map(str, trials.space.names))
    # eye channels have a type of their own, as in files of recordings
    ch_types = dict.fromkeys(names, CH_TYPES[si_unit])
    ch_types |= dict.fromkeys(list_eye_channels(names), "eog")
    info = mne.create_info(names, float(trials.rate_hz or 1), list(ch_types.values()))
    scaled = trials.signal * np.float64(size)
    first_s = float(trials.times_s[0])
    return mne.EpochsArray(scaled, info, tmin=first_s, verbose="ERROR")


def _find_trial_table(tables: Sequence[Path]) -> Path | None:
    """Return the first existing table, or None. Raise an error if tables differ."""
    existing_tables = list(filter(is_file, tables))
    contents = {table.name: str(read_table(table)) for table in existing_tables}
    hint = "keep one of the two tables"
    choose_only(contents, f"the trials of {tables[0].parent}", hint)
    return existing_tables[0] if existing_tables else None


def _read_trial_rows(table: Path, epochs: Any, column: str) -> list[dict[str, str]]:
    """Read the row of each trial from a table."""
    columns, rows = read_table(table)
    require_column(column, columns, str(table))
    sessions = {row.get("session") for row in rows}
    if len(sessions) > 1:
        raise BrainhiveError(
            f"{table} lists {len(sessions)} sessions, but belongs to one file",
            "write a file for each session: sub-01_ses-02, …",
        )
    return _choose_rows(rows, epochs, column, table)


def _choose_rows(
    rows: list[dict[str, str]], epochs: Any, column: str, table: Path
) -> list[dict[str, str]]:
    """Choose the row of each trial from a table that may list rejected events too.

    Returns:
        A row for each trial, or all rows if their number is unexpected.
    """
    # the table may lack the events that mne ignored
    is_logged = np.array(
        ["IGNORED" not in reasons for reasons in epochs.drop_log], bool
    )
    readings: dict[str, Any] = {}
    if len(rows) == len(epochs):
        readings["a line for each trial of the file, in its order"] = range(len(rows))
    if len(rows) == len(is_logged):
        readings["a line for each event before rejection"] = epochs.selection
    if len(rows) == is_logged.sum():
        indices = np.cumsum(is_logged)[epochs.selection] - 1
        readings["a line for each picture before rejection"] = indices

    # prefer readings in which events with the same code show the same picture
    codes = epochs.events[:, 2].tolist()
    n_codes = len(set(codes))
    consistent = {}
    for description, indices in readings.items():
        pictures = [rows[index][column] for index in indices]
        if len(set(zip(codes, pictures, strict=True))) == n_codes:
            consistent[description] = indices
    trial_indices = choose_only(
        consistent if n_codes > 1 and consistent else readings,
        str(table),
        "save the epochs in the order of time: epochs[np.argsort(epochs.events[:, 0])]",
    )
    if trial_indices is None:
        return rows
    return [rows[index] for index in trial_indices]


def _number_runs(labels: Sequence[str]) -> Int64:
    """Return the number in each label [n], or ranks if labels share or lack numbers."""
    numbers = {}
    for label in labels:
        # Label of a run with its number.
        match = re.fullmatch(
            r"(?:run|block)?[-_ ]?0*(\d+)(?:\.0*)?", label, re.IGNORECASE
        )
        if match:
            numbers[label] = int(match[1])
    if len(set(numbers.values())) < len(set(labels)):
        ordered = sorted(set(labels), key=natural_key)
        numbers = {label: rank for rank, label in enumerate(ordered, 1)}
    return np.array([numbers[label] for label in labels], np.int64)
