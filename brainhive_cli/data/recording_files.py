"""Files of recordings: subject and session of each, and the channels, events and signals that mne reads."""

import csv
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.archives import verify_compressed
from brainhive_cli.core.damage import is_of_the_machine
from brainhive_cli.core.errors import BrainhiveError, MissingData, MissingExtra, first_line, naming
from brainhive_cli.core.files import MAX_NAME_BYTES, matches, read_regular, require_regular_siblings, walk
from brainhive_cli.data.bids_labels import number_session, number_sessions, number_subjects
from brainhive_cli.data.electrodes import Cap
from brainhive_cli.data.signals.cutting import CausalFilter, refuse_high_edges

ENDINGS = (".fif", ".fif.gz", ".edf", ".bdf", ".set", ".vhdr")
COMPANIONS = {".vhdr": (".eeg", ".vmrk"), ".set": (".fdt",)}
"""Companion files that a recording needs; a .set may hold its signal itself."""
LEADING = {".vmrk": ".vhdr", ".fdt": ".set"}
"""Ending of the recording to which a companion file belongs."""
NO_RECORDINGS = {"derivatives", "sourcedata", "stimuli", "code"}
"""Folders of BIDS that hold no raw recordings."""
OTHER_FIF = re.compile(
    r".*(emptyroom|acq-(crosstalk|calibration)|ct_sparse).*"
    r"|.*[-_](epo|ave|trans|ica|cov|proj|eve|annot|dig|dip|info|src|bem|sol|fwd|inv)(-\d+)?\.fif(\.gz)?"
)
"""Names that mne, mne-bids and MaxFilter give to files of other things than recordings."""
SUBJECT = re.compile(r"(?<![a-z])sub(?:ject|j)?[-_]?([a-z]*?)[-_]?(\d+)", re.IGNORECASE)
LABEL_END = re.compile(r"(?!ses|run|task|acq)[A-Za-z0-9]*")
"""Rest of a subject's label behind its first number."""
UNNUMBERED = re.compile(r"\bsub-[A-Za-z]+(?=[_/.]|$)")
"""Label of a subject without a number."""
SESSION = re.compile(r"(?<![a-z])ses(?:sion|s)?(?:[-_]?([a-z]*?)[-_]?(\d+)([a-z]*)|-([a-z]+))", re.IGNORECASE)
SPLIT = re.compile(r"_split-\d+(?=_|$)")
MODALITY = re.compile(r"_(eeg|meg|ieeg)$")
RUN = re.compile(r"_run-0*(\d+)(?=_)")
ABSENT = ("", "n/a")
"""Entries of BIDS tables that say nothing."""
NO_VALUE = re.compile(r"^(n/?a|nan)$", re.IGNORECASE)
"""The same as R, pandas and EEGLAB write it."""
CONTINUED = re.compile(r"(.+)(?:_split-(?!0*1_)\d+(_.+)?|-\d+)\.fif(?:\.gz)?")
"""The further files of a recording in several, which mne reads with the first."""


BAD = re.compile(r"(bad|edge).*", re.IGNORECASE | re.DOTALL)
"""Annotations of spans of which no trial is taken."""
CUT = re.compile(r"boundary|new segment/.*", re.IGNORECASE)
"""Annotations of EEGLAB and BrainVision where a recording was interrupted, or samples were cut out."""
VHDR_FILE = re.compile(r"^\s*(?:DataFile|MarkerFile)\s*[=:]\s*(?:\./)?(.*?)\s*$", re.I | re.M)
FIF_NEXT_FILE = 118
"""FIFF_REF_FILE_NAME: the tag of a .fif that names the next file of a recording."""
FIF_FILE = re.compile(r"REF_FILE_NAME \(.*?\)\s+= (.*?)(?: \.\.\. str len=\d+)?$", re.MULTILINE)
DAMAGE = re.compile(r"does not match the file size|Omitted \d+ annotation|Invalid tag|truncated|corrupt")
"""Warnings of mne about a file that ends early."""
UNITS = {
    **dict.fromkeys(("eeg", "ecog", "seeg", "dbs", "eog", "emg", "ecg", "misc"), (1e6, "µV")),
    **{"mag": (1e15, "fT"), "grad": (1e13, "fT/cm")},
}
"""Factor from mne's unit of each type of channel, and the unit in which values are near 1 to 1000."""
# hint of every error about a damaged recording
AGAIN = "copy or export it again; a whole one that mne opens can be saved as .fif"
STRETCHES = 12
"""Seconds of a recording of which channels' variances are measured."""
READ_BYTES = 2**29
"""Limit of signals in memory, unless one channel is more; each block of channels reads all of the file."""


