"""Epochs that were cut before: mne.Epochs and arrays, in memory and in files."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Float64, Int64
from brainhive_cli.core.errors import BrainhiveError, RecipeError, guess, naming
from brainhive_cli.core.files import is_file
from brainhive_cli.core.key_types import UniqueNames
from brainhive_cli.core.only_match import choose_only
from brainhive_cli.core.sections import Section
from brainhive_cli.data.files import pickles
from brainhive_cli.data.files.bids_labels import natural_key
from brainhive_cli.data.files.ids import plain_name
from brainhive_cli.data.files.named_files import require_own
from brainhive_cli.data.recordings.channels import describe_size, keep_channels
from brainhive_cli.data.recordings.headers import make_header
from brainhive_cli.data.recordings.opening import (
    CHANNEL_UNITS,
    refuse_truncated,
    report_unreadable,
    require_own_content,
)
from brainhive_cli.data.recordings.tables import EMPTY_CELLS, read_table
from brainhive_cli.data.signals.cutting import Cutting, Steps
from brainhive_cli.data.signals.spaces import (
    Sensors,
    Voxels,
    name_electrodes,
    standardise_name,
    standardise_names,
)
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.models.signal_spec import UNIT_SIZES, name_unit

KINDS = {"V": "eeg", "T": "mag", "T/m": "grad"}
"""Type of channels, as mne names it, by the SI unit of their signals."""
NAMES = {
    "channels": ("channels", "ch_names"),
    "times_s": ("times_s", "times"),
    "rate_hz": ("rate_hz", "sfreq"),
    "unit": ("unit",),
}
"""Names of the axes in an .npz: ours, and mne's."""
PICTURE = "picture"
"""Column that names the picture of each trial, unless the user names another."""
RUN_LABEL = re.compile(r"(?:run|block)?[-_ ]?0*(\d+)(?:\.0*)?", re.IGNORECASE)
"""Label of a run, and its number."""
DIMENSIONS = (
    ("trial", "epoch", "presentation"),
    ("channel", "sensor", "voxel"),
    ("time",),
)
"""How names of the dimensions of xarray begin, in the order of our axes."""


class Axes(Section):
    """Axes of arrays [trials, channels, times] whose file does not say them."""

    channels: UniqueNames | None = Field(None, description="names, in their order")
    rate_hz: float | None = Field(None, gt=0, description="samples a second")
    start_ms: float | None = Field(
        None, description="first sample of each trial, from the onset of the picture"
    )
    unit: str = Field("", description="of the signals, as µV")


class JoinedEpochs(NamedTuple):
    """Epochs of a file, laid end to end.

    Attributes:
        raw: mne's recording of all trials, one after another.
        names: [n] what each trial showed, as the file or its table calls it. A trial
            has several names where several events lie at its onset.
        span: First and last sample of a trial, from the onset.
        runs: [n] number of the run of each; None if not known.
        onset_s: [n] onset of each in its run, in seconds; None if not known.
        doubts: What is unusual about its table, a line each.
    """

    raw: Any
    names: Sequence[Sequence[str]]
    span: tuple[int, int]
    runs: Int64 | None = None
    onset_s: Float64 | None = None
    warnings: Sequence[str] = ()


def join_epochs(
    epochs: Any,
    path: Path,
    rename: Mapping[str, str],
    cap: str,
    names: Sequence[Sequence[str]],
) -> JoinedEpochs:
    """Lay mne's epochs end to end; their electrodes are named as those of recordings.

    Raises:
        BrainhiveError: if they have no channels or no trials.
    """
    import mne

    if not len(epochs):
        raise BrainhiveError(f"{path} has no trials", "export it again")
    signal = epochs.get_data(verbose="ERROR")  # [n, C, T]
    count, channels, samples = signal.shape
    raw = mne.io.RawArray(
        signal.transpose(1, 0, 2).reshape(channels, -1), epochs.info, verbose="ERROR"
    )
    name_electrodes(raw, path, rename, cap)
    first = round(float(epochs.times[0]) * epochs.info["sfreq"])

    # events of arrays count trials, and say nothing of time
    at = epochs.events[:, 0]
    rate_hz = getattr(epochs, "_raw_sfreq", None)
    is_timed = count > 1 and np.diff(at).min() > 1
    onset_s = at / (rate_hz or epochs.info["sfreq"]) if is_timed else None
    return JoinedEpochs(raw, names, (first, first + samples - 1), None, onset_s)


