"""Files of recordings: subject and session of each, the tables next to it, and the
signals that mne reads.
"""

import csv
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from brainhive_cli.core.archives import verify_compressed
from brainhive_cli.core.arrays import Bool, Float64, Int64
from brainhive_cli.core.damage import is_of_the_machine
from brainhive_cli.core.errors import (
    BrainhiveError,
    Line,
    MissingData,
    MissingExtra,
    first_line,
    naming,
)
from brainhive_cli.core.files import (
    is_file,
    matches,
    read_regular,
    require_content,
    require_regular,
    walk,
)
from brainhive_cli.core.only_match import choose_only
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.files.bids_labels import (
    natural_key,
    number_session,
    number_sessions,
    number_subjects,
)
from brainhive_cli.data.files.ids import plain_name
from brainhive_cli.data.files.named_files import (
    SPLIT,
    find_next_part,
    list_further_parts,
    list_named_parts,
    require_own,
    require_own_parts,
)
from brainhive_cli.data.signals.cutting import Band, CausalFilter, refuse_high_edges
from brainhive_cli.data.signals.spaces import name_electrodes

ENDINGS = (".fif", ".fif.gz", ".edf", ".bdf", ".set", ".vhdr")
COMPANIONS = {".vhdr": (".eeg", ".vmrk"), ".set": (".fdt",)}
"""Companion files of a recording; a .set may hold its signal itself."""
LEADING = {".vmrk": ".vhdr", ".fdt": ".set"}
"""Ending of the recording to which a companion file belongs."""
OTHER_FORMATS = tuple(
    ".xdf .xdfz .cnt .mff .ds .gdf .egi .con .sqd .lay .nedf .trc .nwb .mat .edf.gz "
    ".bdf.gz .vhdr.gz".split()
)
"""Endings of recordings, files or folders, which are not read."""
PROCESSED = ("proc-", "desc-", "rec-", "split-")
"""Entities of BIDS that tell versions of one acquisition apart."""
SUFFIXES = {"eeg", "meg", "ieeg", "raw"}
"""Last parts of names that say the kind of a recording."""
NO_RECORDINGS = {*"derivatives sourcedata stimuli code".split()}
"""Folders of BIDS that hold no raw recordings."""
OTHER_FIF = re.compile(
    r".*(emptyroom|acq-(crosstalk|calibration)|ct_sparse).*"
    r"|.*[-_](epo|ave|trans|ica|cov|proj|eve|annot|dig|dip|info|src|bem|sol|fwd|inv)(-\d+)?\.fif(\.gz)?"
)
"""Names that mne, mne-bids and MaxFilter give to files of other things than
recordings.
"""
EPOCHS = re.compile(r".*[-_]epo(-\d+)?\.fif(\.gz)?|.*\.(set|fdt|npy|npz)")
"""Names of files of epochs: those that mne gives, of EEGLAB, and of arrays."""
SUBJECT = re.compile(
    r"(?<![^/_. ])sub(?:ject|j)?(?:[-_]?|-([a-z]+?)[-_]?)(\d+)", re.IGNORECASE
)
"""Subject in a path, at the start of a part of a name: `subset1` and `subliminal_01`
are none.
"""
LABEL_END = re.compile(r"(?!ses|run|task|acq)[A-Za-z0-9]*")
"""Rest of a subject's label behind its first number."""
UNNUMBERED = re.compile(r"\bsub-[A-Za-z]+(?=[_/.]|$)")
"""Label of a subject without a number."""
SESSION = re.compile(
    r"(?<![^/_. ])ses(?:sion|s)?(?:(?:[-_]?|-([a-z]+?)[-_]?)(\d+)([a-z]*)|-([a-z]+))",
    re.IGNORECASE,
)
MODALITY = re.compile(r"_(eeg|meg|ieeg)$")
RUN = re.compile(r"_run-0*(\d+)(?=[_.])")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""First bytes of text in UTF-16."""
ABSENT = ("", "n/a")
"""Entries of BIDS tables that say nothing."""
NO_VALUE = re.compile(r"^(n/?a|nan)$", re.IGNORECASE)
"""The same as R, pandas and EEGLAB write it."""
STIMULUS_COLUMNS = ("stim_file", "stimulus_id")
"""Columns of BIDS that name the picture of an event, the latter in its draft extension
44; in each row the first with an entry counts.
"""
ENTITIES = {"subject": "sub", "session": "ses", "task": "task", "run": "run"}
"""Entities of a file's name that a template of event names may hold, and their keys."""
FIELD = re.compile(r"(\{([^{}:]+):?([^{}]*?([bdoxX])?)\})")
"""Field of a template: its column or entity, Python's format, and the type of an
integer.
"""
WIDE = re.compile(r"\d{4,}")
"""Width in a field that takes more memory than any name has letters."""
VHDR_FILE = re.compile(
    r"^\s*(?:DataFile|MarkerFile)\s*[=:]\s*(?:\./)?(.*?)\s*$", re.I | re.M
)
DAMAGE = re.compile(
    r"does not match the file size|Omitted \d+ annotation|Invalid tag|truncated|corrupt"
)
"""Warnings of mne about a file that ends early."""
UNITS = {
    **dict.fromkeys(
        ("eeg", "ecog", "seeg", "dbs", "eog", "emg", "ecg", "misc"), (1e6, "µV")
    ),
    "mag": (1e15, "fT"),
    "grad": (1e13, "fT/cm"),
}
"""Factor from mne's unit of each type of channel, and the unit in which values are near
1 to 1000.
"""
# hint of every error about a damaged recording
AGAIN = "copy or export it again; a whole one that mne opens can be saved as .fif"
WAYS = {
    r"not seem to contain epochs": str(Line("prepare", ("from", "recording"))),
    r"number of trials is \d+": str(Line("prepare", ("from", "epochs"))),
    r"HDF reader|pymatreader": "it is of MATLAB 7.3: pip install pymatreader, or save "
    "it in EEGLAB with 'Save as v6' (pop_saveset(EEG, "
    "'version', '6'))",
    r"EDF\+D": (
        "export it without pauses; where there are none, mne opens it and saves it as "
        ".fif"
    ),
    r"Active Shielding": (
        "MaxFilter, or mne.preprocessing.maxwell_filter; then save it as .fif"
    ),
    r"Duplicate channel names|Channel mismatch|Missing channels|not in.*channel": (
        "correct its channels.tsv"
    ),
}
"""Ways out of what readers say, by a part of it, where the file is not damaged."""
PIECE_S = 0.1
"""Seconds without any change that no signal has, however coarse its numbers are."""
READ_BYTES = 2**29
"""Limit of signals in memory, unless one channel is more; each block of channels reads
all of the file.
"""


