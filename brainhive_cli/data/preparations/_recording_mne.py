"""Recordings that mne reads: what each holds, its events, and its signals channel by channel."""

import csv
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.damage import is_of_the_machine
from brainhive_cli.core.errors import BrainhiveError, MissingData, MissingExtra, first_line
from brainhive_cli.core.files import read_regular, require_regular_siblings
from brainhive_cli.data.preparations._recording_files import table_of, tables_of

BAD = re.compile(r"(bad|edge).*", re.IGNORECASE | re.DOTALL)
"""Annotations of spans of which no trial is taken."""
CUT = re.compile(r"boundary|new segment/.*", re.IGNORECASE)
"""Annotations of EEGLAB and BrainVision where a recording was interrupted, or samples were cut out."""
DAMAGE = re.compile(r"does not match the file size|Omitted \d+ annotation|Invalid tag|truncated|corrupt")
"""What mne warns of where a file ends early."""
UNITS = {
    **dict.fromkeys(("eeg", "ecog", "seeg", "dbs", "eog", "emg", "ecg", "misc"), (1e6, "µV")),
    **{"mag": (1e15, "fT"), "grad": (1e13, "fT/cm")},
}
"""Factor from mne's unit of each type of channel, and the unit in which values are near 1 to 1000."""
AGAIN = "copy or export it again; a whole one that mne opens can be saved as .fif"
STRETCHES = 12
"""Seconds of a recording of which channels' variances are measured."""
READ_BYTES = 2**29
"""Of signals that are read at a time, at most, unless one channel is more: each time reads the whole file."""


@dataclass(frozen=True)
class Header:
    """What a recording holds, apart from its signals.

    Attributes:
        names: [C] of its channels.
        types: [C] as mne names them.
        bad: Names of those that were marked as bad.
        positions: [C, 3] in metres; NaN where they are not known.
        rate_hz: Samples a second.
        samples: How many there are.
        events: Sample and description of each; neither BAD nor an interruption.
        bad_spans: First and last sample, and description, of each BAD annotation and interruption.
        events_from: Where the events are from, in words.
        variances: [C] in mne's units, within some stretches of a second over the whole recording.
    """

    names: tuple[str, ...]
    types: tuple[str, ...]
    bad: tuple[str, ...]
    positions: NDArray[np.float64]
    rate_hz: float
    samples: int
    events: tuple[tuple[int, str], ...]
    bad_spans: tuple[tuple[int, int, str], ...]
    events_from: str
    variances: NDArray[np.float64]


def read_header(path: Path, column: str, stim_channel: str, onset_unit: str = "s") -> Header:
    """Read what a recording holds, apart from its signals.

    Args:
        path: The file.
        column: Of its events.tsv, that describes events; empty: `stim_file` if it has one.
        stim_channel: The channel that codes events; empty: of a recording without annotations, any.
        onset_unit: Of the onsets in its events.tsv, `s` or `ms`.

    Raises:
        MissingData: if it is damaged.
        BrainhiveError: if it has no events.
    """
    raw = open_raw(path, onset_unit == "s")
    with _readable(path):
        rate_hz = float(raw.info["sfreq"])
        onsets = np.rint((raw.annotations.onset - raw.first_time) * rate_hz).astype(np.int64).tolist()
        texts = map(str, raw.annotations.description)
        plain: list[tuple[int, str]] = []
        spans: list[tuple[int, int, str]] = []
        interruptions: list[tuple[int, int, str]] = []
        for at, length_s, text in zip(onsets, raw.annotations.duration, texts, strict=True):
            if BAD.fullmatch(text):
                spans.append((at, at + round(float(length_s) * rate_hz), text))
            elif not CUT.fullmatch(text):
                plain.append((at, text))
            elif at > 0:  # the first segment begins with the recording
                interruptions.append((at, at, text))  # EEGLAB gives a boundary the length of what was cut out
        events, source = _find_events(raw, path, plain, column, stim_channel, onset_unit)
        places = np.array([channel["loc"][:3] for channel in raw.info["chs"]], np.float64)
        return Header(
            tuple(raw.ch_names),
            tuple(raw.get_channel_types()),
            tuple(raw.info["bads"]),
            np.where(np.any(places, axis=1, keepdims=True), places, np.nan),
            rate_hz,
            int(raw.n_times),
            tuple(sorted(events)),
            (*spans, *interruptions),
            source,
            _sample_variances(raw),
        )