def read_epochs(
    path: Path, axes: Axes, rename: Mapping[str, str], cap: str, column: str
) -> JoinedEpochs:
    """Read epochs of mne or EEGLAB, or an array, with what each trial showed.

    Pictures are named by the table next to the file, `STEM_trials.csv` or .tsv, with a
    line for each trial, or for each before some were rejected; else by a column of
    mne's metadata or of the arrays; else by event names.

    Args:
        path: The file.
        axes: Axes of an array whose file does not say them.
        rename: Names of channels in the file, and their names here.
        cap: What mne calls the cap; empty for the positions of the file.
        column: Column of the table or the metadata; empty for `picture`, if there is
            such a column.

    Raises:
        MissingData: if the file cannot be read, or ends early.
        BrainhiveError: if axes or pictures are not known, the column does not exist, or
            the table has another number of lines.
    """
    import mne

    suffix = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    with refuse_truncated(path), report_unreadable(path):
        require_own_content(path)
        if suffix == "fif":
            content: Any = {}
            epochs = mne.read_epochs(path, proj=False, verbose="WARNING")
        elif suffix == "set":
            # mne reads no two events at one onset
            content = _load_eeglab(path)
            count = int(content["trials"])
            data = content["data"]
            size = path.stat().st_size
            if isinstance(data, str):
                # mne takes the usual name where there is no file of this one
                is_there = (path.parent / data).exists()
                signal = data if is_there else f"{path.stem}.fdt"
                require_own(path, signal)
                size = path.with_name(signal).stat().st_size
            if not 0 < count <= size:
                raise ValueError(f"it names {count} trials")
            events = np.ones((count, 3), int)
            events[:, 0] = np.arange(len(events))
            epochs = mne.read_epochs_eeglab(
                path, events, {"trial": 1}, verbose="WARNING"
            )
        else:
            content = pickles.load(path)
    if suffix not in ("fif", "set"):
        epochs = _of_arrays(path, content, axes)

    # pictures by a table, a column or the events
    rows = list[dict[str, str]]()
    names = list[str]()
    tables = name_trial_tables(path)
    several: Sequence[Sequence[str]] = ()
    table = _find_table(tables)
    if table is not None:
        columns, rows = read_table(table)
        _require_column(column or PICTURE, columns, str(table))
        if len(sessions := {row.get("session") for row in rows}) > 1:
            raise BrainhiveError(
                f"{table} lists {len(sessions)} sessions of one file",
                "a file a session: sub-01_ses-02, …",
            )
        rows = _choose_rows(rows, epochs, column or PICTURE, table)
        names = read_picture_names(row[column or PICTURE] for row in rows)
    elif suffix == "fif":
        names = read_epoch_names(epochs, column, str(path))
    elif suffix == "set" and not column:
        several = _name_eeglab(content, path)
    elif isinstance(content, Mapping) and (column or PICTURE) in content:
        names = read_picture_names(content[column or PICTURE])
    elif column:
        columns = [*content] if isinstance(content, Mapping) else []
        _require_column(column, columns, str(path))
    several = several or [(name,) for name in names]
    if len(several) != len(epochs):
        raise BrainhiveError(
            f"{path} has {len(epochs)} trials, and {table or 'nothing'} says what "
            f"{len(several)} of them showed",
            f"{table or tables[0]} with a line for each trial, whose column "
            f"{column or PICTURE} names its picture: preparation.column",
        )

    # run of each trial, where the table has it
    epoched = join_epochs(epochs, path, rename, cap, several)
    labels = [
        *map(plain_name, read_picture_names(row.get("run", "n/a") for row in rows))
    ]
    runs = None if "" in labels or not labels else _number_runs(labels)
    doubts = []
    if runs is None and any(labels):
        doubts = [
            f"runs are not read: {labels.count('')} of {len(labels)} lines of {table} "
            "have no run"
        ]
    return epoched._replace(
        runs=runs,
        warnings=doubts,
        # EEGLAB counts samples over its epochs, and not in the recording
        onset_s=epoched.onset_s if suffix == "fif" else None,
    )