def list_recordings(
    root: Path,
    pattern: str,
    subject_numbers: Mapping[str, int] | None = None,
    sessions: Sequence[int | str] | None = None,
) -> dict[int, dict[int, list[Path]]]:
    """List recordings below a folder by subject and session, those of a session in the order of their names.

    Args:
        root: The folder.
        pattern: Pattern of their paths.
        subject_numbers: The recipe's numbers of subjects by label.
        sessions: The recipe's sessions; None for all.

    Raises:
        MissingData: if there is none, or none of a session.
        BrainhiveError: naming a file whose path does not say which subject's it is.
    """
    paths: Iterable[Path] = _list_recording_files(root, pattern)
    session_numbers = None
    if sessions is not None:
        paths = [*paths]
        session_numbers = number_sessions([read_session(path, root) for path in paths], sessions)
    recordings = group_by_session(root, paths, subject_numbers, session_numbers)
    if not recordings:
        problem = f"no recording {root}/**/{pattern} that ends in {', '.join(ENDINGS)}"
        raise MissingData(problem, "preparation.root=FOLDER with sub-01_ses-01.fif …, or a BIDS data set")
    return recordings


def _list_recording_files(root: Path, pattern: str) -> Iterator[Path]:
    """Yield the first file of each recording below a folder, run-10 behind run-9."""
    # files of recordings and their companions, without empty rooms, epochs, covariances and the like
    paths = []
    for name, entry in walk(root, enters=lambda name: name not in NO_RECORDINGS):
        file_name = name.rpartition("/")[2].lower()
        if entry.is_dir() or not file_name.endswith((*ENDINGS, *LEADING)):
            continue
        if not OTHER_FIF.fullmatch(file_name):
            paths.append(root / name)
    # sort digits as numbers
    paths.sort(key=lambda path: [(text, int(n or 0)) for text, n in re.findall(r"(\D*)(\d*)", str(path))])

    for path in paths:
        # the file that mne opens: the header for a companion, the path itself for all else
        header_path = path.with_suffix(LEADING.get(path.suffix.lower(), path.suffix))
        if not matches(header_path.as_posix(), pattern):
            continue

        # mne reads the further files of a recording with its first
        if match := CONTINUED.fullmatch(path.name):
            firsts = [path.with_name(f"{match[1]}{end}") for end in (".fif", ".fif.gz")]
            if "_split-" in path.name or any(first.is_file() for first in firsts):
                continue

        if header_path == path:
            yield path
        elif not os.path.lexists(header_path):
            problem = f"{path} is there, but not {header_path.name}"
            raise MissingData(problem, "copy it, or remove the rest of it")


def group_by_session(
    root: Path,
    paths: Iterable[Path],
    subject_numbers: Mapping[str, int] | None = None,
    session_numbers: Mapping[str, int] | None = None,
) -> dict[int, dict[int, list[Path]]]:
    """Group files or folders by the subject and session in their paths below a folder.

    Args:
        root: The folder.
        paths: Files or folders below it.
        subject_numbers: The recipe's numbers of subjects by label.
        session_numbers: Numbers of sessions by label, without those that are left out; None for the first
            number of each label.

    Raises:
        BrainhiveError: naming one whose path does not say which subject's it is, or two that clash.
    """
    labels = {path: (read_label(path, root), read_session(path, root)) for path in paths}
    label_paths = dict[str, Path]()  # the first of each
    for path, (label, _) in labels.items():
        label_paths.setdefault(label, path)
    numbers = number_subjects(label_paths, subject_numbers or {})

    recordings: dict[int, dict[int, list[Path]]] = {}
    named: dict[tuple[int, int], tuple[str, Path]] = {}  # label and first path by subject and session
    for path, (label, name) in labels.items():
        # the session's number, 1 where the path has none
        session = number_session(name) if session_numbers is None else session_numbers.get(name)
        if session is None:
            continue
        first_name, first = named.setdefault((numbers[label], session), (name, path))
        if first_name != name:
            problem = f"{path} and {first} are of two sessions {session}"
            patterns = ",".join(dict.fromkeys(re.sub(r"\d+$", "*", name) for _, name in labels.values()))
            way = f"'preparation.sessions={patterns}' numbers them in this order"
            raise BrainhiveError(problem, way if re.search("[a-z]", patterns) else "rename one")
        recordings.setdefault(numbers[label], {}).setdefault(session, []).append(path)
    return recordings


