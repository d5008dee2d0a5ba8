"""Recordings that mne reads: which files are whose, and what each holds, channel by channel."""

import csv
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError, MissingData, MissingExtra, first_line

ENDINGS = (".fif", ".fif.gz", ".edf", ".bdf", ".set", ".vhdr")
COMPANIONS = {".vhdr": (".eeg", ".vmrk"), ".set": (".fdt",)}
"""Files without which one cannot be read; a .set may hold its signal itself."""
NO_RECORDINGS = {"derivatives", "sourcedata", "stimuli", "code"}
"""Folders of BIDS that hold no raw recordings."""
SUBJECT = re.compile(r"(?<![a-z])sub(?:ject|j)?[-_]?([a-z]*?)[-_]?(\d+)", re.IGNORECASE)
SESSION = re.compile(r"(?<![a-z])ses(?:sion|s)?(?:[-_]?([a-z]*?)[-_]?(\d+)([a-z]*)|-([a-z]+))", re.IGNORECASE)
SPLIT = re.compile(r"_split-\d+(?=_|$)")
MODALITY = re.compile(r"_(eeg|meg|ieeg)$")
BAD = re.compile(r"(bad|edge).*", re.IGNORECASE | re.DOTALL)
"""Annotations of spans of which no trial is taken."""
CUT = re.compile(r"boundary|new segment/.*", re.IGNORECASE)
"""Annotations of EEGLAB and BrainVision where a recording was interrupted, or samples were cut out."""
CONTINUED = re.compile(r"(.+)(?:_split-(?!0*1_)\d+(_.+)?|-\d+)\.fif(?:\.gz)?")
"""The further files of a recording in several, which mne reads with the first."""
DAMAGE = re.compile(r"does not match the file size|Omitted \d+ annotation|Invalid tag|truncated|corrupt")
"""What mne warns of where a file ends early."""
UNITS = {
    **dict.fromkeys(("eeg", "ecog", "seeg", "dbs", "eog", "emg", "ecg", "misc"), (1e6, "µV")),
    **{"mag": (1e15, "fT"), "grad": (1e13, "fT/cm")},
}
"""Factor from mne's unit of each type of channel, and the unit in which values are near 1 to 1000."""
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


def listed(root: Path, pattern: str) -> dict[int, dict[int, list[Path]]]:
    """List recordings below a folder by subject and session, those of a session in the order of their names.

    Raises:
        MissingData: if there is none.
        BrainhiveError: naming a file whose path does not say which subject's it is.
    """
    found: dict[int, dict[int, list[Path]]] = {}
    labels: dict[int, str] = {}
    named: dict[tuple[int, int], tuple[str, Path]] = {}
    for path in sorted(_below(root), key=_natural):
        if not path.match(pattern) or _is_continuation(path):
            continue
        place = path.relative_to(root).as_posix()
        subjects = list(SUBJECT.finditer(place))
        if not subjects:
            raise BrainhiveError(f"{path} does not say whose it is", "name it sub-01_ses-01… or sub-01…")
        label, subject = subjects[-1][1].lower(), int(subjects[-1][2])
        if labels.setdefault(subject, label) != label:
            raise BrainhiveError(
                f"{path} is of another subject {subject} than sub-{labels[subject]}{subject}", "rename one"
            )
        session, name = _session(place)
        first_name, first = named.setdefault((subject, session), (name, path))
        if first_name != name:
            raise BrainhiveError(
                f"{path} and {first} are of two sessions {session}", "number them: ses-01, ses-02"
            )
        found.setdefault(subject, {}).setdefault(session, []).append(path)
    if not found:
        raise MissingData(
            f"no recording {root}/**/{pattern} that ends in {', '.join(ENDINGS)}",
            "preparation.root=FOLDER with sub-01_ses-01.fif …, or a BIDS data set",
        )
    return found


def _session(place: str) -> tuple[int, str]:
    """Find the number of a session in a path, 1 where there is none, and the letters of its label."""
    if not (found := list(SESSION.finditer(place))):
        return 1, ""
    before, number, after, letters = (text or "" for text in found[-1].groups())
    return int(number or 1), f"{before}{after}{letters}".lower()


def _below(root: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if name not in NO_RECORDINGS and not name.startswith(".")]
        yield from (
            Path(here, name)
            for name in files
            if name.lower().endswith(ENDINGS) and "emptyroom" not in name and not name.startswith(".")
        )


def _natural(path: Path) -> list[tuple[str, int]]:
    """Sort run-10 behind run-9."""
    return [(text, int(each or 0)) for text, each in re.findall(r"(\D*)(\d*)", str(path))]


def _is_continuation(path: Path) -> bool:
    match = CONTINUED.fullmatch(path.name)
    is_first_there = match and any(
        path.with_name(f"{match[1]}{end}").is_file() for end in (".fif", ".fif.gz")
    )
    return bool(match and ("_split-" in path.name or is_first_there))


def files_of(path: Path) -> list[Path]:
    """List the files that are read of a recording.

    Raises:
        MissingData: naming one without which it cannot be read.
    """
    others = [path.with_suffix(ending) for ending in COMPANIONS.get(path.suffix.lower(), ())]
    for other in others:
        if other.suffix != ".fdt" and not other.is_file():
            raise MissingData(f"{path} is there, but not {other.name}", "a BrainVision recording is 3 files")
    table = events_table(path)
    return [path, *filter(Path.is_file, others), *([table] if table else [])]