def list_recordings(
    root: Path,
    pattern: str,
    subject_numbers: Mapping[str, int] | None = None,
    sessions: Sequence[int | str] | None = None,
    are_epochs: bool = False,
) -> dict[int, dict[int, list[Path]]]:
    """List recordings below a folder by subject and session, those of a session in the
    order of their names.

    Args:
        root: The folder.
        pattern: Pattern of their paths.
        subject_numbers: The recipe's numbers of subjects by label.
        sessions: The recipe's sessions; None for all.
        are_epochs: Whether they are files of epochs, not of continuous signals.

    Raises:
        MissingData: if there is none, or none of a session.
        BrainhiveError: naming a file whose path does not say which subject's it is.
    """
    paths: Iterable[Path] = list_signal_files(root, pattern, are_epochs)
    session_numbers = None
    # labels of sessions are numbered over all files
    if sessions is not None:
        paths = [*paths]
        session_numbers = number_sessions(
            [read_session(path, root) for path in paths], sessions
        )
    recordings = group_by_session(root, paths, subject_numbers, session_numbers)
    if not recordings:
        # the other kind is named, as it may be all that was kept
        kinds = ["recording", "epochs"]
        wanted = kinds[are_epochs]
        other = kinds[not are_epochs]
        for path in list_signal_files(root, "*", not are_epochs):
            raise MissingData(
                f"{root} holds {other}, {path}, and no {wanted}",
                f"to read them: {Line('prepare', ('from', other))}",
            )
        if others := list_other_formats(root, pattern):
            raise MissingData(
                f"no {wanted} below {root} is in a format that is read; {others[0]} is "
                "not",
                "open it with mne (or pyxdf) and save it as .fif: raw.save('sub-01_raw"
                ".fif')",
            )
        endings = ("-epo.fif", ".set", ".npy", ".npz") if are_epochs else ENDINGS
        raise MissingData(
            f"no {wanted} {root}/**/{pattern} that ends in {', '.join(endings)}",
            f"preparation.root=FOLDER with sub-01_ses-01{endings[0]} …, or a BIDS data "
            "set; other formats that mne reads, it saves as .fif",
        )

    # two versions of a recording would count twice
    for listed in recordings.values():
        for paths_of_session in listed.values():
            _refuse_versions(root, paths_of_session)
    return recordings