def read_session(path: Path, root: Path) -> str:
    """Read the label of the last session in a path below a folder: 01 of ses-01; empty where it has none."""
    sessions = SESSION.findall(path.as_posix().removeprefix(f"{root.as_posix()}/"))
    return "".join(sessions[-1]) if sessions else ""


def read_label(path: Path, root: Path) -> str:
    """Read the label of the subject in a path below a folder, as BIDS has it: sub-01 of Subject_01.

    Raises:
        BrainhiveError: if the path does not say whose it is.
    """
    # the last subject in the path counts, with what follows its number: 07A
    relative_path = path.as_posix().removeprefix(f"{root.as_posix()}/")
    for match in reversed([*SUBJECT.finditer(relative_path)]):
        end = LABEL_END.match(relative_path, match.end())
        return f"sub-{match[1] or ''}{match[2]}{end[0] if end else ''}"
    if unnumbered := UNNUMBERED.search(relative_path):
        return unnumbered[0]
    raise BrainhiveError(f"{path} does not say whose it is", "name it sub-01_ses-01… or sub-01…")


def describe_labels(
    files: Mapping[int, Mapping[int, Sequence[Path]]],
    root: Path,
    subjects: Sequence[int],
    subject_numbers: Mapping[str, int],
) -> list[str]:
    """Describe subjects and sessions whose labels are not their numbers, and labels without files.

    Args:
        files: Paths by subject and session.
        root: The folder that they are below.
        subjects: Those that are described.
        subject_numbers: The recipe's numbers of subjects by label.
    """
    labels, lines = set[str](), list[str]()
    sessions: dict[int, str] = {}
    for subject, session_paths in files.items():
        own = dict.fromkeys(read_label(path, root) for paths in session_paths.values() for path in paths)
        if subject in subjects and [label[4:].lstrip("0") for label in own] != [str(subject)]:
            lines.append(f"subject {subject} is {' and '.join(own)}")
        labels |= own.keys()
        sessions |= {number: read_session(paths[0], root) for number, paths in session_paths.items()}
    named = [(n, name) for n, name in sorted(sessions.items()) if name.lstrip("0") not in ("", str(n))]
    lines += [f"session {', '.join(f'{n} is ses-{name}' for n, name in named)}"] if named else []
    absent = sorted(subject_numbers.keys() - labels)
    return lines + [f"no file is of {label}, which subject_numbers names" for label in absent]


def files_of(path: Path) -> list[Path]:
    """List the files that are read of a recording: with its continuations, and the tables of BIDS next to it.

    Raises:
        MissingData: naming one without which it cannot be read.
    """
    if not path.is_file():
        raise MissingData(f"{path} is a link to a file that is not there", f"datalad get {path}, or copy it")
    if not path.stat().st_size:
        raise MissingData(f"{path} is empty", "copy or export it again")

    # a BrainVision header is nothing without its signals and markers
    companions = [path.with_suffix(ending) for ending in COMPANIONS.get(path.suffix.lower(), ())]
    for companion in companions:
        if companion.suffix != ".fdt" and not companion.is_file():
            problem = f"{path} is there, but not {companion.name}"
            raise MissingData(problem, "a BrainVision recording is 3 files")

    # the further files of a .fif, in the two ways that mne names them
    further: list[Path] = []
    if path.name.endswith((".fif", ".fif.gz")):
        stem, ending = os.path.splitext(path.name)
        if SPLIT.search(path.name):
            names = (SPLIT.sub(f"_split-{number:02d}", path.name) for number in count(2))
        else:
            names = (f"{stem}-{number}{ending}" for number in count(1))
        further = [*takewhile(Path.is_file, map(path.with_name, names))]

    tables = (table_of(path, what) for what in ("events", "channels"))
    return [path, *filter(Path.is_file, companions), *further, *filter(None, tables)]


def tables_of(path: Path, what: str) -> list[Path]:
    """Name the events.tsv or channels.tsv next to a recording: as it is called, and last as in BIDS."""
    stem = path.name.partition(".")[0]
    unsplit = SPLIT.sub("", stem)
    return [path.with_name(f"{name}_{what}.tsv") for name in (stem, unsplit, MODALITY.sub("", unsplit))]


def table_of(path: Path, what: str) -> Path | None:
    """Find the events.tsv or channels.tsv next to a recording; None if there is none."""
    return next(filter(Path.is_file, tables_of(path, what)), None)