def events_table(path: Path) -> Path | None:
    """Find the events.tsv next to a recording, called as in BIDS; None if there is none."""
    stem = path.name.partition(".")[0]
    whole = SPLIT.sub("", stem)
    places = [path.with_name(f"{name}_events.tsv") for name in (stem, whole, MODALITY.sub("", whole))]
    return next(filter(Path.is_file, places), None)


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
    onsets = np.rint((raw.annotations.onset - raw.first_time) * raw.info["sfreq"]).astype(np.int64).tolist()
    annotated = list(
        zip(onsets, raw.annotations.duration, map(str, raw.annotations.description), strict=True)
    )
    spans = [
        (start, start + round(float(length_s) * raw.info["sfreq"]), text)
        for start, length_s, text in annotated
        if BAD.fullmatch(text)
    ]
    # EEGLAB gives a boundary the length of what was cut out; the first segment begins with the recording
    spans += [(at, at, text) for at, _, text in annotated if CUT.fullmatch(text) and at > 0]
    plain = [(at, text) for at, _, text in annotated if not (BAD.fullmatch(text) or CUT.fullmatch(text))]
    events, source = _events(raw, path, plain, column, stim_channel, onset_unit)
    places = np.array([channel["loc"][:3] for channel in raw.info["chs"]], np.float64)
    return Header(
        tuple(raw.ch_names),
        tuple(raw.get_channel_types()),
        tuple(raw.info["bads"]),
        np.where(np.any(places, axis=1, keepdims=True), places, np.nan),
        float(raw.info["sfreq"]),
        int(raw.n_times),
        tuple(sorted(events)),
        tuple(spans),
        source,
    )


def _events(
    raw: Any,
    path: Path,
    annotated: list[tuple[int, str]],
    column: str,
    stim_channel: str,
    onset_unit: str,
) -> tuple[list[tuple[int, str]], str]:
    table = events_table(path)
    if column and table is None:
        raise MissingData(f"{path} has no events.tsv with a column {column}", "preparation.column=")
    if table is not None and not stim_channel:
        columns, rows = read_table(table)
        if (column or "stim_file") in columns:
            return _of_table(table, rows, column or "stim_file", raw.info["sfreq"], onset_unit), table.name
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
        if found := _of_channel(raw, chosen):
            return found, f"channel {chosen}"
        raise BrainhiveError(
            f"{path}: the stimulus channel {chosen} has no events", "preparation.stim_channel="
        )
    raise BrainhiveError(
        f"{path} has no events: no annotations, no stimulus channel, and no events.tsv next to it",
        f"write {path.name.partition('.')[0]}_events.tsv with columns onset (s) and stim_file",
    )


def _of_table(
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


def _of_channel(raw: Any, channel: str) -> list[tuple[int, str]]:
    """Find where the codes of a stimulus channel begin."""
    codes = np.rint(raw.get_data(picks=[channel])[0]).astype(np.int64)
    changes = np.flatnonzero(np.diff(codes, prepend=0) != 0)  # mne's own would lose one at sample 0
    return [(int(at), str(codes[at])) for at in changes if codes[at]]


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table with a header line: .tsv, or .csv with commas or semicolons.

    Raises:
        MissingData: if there is none.
        BrainhiveError: if it is no such table.
    """
    if not path.is_file():
        raise MissingData(f"no table {path}", "preparation.events=FILE.csv, with columns event and picture")
    try:
        text = path.read_text("utf-8-sig")
        first = text.partition("\n")[0]
        separator = max("\t;,", key=first.count) if path.suffix != ".tsv" else "\t"
        reader = csv.DictReader(text.splitlines(), delimiter=separator, strict=True)
        rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    except (UnicodeDecodeError, csv.Error, AttributeError) as error:
        raise BrainhiveError(f"{path} is no table in UTF-8: {first_line(error)}", "save it as CSV") from error
    return [name for name in reader.fieldnames or [] if name], rows


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
    is_bids = any((folder / "dataset_description.json").is_file() for folder in list(path.parents)[1:5])
    again = "copy or export it again; a whole one that mne opens can be saved as .fif"
    with warnings.catch_warnings(record=True) as warned, redirect_stdout(StringIO()):  # mne logs to stdout
        warnings.simplefilter("always")
        try:
            if is_bids and has_bids_onsets and path.name.startswith("sub-"):
                import mne_bids

                raw = mne_bids.read_raw_bids(mne_bids.get_bids_path_from_fname(path), verbose="WARNING")
            else:
                raw = mne.io.read_raw(path, preload=False, verbose="WARNING")
        except ImportError as error:  # as of a .set of MATLAB 7.3
            raise MissingExtra(f"{path}: {first_line(error)}", "pip install 'brainhive[raw]'") from error
        except Exception as error:  # of any reader of a foreign format
            raise MissingData(f"{path} cannot be read: {first_line(error)}", again) from error
    for each in warned:
        if DAMAGE.search(str(each.message)):
            raise MissingData(f"{path} is damaged: {first_line(each.message)}", again)  # type: ignore[arg-type]
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
            try:
                block = self.raw.get_data(picks=list(self.names[index : index + step]))
            except Exception as error:  # of any reader of a foreign format
                raise MissingData(
                    f"{self.path} cannot be read: {first_line(error)}", "copy or export it again"
                ) from error
            self._first, self._block = index, block
        samples: NDArray[np.float64] = self._block[index - self._first] * self._scales[index]
        if self.band_hz == (None, None):
            return samples
        from mne.filter import filter_data

        filtered: NDArray[np.float64] = filter_data(
            samples, self.raw.info["sfreq"], *self.band_hz, verbose="ERROR"
        )
        return filtered