def _sample_variances(raw: Any) -> NDArray[np.float64]:
    """Measure the variance of each channel within stretches of a second, evenly over a recording: [C]."""
    length = min(int(raw.n_times), max(2, round(raw.info["sfreq"])))
    starts = np.unique(np.linspace(0, raw.n_times - length, STRETCHES).astype(int)).tolist()
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # values that are not finite are refused when trials are cut
        variances = [raw.get_data(start=start, stop=start + length).var(axis=1) for start in starts]
        return np.asarray(np.mean(variances, axis=0), np.float64)


def _find_events(
    raw: Any,
    path: Path,
    annotated: list[tuple[int, str]],
    column: str,
    stim_channel: str,
    onset_unit: str,
) -> tuple[list[tuple[int, str]], str]:
    """Find sample and description of each event in a table, `annotated` or a channel; and say in which."""
    table = table_of(path, "events")
    if column and table is None:
        hint = f"write {_table_for(path, column, onset_unit)}, or read annotations: \"preparation.column=''\""
        raise MissingData(f"{path} has no events.tsv with a column {column}", hint)
    if table is not None and not stim_channel:
        columns, rows = read_table(table)
        if (column or "stim_file") in columns:
            return _list_rows(table, rows, column or "stim_file", raw.info["sfreq"], onset_unit), table.name
        if column:
            raise BrainhiveError(f"{table} has no column {column}", f"it has: {', '.join(columns)}")
    stimulus = [
        name for name, kind in zip(raw.ch_names, raw.get_channel_types(), strict=True) if kind == "stim"
    ]
    if stim_channel and stim_channel not in raw.ch_names:
        hint = f"its stimulus channels: {', '.join(stimulus) or 'none'}"
        raise BrainhiveError(f"{path} has no channel {stim_channel}", hint)
    if annotated and not stim_channel:
        return annotated, "annotations"
    if chosen := stim_channel or next(iter(stimulus), ""):
        codes = np.rint(raw.get_data(picks=[chosen])[0]).astype(np.int64)
        changes = np.flatnonzero(np.diff(codes, prepend=0) != 0)  # mne's own would lose one at sample 0
        if events := [(int(at), str(codes[at])) for at in changes if codes[at]]:
            return events, f"channel {chosen}"
        others = ", ".join(name for name in stimulus if name != chosen)
        raise BrainhiveError(
            f"{path}: the stimulus channel {chosen} has no events",
            f"preparation.stim_channel={f'NAME, of {others}' if others else 'NAME'}; "
            f"or write {_table_for(path)}",
        )
    raise BrainhiveError(
        f"{path} has no events: no annotations, no stimulus channel, and no events.tsv next to it",
        f"write {_table_for(path)}",
    )


def _table_for(path: Path, column: str = "stim_file", unit: str = "s") -> str:
    return f"{tables_of(path, 'events')[-1].name} with columns onset ({unit}) and {column}"