MAX_OVERLAP = 10
"""Intervals between events that an event may last; blocks overlap little, milliseconds a hundredfold."""
MS_DURATIONS = "durations longer than ten intervals between events: in ms, where BIDS has s"
"""Warning of a table of events."""


@dataclass(frozen=True)
class Header:
    """Content of a recording, apart from its signals.

    Attributes:
        names: [C] names of the channels.
        types: [C] types of the channels as mne names them.
        bad: Names of the channels that were marked as bad.
        positions: [C, 3] in metres; NaN where they are not known.
        rate_hz: Samples a second.
        filtered_hz: Lower and upper edge of filters of earlier programs and of the amplifier.
        samples: Number of samples.
        events: Sample and description of each event; neither BAD nor an interruption.
        bad_spans: First and last sample, and description, of each BAD annotation and interruption.
        events_from: Source of the events, in words.
        variances: [C] in mne's units, within a few stretches of a second over all of the recording.
        without_onset: Descriptions of events whose row of the events.tsv says `n/a` for the onset.
    """

    names: tuple[str, ...]
    types: tuple[str, ...]
    bad: tuple[str, ...]
    positions: NDArray[np.float64]
    rate_hz: float
    filtered_hz: tuple[float, float]
    samples: int
    events: tuple[tuple[int, str], ...]
    bad_spans: tuple[tuple[int, int, str], ...]
    events_from: str
    variances: NDArray[np.float64]
    without_onset: tuple[str, ...] = ()

    def find_bad_span(self, onset: int, span: tuple[int, int]) -> str:
        """Describe the first of the bad spans that a trial overlaps; empty if none does.

        Args:
            onset: Sample of the trial's onset.
            span: First and last sample of the trial, from its onset.
        """
        first, last = onset + span[0], onset + span[1]
        return next((text for low, high, text in self.bad_spans if low <= last and first <= high), "")


def read_header(
    path: Path, column: str, stim_channel: str, onset_unit: str = "s", cap: Cap | None = None
) -> Header:
    """Read the content of a recording, apart from its signals.

    Args:
        path: The file.
        column: Of its events.tsv, that describes events; empty: `stim_file` if it has one.
        stim_channel: The channel that codes events; empty: of a recording without annotations, any.
        onset_unit: Of the onsets in its events.tsv, `s` or `ms`.
        cap: What is known of its electrodes.

    Raises:
        MissingData: if it is damaged.
        BrainhiveError: if it has no events.
    """
    raw = open_raw(path, onset_unit == "s", cap)
    with _readable(path):
        # annotations: events, spans without trials, and interruptions
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

        # variances within stretches of a second, evenly over the recording
        length = min(int(raw.n_times), max(2, round(rate_hz)))
        starts = np.unique(np.linspace(0, raw.n_times - length, STRETCHES).astype(int)).tolist()
        with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite are refused in trials
            stretches = [raw.get_data(start=start, stop=start + length).var(axis=1) for start in starts]
            variances = np.asarray(np.mean(stretches, axis=0), np.float64)  # [C]

        # mne writes zeros where a position is not known
        positions = np.array([channel["loc"][:3] for channel in raw.info["chs"]], np.float64)  # [C, 3]
        return Header(
            tuple(raw.ch_names),
            tuple(raw.get_channel_types()),
            tuple(raw.info["bads"]),
            np.where(np.any(positions, axis=1, keepdims=True), positions, np.nan),
            rate_hz,
            (float(raw.info["highpass"] or 0), float(raw.info["lowpass"] or rate_hz / 2)),
            int(raw.n_times),
            tuple(sorted((at, text) for at, text in events if at is not None)),
            (*spans, *interruptions),
            source,
            variances,
            tuple(text for at, text in events if at is None),
        )