def _refuse_versions(root: Path, paths: Sequence[Path]) -> None:
    """Refuse two files of one acquisition: they differ in their endings, or in entities
    of processing.
    """
    known: dict[tuple[str, ...], Path] = {}
    for path in paths:
        # the parts of folders and names, each once; run-1 and run-01 are one run
        *folders, name = path.relative_to(root).parts
        name = name.partition(".")[0]
        # sub-01_old beside sub-01 holds copies of the same names
        if SUBJECT.search(name):
            folders = [folder for folder in folders if not SUBJECT.match(folder)]
        text = re.sub(r"(?<=run-)0+(?=\d)", "", "_".join([*folders, name]).lower())
        entities = tuple(
            part
            for part in dict.fromkeys(text.split("_"))
            if part not in SUFFIXES and not part.startswith(PROCESSED)
        )
        # parts of a recording that do not name each other count by themselves
        other = known.setdefault(entities, path)
        splits = [SPLIT.findall(each.name) for each in (other, path)]
        if other != path and not (all(splits) and splits[0] != splits[1]):
            raise BrainhiveError(
                f"{other} and {path} are one recording, which would count as two",
                "preparation.files=PATTERN takes one of them, or move one out of "
                f"{root}; two runs are called run-1 and run-2",
            )


def list_signal_files(root: Path, pattern: str, are_epochs: bool) -> Iterator[Path]:
    """Yield the first file of each recording below a folder, run-10 behind run-9; or of
    epochs.
    """

    # files of recordings and their companions, without empty rooms, epochs, covariances
    # and the like
    def is_wanted(name: str) -> bool:
        if are_epochs:
            return EPOCHS.fullmatch(name) is not None
        return name.endswith((*ENDINGS, *LEADING)) and not OTHER_FIF.fullmatch(name)

    paths = [
        root / name
        for name, entry in walk(root, enters=lambda name: name not in NO_RECORDINGS)
        if is_wanted(name.rpartition("/")[2].lower()) and not entry.is_dir()
    ]
    # the first part of a recording, x.fif, before x-1.fif
    for path in sorted(
        paths, key=lambda path: natural_key(f"{path.parent}/{path.name.split('.')[0]}")
    ):
        # the file that mne opens: the header for a companion, the path itself for all
        # else
        header_path = path.with_suffix(LEADING.get(path.suffix.lower(), path.suffix))
        if not matches(header_path.as_posix(), pattern):
            continue

        # mne reads a part with the file that names it
        if any(find_next_part(other) == path for other in list_named_parts(path)):
            continue

        if header_path == path:
            yield path
        elif not os.path.lexists(header_path):
            raise MissingData(
                f"{path} is there, but not {header_path.name}",
                "copy it, or remove the rest of it",
            )