def name_trial_tables(path: Path) -> list[Path]:
    """Name the tables that may say what each trial of a file showed."""
    whole = path.name.partition(".")[0]
    stems = dict.fromkeys([re.sub(r"[-_]epo$", "", whole), whole])
    return [
        path.with_name(f"{stem}_trials{ending}")
        for stem in stems
        for ending in (".csv", ".tsv")
    ]


def _find_table(tables: Sequence[Path]) -> Path | None:
    """Find the table of trials that is there.

    Raises:
        BrainhiveError: if there are two that differ.
    """
    there = [*filter(is_file, tables)]
    contents = {table.name: str(read_table(table)) for table in there}
    hint = "keep one of the two tables"
    choose_only(contents, f"the trials of {tables[0].parent}", hint)
    return there[0] if there else None


def _require_column(column: str, columns: Sequence[str], where: str) -> None:
    """Refuse a column that does not exist.

    Raises:
        BrainhiveError: naming those that exist.
    """
    if column not in columns:
        raise BrainhiveError(
            f"{where} has no column {column}",
            f"{guess(column, columns)}it has: {', '.join(columns) or 'none'}",
        )


def _choose_rows(
    rows: list[dict[str, str]], epochs: Any, column: str, table: Path
) -> list[dict[str, str]]:
    """Choose the line of each trial: those of the file in its order, or of what was
    shown before some were rejected.

    Raises:
        BrainhiveError: if the lines can belong to the trials in two ways.
    """
    # mne ignores events of other kinds, of which the table may have no lines
    logged = np.array(["IGNORED" not in reasons for reasons in epochs.drop_log], bool)
    readings: dict[str, Any] = {}
    if len(rows) == len(epochs):
        readings["a line for each trial of the file, in its order"] = range(len(rows))
    if len(rows) == len(logged):
        readings["a line for each event before rejection"] = epochs.selection
    if len(rows) == logged.sum():
        kept = np.cumsum(logged)[epochs.selection] - 1
        readings["a line for each picture before rejection"] = kept

    # events of one code show one picture, where codes stand for pictures
    codes = epochs.events[:, 2]
    consistent = {
        name: lines
        for name, lines in readings.items()
        if len(
            {(code, rows[at][column]) for code, at in zip(codes, lines, strict=True)}
        )
        == len({*codes})
    }
    chosen = choose_only(
        consistent if len({*codes}) > 1 and consistent else readings,
        str(table),
        "save the epochs in the order of time: epochs[np.argsort(epochs.events[:, 0])]",
    )
    return rows if chosen is None else [rows[at] for at in chosen]


def _number_runs(labels: Sequence[str]) -> Int64:
    """Number the runs [n] by their labels: 1 of `1` and `run-01`; else in the order of
    the labels.
    """
    found = {}
    for label in labels:
        if match := RUN_LABEL.fullmatch(label):
            found[label] = int(match[1])
    if len({*found.values()}) < len({*labels}):
        ordered = sorted({*labels}, key=natural_key)
        found = {label: number for number, label in enumerate(ordered, 1)}
    return np.array([found[label] for label in labels], np.int64)