def _find_events(
    raw: Any,
    path: Path,
    annotated: list[tuple[int, str]],
    column: str,
    stim_channel: str,
    onset_unit: str,
) -> tuple[Sequence[tuple[int | None, str]], str]:
    """Find sample and description of each event in a table, `annotated` or a channel; and name the source."""
    # the events.tsv, if it has the column
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

    # annotations, unless the recipe names a stimulus channel
    channel_types = zip(raw.ch_names, raw.get_channel_types(), strict=True)
    stimulus = [name for name, channel_type in channel_types if channel_type == "stim"]
    if stim_channel and stim_channel not in raw.ch_names:
        hint = f"its stimulus channels: {', '.join(stimulus) or 'none'}"
        raise BrainhiveError(f"{path} has no channel {stim_channel}", hint)
    if annotated and not stim_channel:
        return annotated, "annotations"

    # each change of a stimulus channel to a code
    if chosen := stim_channel or next(iter(stimulus), ""):
        codes = np.rint(raw.get_data(picks=[raw.ch_names.index(chosen)])[0]).astype(np.int64)
        changes = np.flatnonzero(np.diff(codes, prepend=0) != 0)  # mne's own would lose one at sample 0
        if events := [(int(at), str(codes[at])) for at in changes if codes[at]]:
            return events, f"channel {chosen}"
        further = ", ".join(name for name in stimulus if name != chosen)
        raise BrainhiveError(
            f"{path}: the stimulus channel {chosen} has no events",
            f"preparation.stim_channel={f'NAME, of {further}' if further else 'NAME'}; "
            f"or write {_table_for(path)}",
        )
    problem = f"{path} has no events: no annotations, no stimulus channel, and no events.tsv next to it"
    raise BrainhiveError(problem, f"write {_table_for(path)}")


def _table_for(path: Path, column: str = "stim_file", unit: str = "s") -> str:
    return f"{tables_of(path, 'events')[-1].name} with columns onset ({unit}) and {column}"


def _list_rows(
    path: Path, rows: list[dict[str, str]], column: str, rate_hz: float, unit: str
) -> list[tuple[int | None, str]]:
    """List sample (None without an onset) and description of events; rows without the latter are left out."""
    per_unit = rate_hz / 1000 if unit == "ms" else rate_hz  # samples
    described = [row for row in rows if row[column] not in ABSENT]
    try:
        return [
            (None if row["onset"] in ABSENT else round(float(row["onset"]) * per_unit), row[column])
            for row in described
        ]
    except (KeyError, ValueError, OverflowError) as error:  # of an infinite one
        problem = f"{path} has no onset in {unit} in each row: {error}"
        raise BrainhiveError(problem, "fix the table") from error


def durations_are_ms(onsets_s: NDArray[np.float64], durations_s: NDArray[np.float64]) -> bool:
    """Whether events last MAX_OVERLAP intervals between them, as where a table has milliseconds.

    Args:
        onsets_s: [n] onsets within one run.
        durations_s: [n] durations; NaN where a row has none.
    """
    intervals_s, durations_s = np.diff(np.unique(onsets_s)), durations_s[np.isfinite(durations_s)]
    if not (len(intervals_s) and len(durations_s)):
        return False
    return bool(np.median(durations_s) > MAX_OVERLAP * np.median(intervals_s))


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table with a header line: .tsv, or .csv with commas or semicolons; NA and NaN are read as n/a.

    Raises:
        BrainhiveError: if it is no such table.
    """
    try:
        # of a .csv the most frequent separator of the first line counts
        text = read_regular(path).decode("utf-8-sig")
        first = text.partition("\n")[0]
        separator = max("\t;,", key=first.count) if path.suffix != ".tsv" else "\t"
        reader = csv.DictReader(text.splitlines(), delimiter=separator, strict=True)
        rows = [
            {key: NO_VALUE.sub("n/a", (value or "").strip()) for key, value in row.items() if key}
            for row in reader
        ]
        if match := re.search(r"[\0-\x08]", text):
            raise csv.Error(f"line {text.count(chr(10), 0, match.start()) + 1} has a control character")
    except (UnicodeDecodeError, csv.Error, AttributeError) as error:
        problem = f"{path} is no table in UTF-8: {first_line(error)}"
        raise BrainhiveError(problem, "save it as CSV in UTF-8") from error
    return [name for name in reader.fieldnames or [] if name], rows


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn any error of a reader of a foreign format into MissingData or MissingExtra."""
    try:
        yield
    except ImportError as error:  # as of a .set of MATLAB 7.3
        raise MissingExtra(f"{path}: {first_line(error)}", "pip install pymatreader") from error
    except Exception as error:
        if isinstance(error, BrainhiveError) or is_of_the_machine(error):
            raise
        raise MissingData(f"{path} cannot be read: {first_line(error)}", AGAIN) from error