def list_other_formats(root: Path, pattern: str) -> list[Path]:
    """List recordings below a folder, files or folders, in `OTHER_FORMATS`."""
    names = [
        name
        for name, _ in walk(root, enters=lambda name: name not in NO_RECORDINGS)
        if name.lower().endswith(OTHER_FORMATS)
    ]
    return [root / name for name in sorted(names) if matches(f"{root}/{name}", pattern)]


def group_by_session(
    root: Path,
    paths: Iterable[Path],
    subject_numbers: Mapping[str, int] | None,
    session_numbers: Mapping[str, int] | None,
) -> dict[int, dict[int, list[Path]]]:
    """Group files or folders by the subject and session in their paths below a folder.

    Args:
        root: The folder.
        paths: Files or folders below it.
        subject_numbers: The recipe's numbers of subjects by label.
        session_numbers: Numbers of sessions by label, without those that are left out;
            None for the first number of each label.

    Raises:
        BrainhiveError: naming one whose path does not say which subject's it is, or two
            that clash.
    """
    # numbers of subjects depend on the labels of all paths together
    labels = {
        path: (read_label(path, root), read_session(path, root)) for path in paths
    }
    label_paths = dict[str, Path]()  # the first of each
    for path, (label, _) in labels.items():
        label_paths.setdefault(label, path)
    numbers = number_subjects(label_paths, subject_numbers or {})

    recordings: dict[int, dict[int, list[Path]]] = {}
    # label and first path by subject and session
    first_paths: dict[tuple[int, int], tuple[str, Path]] = {}
    for path, (label, name) in labels.items():
        # the session's number, 1 where the path has none
        session = (
            number_session(name)
            if session_numbers is None
            else session_numbers.get(name)
        )
        if session is None:
            continue
        first_name, first = first_paths.setdefault(
            (numbers[label], session), (name, path)
        )
        if first_name != name:
            raise BrainhiveError(
                f"{path} and {first} are of two sessions {session}",
                "rename one; or preparation.sessions=LABEL,LABEL numbers sessions in "
                "this order",
            )
        recordings.setdefault(numbers[label], {}).setdefault(session, []).append(path)
    return recordings


def read_session(path: Path, root: Path) -> str:
    """Read the label of the last session in a path below a folder: 01 of ses-01; empty
    where it has none.
    """
    sessions = SESSION.findall(path.as_posix().removeprefix(f"{root.as_posix()}/"))
    return "".join(sessions[-1]) if sessions else ""