def read_picture_names(names: Any) -> list[str]:
    """Read names of pictures as text; empty where there is none (None, NaN, n/a).

    Raises:
        BrainhiveError: if one of them is a list.
    """
    listed = [*names] if np.iterable(names) else [()]
    if any(np.ndim(name) or isinstance(name, np.void) for name in listed):
        raise BrainhiveError(
            f"pictures are of the form {[*np.shape(names)]}, which is no list",
            "one name of a picture for each trial",
        )
    texts = (name.decode() if isinstance(name, bytes) else name for name in listed)
    absent = {None, *EMPTY_CELLS}
    return ["" if text in absent or text != text else str(text) for text in texts]


def read_epoch_names(epochs: Any, column: str, where: str = "the epochs") -> list[str]:
    """Name what each of mne's epochs showed: by a column of the metadata, else by its
    event.

    Args:
        epochs: mne's epochs.
        column: Column of the metadata; empty for `picture`, if there is such a column.
        where: What they are, for errors.

    Raises:
        BrainhiveError: if there is no such column.
    """
    columns = [] if epochs.metadata is None else [*map(str, epochs.metadata)]
    if column:
        _require_column(column, columns, f"the metadata of {where}")
    if (column or PICTURE) in columns:
        return read_picture_names(epochs.metadata[column or PICTURE])
    name_of = {number: str(name) for name, number in epochs.event_id.items()}
    return [name_of[number] for number in epochs.events[:, 2]]