def _list_rows(
    path: Path, rows: list[dict[str, str]], column: str, rate_hz: float, unit: str
) -> list[tuple[int, str]]:
    per_unit = rate_hz / 1000 if unit == "ms" else rate_hz
    try:
        return [
            (round(float(row["onset"]) * per_unit), row[column])
            for row in rows
            if row[column] not in ("", "n/a")
        ]
    except (KeyError, ValueError, OverflowError) as error:  # of an infinite one
        raise BrainhiveError(
            f"{path} has no onset in {unit} in each row: {error}", "fix the table"
        ) from error


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table with a header line: .tsv, or .csv with commas or semicolons.

    Raises:
        BrainhiveError: if it is no such table.
    """
    try:
        text = read_regular(path).decode("utf-8-sig")
        first = text.partition("\n")[0]
        separator = max("\t;,", key=first.count) if path.suffix != ".tsv" else "\t"
        reader = csv.DictReader(text.splitlines(), delimiter=separator, strict=True)
        rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    except (UnicodeDecodeError, csv.Error, AttributeError) as error:
        raise BrainhiveError(
            f"{path} is no table in UTF-8: {first_line(error)}", "save it as CSV in UTF-8"
        ) from error
    return [name for name in reader.fieldnames or [] if name], rows


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever a reader of a foreign format raises into one error."""
    try:
        yield
    except ImportError as error:  # as of a .set of MATLAB 7.3
        raise MissingExtra(f"{path}: {first_line(error)}", "pip install 'brainhive[raw]'") from error
    except Exception as error:
        if isinstance(error, BrainhiveError) or is_of_the_machine(error):
            raise
        raise MissingData(f"{path} cannot be read: {first_line(error)}", AGAIN) from error


def open_raw(path: Path, has_bids_onsets: bool = True) -> Any:
    """Open a recording with mne, and mne-bids in a BIDS data set unless its onsets are not BIDS's.

    Signals stay on disk.

    Raises:
        MissingData: if it cannot be read, or ends early.
        MissingExtra: if mne is not there.
    """
    try:
        import mne
    except ImportError as error:
        raise MissingExtra("reading recordings needs mne", "pip install 'brainhive[raw]'") from error
    roots = [folder for folder in list(path.parents)[1:5] if (folder / "dataset_description.json").is_file()]
    is_bids = bool(roots)
    require_regular_siblings(path, roots[-1] if roots else path.parent)
    with (
        warnings.catch_warnings(record=True) as warned,
        redirect_stdout(StringIO()),  # where mne logs
        _readable(path),
    ):
        warnings.simplefilter("always")
        if is_bids and has_bids_onsets and path.name.startswith("sub-"):
            import mne_bids

            raw = mne_bids.read_raw_bids(mne_bids.get_bids_path_from_fname(path), verbose="WARNING")
        else:
            raw = mne.io.read_raw(path, preload=False, verbose="WARNING")
    for warning in warned:
        if DAMAGE.search(str(warning.message)):
            raise MissingData(f"{path} is damaged: {first_line(warning.message)}", AGAIN)  # type: ignore[arg-type]
    return raw


@dataclass
class Channels:
    """Reads channels of a recording, several at a time, in the unit of `UNITS`, and filters them.

    Attributes:
        raw: As mne opened it.
        names: Those that are read, in order.
        band_hz: Lower and upper edge of a filter; None where there is none.
    """

    raw: Any
    path: Path
    names: Sequence[str]
    band_hz: tuple[float | None, float | None]

    def __post_init__(self) -> None:
        """Start with nothing read."""
        self._first, self._block = 0, np.empty((0, 0))
        self._scales = [
            UNITS.get(kind, (1.0, ""))[0] for kind in self.raw.get_channel_types(list(self.names))
        ]

    def __call__(self, index: int) -> NDArray[np.float64]:
        """Return the samples of a channel.

        Raises:
            MissingData: if they cannot be read.
        """
        if not self._first <= index < self._first + len(self._block):
            step = max(1, READ_BYTES // (8 * int(self.raw.n_times)))
            self._block = np.empty((0, 0))  # gone before the next is read
            with _readable(self.path):
                block = self.raw.get_data(picks=list(self.names[index : index + step]))
            self._first, self._block = index, block
        samples: NDArray[np.float64] = self._block[index - self._first] * self._scales[index]
        if self.band_hz == (None, None):
            return samples
        from mne.filter import filter_data

        filtered: NDArray[np.float64] = filter_data(
            samples, self.raw.info["sfreq"], *self.band_hz, verbose="ERROR"
        )
        return filtered