def read_label(path: Path, root: Path) -> str:
    """Read the label of the subject in a path below a folder, as BIDS has it: sub-01 of
    Subject_01.

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
    raise BrainhiveError(
        f"{path} does not say whose it is", "name it sub-01_ses-01… or sub-01…"
    )


def describe_labels(
    files: Mapping[int, Mapping[int, Sequence[Path]]],
    root: Path,
    subjects: Sequence[int],
    subject_numbers: Mapping[str, int],
) -> list[str]:
    """Describe subjects and sessions whose labels are not their numbers, and labels
    without files.

    Args:
        files: Paths by subject and session.
        root: The folder that they are below.
        subjects: Those that are described.
        subject_numbers: The recipe's numbers of subjects by label.
    """
    labels = set[str]()
    lines = list[str]()
    sessions: dict[int, str] = {}
    for subject, session_paths in files.items():
        labels_of_files = dict.fromkeys(
            read_label(path, root) for paths in session_paths.values() for path in paths
        )
        # sub-07 is subject 7, and needs no line
        if subject in subjects and [
            label[4:].lstrip("0") for label in labels_of_files
        ] != [str(subject)]:
            lines.append(f"subject {subject} is {' and '.join(labels_of_files)}")
        labels |= labels_of_files.keys()
        sessions |= {
            number: read_session(paths[0], root)
            for number, paths in session_paths.items()
        }

    # labels of sessions that are not their numbers
    if renamed := [
        f"{n} is ses-{name}"
        for n, name in sorted(sessions.items())
        if name.lstrip("0") not in ("", str(n))
    ]:
        lines.append(f"session {', '.join(renamed)}")
    # labels that the recipe numbers, and no file has
    absent = sorted(subject_numbers.keys() - labels)
    lines += [f"no file is of {label}, which subject_numbers names" for label in absent]
    return lines


def files_of(path: Path) -> list[Path]:
    """List the files that are read of a recording: with its continuations, and the
    tables of BIDS next to it.

    Raises:
        MissingData: naming one without which it cannot be read.
    """
    require_content(path)
    if not path.stat().st_size:
        raise MissingData(f"{path} is empty", "copy or export it again")

    # signals and markers beside a header, and tables that say which events and channels
    # it has
    companions = map(path.with_suffix, COMPANIONS.get(path.suffix.lower(), ()))
    tables = (table_of(path, what) for what in ("events", "channels"))
    return [
        path,
        *filter(is_file, companions),
        *list_further_parts(path),
        *filter(None, tables),
    ]


def tables_of(path: Path, what: str, ending: str = ".tsv") -> list[Path]:
    """Name the events.tsv or channels.tsv next to a recording: as it is called, and
    last as in BIDS.
    """
    stem = path.name.partition(".")[0]
    unsplit = SPLIT.sub("", stem)
    return [
        path.with_name(f"{name}_{what}{ending}")
        for name in (stem, unsplit, MODALITY.sub("", unsplit))
    ]


def table_of(path: Path, what: str, ending: str = ".tsv") -> Path | None:
    """Find the events.tsv or channels.tsv of a recording; None if there is none.

    It lies next to the recording; or, as BIDS has it, in a folder above up to the root
    of the data set, and has entities of the recording alone: the nearest one counts, of
    one folder that with most entities.
    """
    table = next(filter(is_file, tables_of(path, what, ending)), None)
    if table is not None:
        return table
    root = bids_root(path)
    if root is None:
        return None
    entities = {*path.name.partition(".")[0].split("_")}
    for folder in [*path.parents][: len(path.relative_to(root).parts)]:
        parts = {
            table: {*table.name.removesuffix(f"{what}{ending}").split("_")} - {""}
            for table in folder.glob(f"*{what}{ending}")
            if is_file(table)
        }
        if fitting := [table for table in parts if parts[table] <= entities]:
            return max(fitting, key=lambda table: len(parts[table]))
    return None


def bids_root(path: Path) -> Path | None:
    """Find the root of the BIDS data set that a recording lies in; None where it lies
    in none.
    """
    # not the nearest folder; the outermost data set counts
    folders = reversed(list(path.parents)[1:5])
    named = (each for each in folders if (each / "dataset_description.json").is_file())
    return next(named, None)


def is_read_as_bids(path: Path, has_bids_onsets: bool) -> bool:
    """Whether mne-bids opens a recording, unless onsets in its tables are not
    BIDS's.
    """
    return (
        has_bids_onsets and path.name.startswith("sub-") and bids_root(path) is not None
    )


def read_number(text: object) -> float:
    """Read a number that anyone may have written; NaN where there is none."""
    try:
        return float(str(text))
    except ValueError:
        return np.nan


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table with a header line: .tsv, or .csv with commas or semicolons; NA and
    NaN are read as n/a.

    Spreadsheets write UTF-8, UTF-16, or Windows-1252, and may name the separator in a
    first line `sep=;`.

    Raises:
        BrainhiveError: if it is no such table, a line has other cells than the header,
            or two different columns have one name.
    """
    try:
        content = read_regular(path)
        # UTF-16 with its mark, UTF-8 with or without one, else Windows-1252
        try:
            text = content.decode("utf-16" if content[:2] in UTF_16 else "utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252")
        text = re.sub(r"\Asep=.\r?\n", "", text)

        # of a .csv the most frequent separator of the first line counts
        first = text.partition("\n")[0]
        separator = max("\t;,", key=first.count) if path.suffix != ".tsv" else "\t"
        file = StringIO(text, newline="")
        lines = [*csv.reader(file, delimiter=separator, strict=True)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BrainhiveError(
            f"{path} is no table: {first_line(error)}",
            'save it as CSV in UTF-8, where " within a cell is written twice',
        ) from error

    # cells of each line; blank ones at its end have no name
    names = [name.strip() for name in lines[0]] if lines else []
    rows = []
    for number, line in enumerate(lines[1:], 2):
        cells = [NO_VALUE.sub("n/a", cell.strip()) for cell in line]
        if not any(cells) and len(cells) < len(names):
            continue  # a blank line
        if any(names[len(cells) :]) or any(cells[len(names) :]):
            raise BrainhiveError(
                f"{path}, line {number} has {len(cells)} cells, its first line "
                f"{len(names)}",
                "write as many, n/a where there is no value",
            )
        rows.append(cells)

    # a name may stand over several columns, if these are equal
    columns: dict[str, dict[str, list[str]]] = {}
    for index, name in enumerate(names):
        if name:
            column = [cells[index] for cells in rows]
            label = f"column {index + 1} ({', '.join(column[:2])} …)"
            columns.setdefault(name, {})[label] = column
    way = "rename one of the columns, or take it out"
    chosen = [
        choose_only(readings, f"{path}: {name}", way) or []
        for name, readings in columns.items()
    ]
    return [*columns], [
        dict(zip(columns, cells, strict=True)) for cells in zip(*chosen, strict=True)
    ]


def find_absent(template: str, known: Sequence[str]) -> str:
    """Find the first column that a template of event names needs and a table lacks;
    empty where there is none. A column alone is a template, too, and a broken one is no
    column; the empty one needs any of `STIMULUS_COLUMNS`.
    """
    if not template:
        return " or ".join(STIMULUS_COLUMNS) * {*STIMULUS_COLUMNS}.isdisjoint(known)
    names = [name for _, name, *_ in FIELD.findall(template)]
    if not names or {*"{}"} & {*FIELD.sub("", template)}:
        names = [template]
    return next((name for name in names if name not in known), "")


def name_events(
    table: Path,
    columns: Sequence[str],
    rows: Sequence[dict[str, str]],
    template: str,
    recording: Path,
) -> str:
    """Name the event of each row of an events.tsv, in a column that is added.

    Args:
        table: Its file.
        columns: Its columns.
        rows: Its rows.
        template: A column; text with columns and `ENTITIES` in braces, as
            `stim-{task}{number:05d}`; or empty for the first of `STIMULUS_COLUMNS` that
            has an entry in the row.
        recording: The file that the table describes.

    Returns:
        The column of the names, n/a in rows that lack a value.

    Raises:
        BrainhiveError: if the template is broken, or does not fit the table.
    """
    # entities of the file's name count where no column has their name
    parts = dict(re.findall(r"(?<![^_])([a-z]+)-([^_.]+)", recording.name))
    entities = {name: parts[key] for name, key in ENTITIES.items() if key in parts}
    way = f"it has: {', '.join(columns)}"
    if absent := find_absent(template, [*entities, *columns]):
        raise BrainhiveError(f"{table} has no column {absent}", way)
    if not template:
        template = " or ".join(filter(columns.__contains__, STIMULUS_COLUMNS))
        for row in rows:
            entries = [row.get(name, "") for name in STIMULUS_COLUMNS]
            row[template] = next((e for e in entries if e not in ABSENT), "n/a")
        return template

    # an integer may have zeros or a point: 00013, 13.0
    fields = FIELD.findall(template)
    for line, row in enumerate(rows if fields else (), 2):
        values = entities | row
        name = template
        try:
            for field, column, spec, integer in fields:
                value = values[column]
                if value in ABSENT:
                    name = "n/a"
                    break
                if WIDE.search(spec):
                    raise ValueError("a width of more than 999 letters")
                number = int(plain_name(value)) if integer else value
                name = name.replace(field, format(number, spec))
        except ValueError as error:
            raise BrainhiveError(
                f"{table}, line {line}: no {template}: {error}", way
            ) from error
        row[template] = name
    return template


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn any error of a reader of a foreign format into MissingData or MissingExtra,
    with its way out.
    """
    try:
        yield
    except Exception as error:
        # our own errors have hints; errors of the machine are not the file's fault
        if isinstance(error, BrainhiveError) or is_of_the_machine(error):
            raise
        way = next(
            (way for part, way in WAYS.items() if re.search(part, str(error))), AGAIN
        )
        kind = MissingExtra if isinstance(error, ImportError) else MissingData
        raise kind(f"{path} cannot be read: {first_line(error)}", way) from error


@contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """Refuse a file that ends early, which mne opens with a warning.

    Raises:
        MissingData: naming it.
    """
    with (
        warnings.catch_warnings(record=True) as warned,
        redirect_stdout(StringIO()),  # where mne logs
    ):
        warnings.simplefilter("always")
        with readable(path):
            verify_compressed(path)
        yield
    for warning in warned:
        message = str(warning.message)
        if DAMAGE.search(message):
            reason = first_line(warning.message)  # type: ignore[arg-type]
            raise MissingData(f"{path} is damaged: {reason}", AGAIN)


def require_own_content(path: Path) -> None:
    """Refuse a recording that is no plain file, and one in .fif or HDF5 (MATLAB 7.3)
    that names other files than its own.

    Raises:
        ValueError, UnfitFile: naming the file.
        BrainhiveError: if it is a file of another recording.
    """
    require_regular(path)
    if path.name.lower().endswith((".fif", ".fif.gz")):
        require_own_parts(path)
    elif h5py.is_hdf5(path):
        with hdf5.open_unlocked(path) as file:
            hdf5.refuse_other_files(file, has_datasets=True)


def open_raw(
    path: Path,
    has_bids_onsets: bool = True,
    rename: Mapping[str, str] | None = None,
    cap: str = "",
) -> Any:
    """Open a recording with mne, and mne-bids in a BIDS data set unless its onsets are
    not BIDS's.

    Signals stay on disk. The checksum of a .fif.gz is compared first, since mne reads
    parts of the file. Channels get names and positions by `name_electrodes`.

    Raises:
        MissingData: if it cannot be read, ends early, or names files outside its
            folder.
        MissingExtra: if mne needs another package for its format.
    """
    import mne

    with refusing_damage(path), readable(path):
        if path.suffix.lower() == ".vhdr":
            for name in VHDR_FILE.findall(read_regular(path).decode("latin-1")):
                # markers that are not there mne looks for by the name of the recording
                if not name.lower().endswith(".vmrk") or (path.parent / name).exists():
                    require_own(path, name)
        require_own_content(path)
        if path.suffix.lower() in (".edf", ".bdf"):
            with path.open("rb") as file:
                # mne would read the samples as if there were no pauses, and events by
                # the clock
                if file.read(256)[192:197] in (b"EDF+D", b"BDF+D"):
                    raise ValueError(
                        "it is of type EDF+D, with pauses between its records"
                    )
        if is_read_as_bids(path, has_bids_onsets):
            import mne_bids

            bids_path = mne_bids.get_bids_path_from_fname(path)
            raw = mne_bids.read_raw_bids(
                bids_path, on_ch_mismatch="reorder", verbose="WARNING"
            )
        else:
            raw = mne.io.read_raw(path, preload=False, verbose="WARNING")

        # the signals must lie next to the header, and belong to no other recording
        for part in (Path(name or path) for name in raw.filenames):
            folder = part.parent.resolve()
            # DataLad's files are links into its own folder
            if folder not in (path.parent.resolve(), path.resolve().parent):
                raise ValueError(f"its signals are in another folder, {folder}")
            require_own(path, part.name)

    with readable(path):
        name_electrodes(raw, path, rename or {}, cap)
    return raw


class StillPieces:
    """Pieces of a recording in which channels do not change at all, as those of an
    amplifier at its limit.

    Args:
        samples: Samples of the recording.
        rate_hz: Its sampling rate.
    """

    def __init__(self, samples: int, rate_hz: float) -> None:
        self._size = max(2, round(PIECE_S * rate_hz))
        # channels that stand still
        self._counts = np.zeros(samples // self._size, np.int64)

    def add(self, row: Float64) -> None:
        """Add a channel [samples]."""
        # [pieces, samples]
        pieces = row[: len(self._counts) * self._size].reshape(-1, self._size)
        self._counts += (pieces == pieces[:, :1]).all(1)

    def are_still(self, onsets: Int64, span: tuple[int, int], channels: int) -> Bool:
        """Mark the trials [n] in most of which most channels stand still."""
        # sums over pieces in which most channels stand still, by which spans are
        # counted
        sums = np.concatenate([[0], np.cumsum(self._counts > channels / 2)])
        first, last = ((onsets + at) // self._size for at in span)
        last = np.maximum(last, first + 1).clip(max=len(self._counts))
        return sums[last] - sums[first] > (last - first) / 2


def read_channels(
    raw: Any,
    path: Path,
    names: Sequence[str],
    band_hz: Band,
    phase: str,
    breaks: Iterable[tuple[int, int]],
    pieces: StillPieces,
) -> Iterator[Float64]:
    """Read channels one after the other, in the unit of `UNITS`, and filter them.

    Args:
        raw: As mne opened it.
        path: Its file, for errors.
        names: Those that are read, in order.
        band_hz: Lower and upper edge of a filter; None where there is none.
        phase: `zero`, or `forward`: causal.
        breaks: Breaks of the recording, as of `Header`.
        pieces: To which each channel is added before it is filtered.

    Raises:
        MissingData: if they cannot be read.
    """
    rate_hz = float(raw.info["sfreq"])
    with naming(path):
        refuse_high_edges(band_hz, rate_hz)
    scales = [
        UNITS.get(kind, (1.0, ""))[0] for kind in raw.get_channel_types(list(names))
    ]

    # as many channels at a time as fit into READ_BYTES in float64
    step = max(1, READ_BYTES // (8 * int(raw.n_times)))
    for start in range(0, len(names), step):
        with readable(path):
            # [channels, samples]
            block = raw.get_data(picks=list(names[start : start + step]))
        for row, scale in zip(block, scales[start:], strict=False):
            pieces.add(row)
            yield filter_samples(row * scale, rate_hz, band_hz, phase, breaks)
        del block, row  # gone before the next is read


def filter_samples(
    samples: Float64,
    rate_hz: float,
    band_hz: Band,
    phase: str,
    breaks: Iterable[tuple[int, int]] = (),
) -> Float64:
    """Filter the samples [n] of one channel as `read_channels` does.

    Each stretch between breaks, and between samples that were lost (NaN), is filtered
    by itself, as mne does it.
    """
    from mne.filter import filter_data

    if band_hz == (None, None):
        return samples
    is_gap = ~np.isfinite(samples)
    edges = {0, len(samples)}
    for low, high in breaks:
        is_gap[max(0, low) : max(0, high)] = True
        edges |= {low, high}
    edges |= {*(1 + np.flatnonzero(np.diff(is_gap))).tolist()}
    filtered = samples.copy()
    for start, stop in pairwise(
        sorted(edge for edge in edges if 0 <= edge <= len(samples))
    ):
        if is_gap[start]:
            continue
        stretch = samples[start:stop]
        if phase == "forward":
            filtered[start:stop] = CausalFilter(band_hz, rate_hz)(stretch)
            continue
        # an offset would ring where a stretch is shorter than the filter
        offset = stretch.mean()
        filtered[start:stop] = filter_data(
            stretch - offset, rate_hz, *band_hz, verbose="ERROR"
        ) + (0 if band_hz[0] else offset)
    return filtered