def _load_eeglab(path: Path) -> Any:
    """Load the structure EEG of a .set."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, simplify_cells=True)
    except NotImplementedError:  # of MATLAB 7.3
        from pymatreader import read_mat

        content = read_mat(path)
    return content.get("EEG", content)


def _name_eeglab(eeg: Any, path: Path) -> list[tuple[str, ...]]:
    """Name each epoch of EEGLAB by the events at its onset; mne would join the names of
    all events in it.

    Raises:
        BrainhiveError: if events lie elsewhere.
    """
    with report_unreadable(path):
        events = eeg["event"] if isinstance(eeg["event"], list) else [eeg["event"]]
        # events count samples over all epochs, from 1
        timed: dict[int, list[tuple[float, str]]] = {}
        for event in filter(None, events):
            number, sample = divmod(event["latency"] - 1, eeg["pnts"])
            late = abs(sample + eeg["xmin"] * eeg["srate"])
            kind = event["type"]
            name = kind if isinstance(kind, str) else f"{kind:g}"
            timed.setdefault(int(number), []).append((late, name))
    nearest = {number: min(of_epoch)[0] for number, of_epoch in timed.items()}
    if nearest and (late := np.median([*nearest.values()])) > 1.5:
        late_ms = late * 1000 / eeg["srate"]
        raise BrainhiveError(
            f"{path}: events lie {late_ms:.0f} ms from the onset, by its limits",
            "correct EEG.xmin and EEG.xmax in EEGLAB, and save it again",
        )
    # the same name twice is one event
    names = []
    for row in range(int(eeg["trials"])):
        at_onset = [name for at, name in timed.get(row, ()) if at < nearest[row] + 0.5]
        names.append(tuple(dict.fromkeys(at_onset)))
    return names


def _of_arrays(path: Path, content: Any, axes: Axes) -> Any:
    """Make mne's epochs of the array in a file; its axes, or else the recipe's."""
    import mne

    # the array of three axes, and what an .npz says of these
    arrays = content if isinstance(content, Mapping) else {"": content}
    signals = [array for array in arrays.values() if np.ndim(array) == 3]
    if len(signals) != 1 or signals[0].dtype.kind not in "fiu":
        raise BrainhiveError(
            f"{path} holds {len(signals)} arrays [trials, channels, times] of numbers",
            "one a file; betas [trials, voxels]: brainhive prepare --from betas",
        )
    if not signals[0].size:
        raise BrainhiveError(f"{path} has no trials", "export it again")
    known: dict[str, Any] = {
        key: next((arrays[name] for name in names if name in arrays), None)
        for key, names in NAMES.items()
    }
    known |= axes.model_dump(exclude_defaults=True, exclude={"start_ms"})
    known |= _read_axes(known, str(path))
    if axes.start_ms is not None and known["rate_hz"] is not None:
        times_s = np.arange(signals[0].shape[2]) / known["rate_hz"]
        known["times_s"] = axes.start_ms / 1000 + times_s
    # MATLAB's programs write [channels, times, trials]
    signal, (channels, times_s) = signals[0], (known["channels"], known["times_s"])
    if channels is not None and times_s is not None:
        sizes = len(channels), len(times_s)
        if signal.shape[1:] != sizes and signal.shape[:2] == sizes:
            signal = np.moveaxis(signal, 2, 0)
        if signal.shape[1:] != sizes:
            raise BrainhiveError(
                f"{path} is {[*signal.shape]}, with {sizes[0]} names of channels and "
                f"{sizes[1]} times",
                "an array [trials, channels, times], and names and times that fit",
            )
    trials = as_trials(signal, None, str(path), **known)
    if trials.unit not in UNIT_SIZES:
        raise BrainhiveError(
            f"{path} is in {trials.unit}", f"a unit of {', '.join(UNIT_SIZES)}"
        )
    size, si_unit = UNIT_SIZES[trials.unit]
    assert isinstance(trials.space, Sensors)  # as of three axes
    names = [*map(str, trials.space.names)]
    kind = KINDS[si_unit]
    info = mne.create_info(names, float(trials.rate_hz or 1), kind)
    scaled = trials.signal[:, 0] * np.float64(size)
    first_s = float(trials.times_s[0])
    return mne.EpochsArray(scaled, info, tmin=first_s, verbose="ERROR")


def as_trials(
    signal: Any, pictures: Any = None, where: str = "the array", **axes: Any
) -> Trials:
    """Check arrays, mne.Epochs or xarray as trials, a row [1, C, T] each.

    Args:
        signal: [n, C, T] of sensors, [n, V] of voxels, mne.Epochs, or an
            xarray.DataArray with dimensions of these names.
        pictures: [n] what each trial showed; or the column of mne's metadata, or the
            coordinate of xarray, that says it. Default: names of mne's events.
        where: What it is, for errors.
        axes: Of arrays `space` or `channels`, `times_s`, `rate_hz`, `unit`; of epochs
            `channels` or `types` that are taken; of both `onset_s` [n], or
            `unknown` where trials are not in the order of time.

    Raises:
        BrainhiveError: naming an axis that is missing, or does not fit.
    """
    known = {"space", "channels", "types", "times_s", "rate_hz", "unit", "onset_s"}
    for name in axes.keys() - known:
        raise RecipeError(f"no axis {name!r}", guess(name, known) + ", ".join(known))
    if hasattr(signal, "event_id") and hasattr(signal, "get_data"):
        trials = _of_epochs(signal, pictures, axes)
    else:
        if hasattr(signal, "dims") and hasattr(signal, "coords"):
            signal, pictures, axes_of_array = _of_xarray(signal, pictures)
            axes = axes_of_array | axes
        trials = _of_array(np.asarray(signal), axes, where)
        trials = replace(
            trials, image_ids=read_picture_names(() if pictures is None else pictures)
        )

    # onsets, or the order of rows, unless that says nothing of time
    onset_s = axes.get("onset_s")
    if isinstance(onset_s, str):
        if onset_s != "unknown":
            raise RecipeError(f"onset_s is {onset_s!r}", "[n] seconds, or unknown")
        return replace(trials, onset_s=None)
    if onset_s is not None:
        return replace(trials, onset_s=np.asarray(onset_s, np.float64).reshape(-1, 1))
    if trials.onset_s is None:
        return replace(trials, trial_numbers=np.arange(len(trials.signal))[:, None])
    return trials


def _read_axes(axes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Read names, times, rate and unit of an array, as far as they are there.

    Raises:
        RecipeError: naming one that has another form.
    """
    forms: dict[str, tuple[str, Any, int]] = {
        "channels": ("names", str, 1),
        "times_s": ("seconds, in order", np.float64, 1),
        "rate_hz": ("a number above 0", np.float64, 0),
        "unit": ("a name", str, 0),
    }
    read = {}
    for name, (form, dtype, ndim) in forms.items():
        if axes.get(name) is None:
            continue
        values = np.asarray(axes[name])
        # a number or text may stand in a list of its own, as MATLAB writes it
        if ndim == 0 and values.size == 1:
            values = values.reshape(())
        try:
            array: Any = values.astype(dtype)
            is_fit = array.ndim == ndim and (dtype is str or _is_ordered(array))
        except (TypeError, ValueError):
            is_fit = False
        if not is_fit or values.dtype.kind in "cmM":
            shape = [*values.shape]
            kind = values.dtype
            raise RecipeError(f"{where}: {name} is {shape} of {kind}", form)
        read[name] = array.tolist() if dtype is str else array
    if "rate_hz" in read:
        read["rate_hz"] = float(read["rate_hz"])
    return read