def _check_before_mne(path: Path) -> None:
    """Refuse a recording that names a file outside its folder, or claims channels that it does not list.

    A BrainVision header names its signals and markers, a .fif the next file of the recording.
    """
    import mne

    named: list[str] = []
    if path.suffix.lower() == ".vhdr":
        # mne would make room for all channels that a header claims
        header = read_regular(path).decode("latin-1")
        named = VHDR_FILE.findall(header)
        channels = re.search(r"NumberOfChannels\s*[=:]\s*(\d{1,20})", header)
        if channels and int(channels[1]) > header.count("\n"):  # each has a line
            raise ValueError(f"it says that it has {int(channels[1]):,} channels, and does not list them")
    elif path.name.endswith((".fif", ".fif.gz")):
        tags = mne.io.show_fiff(path, tag=FIF_NEXT_FILE, max_str=MAX_NAME_BYTES, verbose="ERROR")
        named = FIF_FILE.findall(tags)
    if outside := [name for name in named if name in ("", ".", "..") or re.search(r"[/\\\0]", name)]:
        raise ValueError(f"it names a file outside its folder, {outside[0]!r}")


def open_raw(path: Path, has_bids_onsets: bool = True, cap: Cap | None = None) -> Any:
    """Open a recording with mne, and mne-bids in a BIDS data set unless its onsets are not BIDS's.

    Signals stay on disk. The checksum of a .fif.gz is compared first, since mne reads parts of the file. With
    a cap, names and positions of channels are those that it gives.

    Raises:
        MissingData: if it cannot be read, ends early, or names files outside its folder.
        MissingExtra: if mne needs another package for its format.
    """
    import mne

    # the root of the BIDS data set, if there is one: no file outside it is read
    roots = [folder for folder in list(path.parents)[1:5] if (folder / "dataset_description.json").is_file()]
    is_bids = bool(roots)
    require_regular_siblings(path, roots[-1] if roots else path.parent)

    with (
        warnings.catch_warnings(record=True) as warned,
        redirect_stdout(StringIO()),  # where mne logs
        _readable(path),
    ):
        warnings.simplefilter("always")
        verify_compressed(path)
        _check_before_mne(path)
        if is_bids and has_bids_onsets and path.name.startswith("sub-"):
            import mne_bids

            raw = mne_bids.read_raw_bids(mne_bids.get_bids_path_from_fname(path), verbose="WARNING")
        else:
            raw = mne.io.read_raw(path, preload=False, verbose="WARNING")

        # the signals must lie next to the header
        folders = {Path(file).parent.resolve() for file in raw.filenames if file}
        here = {path.parent.resolve(), path.resolve().parent}  # DataLad's files are links into its own folder
        if outside := folders - here:
            raise ValueError(f"its signals are in another folder, {outside.pop()}")

    # mne opens a file that ends early, and warns
    for warning in warned:
        if DAMAGE.search(str(warning.message)):
            raise MissingData(f"{path} is damaged: {first_line(warning.message)}", AGAIN)  # type: ignore[arg-type]
    if cap is not None:
        with _readable(path):
            cap.put_on(raw, path)
    return raw


def read_channels(
    raw: Any, path: Path, names: Sequence[str], band_hz: tuple[float | None, float | None], phase: str
) -> Iterator[NDArray[np.float64]]:
    """Read channels one after the other, in the unit of `UNITS`, and filter them.

    Args:
        raw: As mne opened it.
        path: Its file, for errors.
        names: Those that are read, in order.
        band_hz: Lower and upper edge of a filter; None where there is none.
        phase: `zero`, or `forward`: causal.

    Raises:
        MissingData: if they cannot be read.
    """
    with naming(path):
        refuse_high_edges(band_hz, float(raw.info["sfreq"]))
    scales = [UNITS.get(kind, (1.0, ""))[0] for kind in raw.get_channel_types(list(names))]

    # as many channels at a time as fit into READ_BYTES in float64
    step = max(1, READ_BYTES // (8 * int(raw.n_times)))
    for start in range(0, len(names), step):
        with _readable(path):
            block = raw.get_data(picks=list(names[start : start + step]))  # [channels, samples]
        for row, scale in zip(block, scales[start:], strict=False):
            yield filter_samples(row * scale, raw.info["sfreq"], band_hz, phase)
        del block, row  # gone before the next is read


def filter_samples(
    samples: NDArray[np.float64], rate_hz: float, band_hz: tuple[float | None, float | None], phase: str
) -> NDArray[np.float64]:
    """Filter the samples [n] of one channel as `read_channels` does."""
    from mne.filter import filter_data

    if band_hz == (None, None):
        return samples
    if phase == "forward":
        return CausalFilter(band_hz, rate_hz)(samples)
    return np.asarray(filter_data(samples, rate_hz, *band_hz, verbose="ERROR"))
