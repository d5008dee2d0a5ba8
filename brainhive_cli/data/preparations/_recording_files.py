"""Files of recordings below a folder: which are whose, and what each is read together with."""

import os
import re
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path

from brainhive_cli.core.errors import BrainhiveError, MissingData

ENDINGS = (".fif", ".fif.gz", ".edf", ".bdf", ".set", ".vhdr")
COMPANIONS = {".vhdr": (".eeg", ".vmrk"), ".set": (".fdt",)}
"""Files without which one cannot be read; a .set may hold its signal itself."""
LEADING = {".vmrk": ".vhdr", ".fdt": ".set"}
"""Which file is read together with one."""
NO_RECORDINGS = {"derivatives", "sourcedata", "stimuli", "code"}
"""Folders of BIDS that hold no raw recordings."""
OTHER_FIF = re.compile(
    r".*(emptyroom|acq-(crosstalk|calibration)|ct_sparse).*"
    r"|.*[-_](epo|ave|trans|ica|cov|proj|eve|annot|dig|dip|info|src|bem|sol|fwd|inv)(-\d+)?\.fif(\.gz)?"
)
"""What mne, mne-bids and MaxFilter call files of other things than recordings."""
SUBJECT = re.compile(r"(?<![a-z])sub(?:ject|j)?[-_]?([a-z]*?)[-_]?(\d+)", re.IGNORECASE)
SESSION = re.compile(r"(?<![a-z])ses(?:sion|s)?(?:[-_]?([a-z]*?)[-_]?(\d+)([a-z]*)|-([a-z]+))", re.IGNORECASE)
SPLIT = re.compile(r"_split-\d+(?=_|$)")
MODALITY = re.compile(r"_(eeg|meg|ieeg)$")
CONTINUED = re.compile(r"(.+)(?:_split-(?!0*1_)\d+(_.+)?|-\d+)\.fif(?:\.gz)?")
"""The further files of a recording in several, which mne reads with the first."""


def list_recordings(root: Path, pattern: str) -> dict[int, dict[int, list[Path]]]:
    """List recordings below a folder by subject and session, those of a session in the order of their names.

    Raises:
        MissingData: if there is none.
        BrainhiveError: naming a file whose path does not say which subject's it is.
    """
    recordings: dict[int, dict[int, list[Path]]] = {}
    labels: dict[int, str] = {}
    named: dict[tuple[int, int], tuple[str, Path]] = {}
    for path in sorted(_below(root), key=_natural):
        whole = path.with_suffix(LEADING.get(path.suffix.lower(), path.suffix))
        if not whole.match(pattern) or _is_continuation(path):
            continue
        if whole != path:
            if not os.path.lexists(whole):
                raise MissingData(
                    f"{path} is there, but not {whole.name}", "copy it, or remove the rest of it"
                )
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
        recordings.setdefault(subject, {}).setdefault(session, []).append(path)
    if not recordings:
        raise MissingData(
            f"no recording {root}/**/{pattern} that ends in {', '.join(ENDINGS)}",
            "preparation.root=FOLDER with sub-01_ses-01.fif …, or a BIDS data set",
        )
    return recordings


def _session(place: str) -> tuple[int, str]:
    """Find the number of a session in a path, 1 where there is none, and the letters of its label."""
    if not (matches := list(SESSION.finditer(place))):
        return 1, ""
    before, number, after, letters = (text or "" for text in matches[-1].groups())
    return int(number or 1), f"{before}{after}{letters}".lower()


def _below(root: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if name not in NO_RECORDINGS and not name.startswith(".")]
        yield from (
            Path(here, name)
            for name in files
            if name.lower().endswith((*ENDINGS, *LEADING))
            and not OTHER_FIF.fullmatch(name.lower())
            and not name.startswith(".")
        )


def _natural(path: Path) -> list[tuple[str, int]]:
    """Sort run-10 behind run-9."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", str(path))]


def _is_continuation(path: Path) -> bool:
    match = CONTINUED.fullmatch(path.name)
    is_first_there = match and any(
        path.with_name(f"{match[1]}{end}").is_file() for end in (".fif", ".fif.gz")
    )
    return bool(match and ("_split-" in path.name or is_first_there))


def files_of(path: Path) -> list[Path]:
    """List the files that are read of a recording: with its continuations, and the tables of BIDS next to it.

    Raises:
        MissingData: naming one without which it cannot be read.
    """
    if not path.is_file():
        raise MissingData(f"{path} is a link to a file that is not there", f"datalad get {path}, or copy it")
    if not path.stat().st_size:
        raise MissingData(f"{path} is empty", "copy or export it again")
    companions = [path.with_suffix(ending) for ending in COMPANIONS.get(path.suffix.lower(), ())]
    for companion in companions:
        if companion.suffix != ".fdt" and not companion.is_file():
            raise MissingData(
                f"{path} is there, but not {companion.name}", "a BrainVision recording is 3 files"
            )
    tables = (table_of(path, what) for what in ("events", "channels"))
    return [path, *filter(Path.is_file, companions), *_continuations(path), *filter(None, tables)]


def _continuations(path: Path) -> Iterator[Path]:
    """List the further files of a recording in several, in the two ways that mne names them."""
    if not path.name.endswith((".fif", ".fif.gz")):
        return iter(())
    stem, ending = os.path.splitext(path.name)
    if SPLIT.search(path.name):
        names = (SPLIT.sub(f"_split-{number:02d}", path.name) for number in count(2))
    else:
        names = (f"{stem}-{number}{ending}" for number in count(1))
    return takewhile(Path.is_file, map(path.with_name, names))


def tables_of(path: Path, what: str) -> list[Path]:
    """Name the events.tsv or channels.tsv next to a recording: as it is called, and last as in BIDS."""
    stem = path.name.partition(".")[0]
    whole = SPLIT.sub("", stem)
    return [path.with_name(f"{name}_{what}.tsv") for name in (stem, whole, MODALITY.sub("", whole))]


def table_of(path: Path, what: str) -> Path | None:
    """Find the events.tsv or channels.tsv next to a recording; None if there is none."""
    return next(filter(Path.is_file, tables_of(path, what)), None)