def _is_ordered(values: Float64) -> bool:
    """Whether numbers are finite, and a list of them ascends or one of them is above
    0.
    """
    if not np.isfinite(values).all():
        return False
    return bool((np.diff(values) > 0).all() if values.ndim else values > 0)


def _of_array(signal: Any, axes: Mapping[str, Any], where: str) -> Trials:
    axes = {**axes, **_read_axes(axes, where)}
    # voxels [n, V] have one sample, which may be an axis: [n, V, 1]
    has_axes = axes.get("channels") is not None or axes.get("times_s") is not None
    is_flat = sum(size > 1 for size in signal.shape[1:]) < 2
    if signal.ndim > 1 and is_flat and not has_axes:
        signal = signal.reshape(len(signal), -1)
    is_voxels = signal.ndim == 2
    if signal.ndim not in (2, 3):
        raise BrainhiveError(
            f"{where} is {list(signal.shape)}",
            "[trials, channels, times], or [trials, voxels]",
        )
    space: Any = axes.get("space")
    times_s: Any = axes.get("times_s")
    unit: Any = axes.get("unit")
    if space is None and (channels := axes.get("channels")) is not None:
        space = Sensors(standardise_names(channels))
    if is_voxels:
        space = space or Voxels({})
        times_s = np.zeros(1)
        unit = unit or "beta"
    needed = {"channels": space, "times_s": times_s, "unit": unit}
    if missing := [name for name, value in needed.items() if value is None]:
        raise RecipeError(
            f"{where} does not say its {' and '.join(missing)}",
            "channels=[NAME, …], times_s=[T] seconds from the onset, unit='µV'; of a "
            "file: ch_names, times and unit in .npz, or preparation.axes",
        )
    rate_hz = axes.get("rate_hz")
    if rate_hz is None and len(times_s) > 1:
        rate_hz = (len(times_s) - 1) / float(times_s[-1] - times_s[0])
        if not rate_hz > 1:  # as of milliseconds
            raise BrainhiveError(
                f"{where} has times from {times_s[0]:g} to {times_s[-1]:g} s",
                "times_s=[T] ascending, in seconds",
            )
    shaped = signal[:, None, :, None] if is_voxels else signal[:, None]
    with naming(where):
        return Trials(shaped, (), space, times_s, rate_hz, name_unit(unit))


