"""Files of recordings, listed below a folder and grouped by session."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from brainhive_cli.core.errors import (
    BrainhiveError,
    Line,
    MissingData,
)
from brainhive_cli.core.files import (
    is_file,
    matches_pattern,
    require_content,
    walk,
)
from brainhive_cli.data.files.bids_labels import (
    natural_key,
    number_sessions,
)
from brainhive_cli.data.files.named_files import (
    SPLIT,
    find_next_part,
    list_further_parts,
    list_named_parts,
)
from brainhive_cli.data.recordings.labels import (
    SUBJECT_LABEL,
    group_by_session,
    read_session,
)
from brainhive_cli.data.recordings.tables import find_sidecar

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
RUN = re.compile(r"_run-0*(\d+)(?=[_.])")


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
        if SUBJECT_LABEL.search(name):
            folders = [folder for folder in folders if not SUBJECT_LABEL.match(folder)]
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
        if not matches_pattern(header_path.as_posix(), pattern):
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
    return [
        root / name
        for name in sorted(names)
        if matches_pattern(f"{root}/{name}", pattern)
    ]


def list_recording_files(path: Path) -> list[Path]:
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
    tables = (find_sidecar(path, what) for what in ("events", "channels"))
    return [
        path,
        *filter(is_file, companions),
        *list_further_parts(path),
        *filter(None, tables),
    ]