def _of_epochs(epochs: Any, pictures: Any, axes: Mapping[str, Any]) -> Trials:
    path = Path("the epochs")
    if pictures is None or isinstance(pictures, str):
        pictures = read_epoch_names(epochs, pictures or "")

    # good channels of EEG, or else of MEG, in the unit of recordings
    epoched = join_epochs(epochs, path, {}, "", ())
    header = make_header(epoched.raw, "", ())
    wanted = [
        name if name in header.ch_names else standardise_name(name)
        for name in axes.get("channels") or ()
    ]
    try:
        channels = keep_channels({path: header}, axes.get("types"), wanted, (), False)
    except BrainhiveError as error:
        error.hint = error.hint.replace("preparation.", "")
        raise
    scale = np.array([[CHANNEL_UNITS[kind][0]] for kind in channels.ch_types])  # [C, 1]
    signal = epoched.raw.get_data(picks=[*channels.ch_names]) * scale
    shape = (len(channels.ch_names), len(epochs), -1)
    onset_s = epoched.onset_s
    return Trials(
        signal.reshape(shape).transpose(1, 0, 2)[:, None],
        read_picture_names(pictures),
        channels.space,
        np.asarray(epochs.times, np.float64),
        header.rate_hz,
        channels.unit,
        onset_s=None if onset_s is None else onset_s[:, None],
    )


def _of_xarray(array: Any, pictures: Any) -> tuple[Any, Any, dict[str, Any]]:
    # dimensions by the beginnings of their names, in our order
    matches = (
        [name for name in array.dims if str(name).lower().startswith(begins)]
        for begins in DIMENSIONS
    )
    names = [name for name, *_ in filter(None, matches)]
    if len(names) != len(array.dims) or len(names) < 2:
        raise BrainhiveError(
            f"the array has dimensions {', '.join(map(str, array.dims))}",
            f"names that begin with {'; '.join('/'.join(each) for each in DIMENSIONS)}",
        )
    if isinstance(pictures, str):
        _require_column(pictures, [*map(str, array.coords)], "the array")
        pictures = array.coords[pictures].values
    axes_of_array: dict[str, Any] = {}
    # of betas, voxels have no names
    for key, name in zip(("channels", "times_s"), names[1:], strict=False):
        if len(names) == 3 and name in array.coords:
            axes_of_array[key] = array.coords[name].values
    if unit := array.attrs.get("unit", array.attrs.get("units")):
        axes_of_array["unit"] = unit
    return array.transpose(*names).values, pictures, axes_of_array


def warn_of_size(trials: Trials, where: str) -> None:
    """Warn of signals that are too large or small for their unit."""
    size, si_unit = UNIT_SIZES.get(trials.unit, (1.0, ""))
    if si_unit in KINDS:
        spread = float(np.median(np.std(trials.signal, -1))) * size
        if text := describe_size(KINDS[si_unit], spread):
            console.warn(f"{where}: {text}")


def cut_trials(
    signal: Any, times_s: Float64, rate_hz: float, steps: Steps, names: Iterable[str]
) -> tuple[Any, Cutting]:
    """Take the steps of a preparation with trials [n, C, T] that were cut before.

    Returns:
        [n, C, T'], neither filtered nor whitened, and the cutting that says its times.

    Raises:
        BrainhiveError: if the trials do not reach as far as `epoch_ms`.
    """
    cutting, (count, channels, samples) = Cutting(steps, rate_hz), signal.shape
    first = round(float(times_s[0]) * rate_hz)
    require_span(cutting, (first, first + samples - 1))
    onsets = np.arange(count) * samples - first
    rows = (np.ravel(signal[:, row]).astype(np.float64) for row in range(channels))
    return cutting.cut_trials(rows, [*names], onsets, 1.0), cutting


def require_span(cutting: Cutting, span: tuple[int, int]) -> None:
    """Refuse trials that begin or end within the window of `epoch_ms`.

    Raises:
        BrainhiveError: with both.
    """
    first, last = cutting.span
    if span[0] > first or span[1] < last:
        here = [round(sample * 1000 / cutting.recorded_hz, 3) for sample in span]
        raise BrainhiveError(
            f"the epochs go from {here[0]:g} to {here[1]:g} ms, and not over "
            f"{[*cutting.steps.epoch_ms]} ms",
            f"preparation.epoch_ms={here}, or cut longer epochs",
        )
