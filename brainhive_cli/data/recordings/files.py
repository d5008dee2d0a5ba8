"""Files of recordings below a folder."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from brainhive_cli.core.base import Line, MissingData
from brainhive_cli.core.files import is_file, matches_pattern, require_content, walk
from brainhive_cli.data.files import (
    find_label,
    find_next_part,
    group_by_session,
    list_further_parts,
    list_named_parts,
    natural_key,
    number_sessions,
    read_label,
    read_session,
    summarise_names,
)
from brainhive_cli.data.recordings.tables import find_sidecar

RECORDING_ENDINGS = (".fif", ".fif.gz", ".edf", ".bdf", ".set", ".vhdr")
HEADER_ENDINGS = {".vmrk": ".vhdr", ".fdt": ".set"}
"""Ending of the recording that a companion file belongs to."""
DERIVED_FOLDERS = {"derivatives", "sourcedata", "stimuli", "code"}
"""Folders of BIDS without raw recordings."""
OTHER_FIF = re.compile(
    r".*(emptyroom|acq-(crosstalk|calibration)|ct_sparse).*"
    r"|.*[-_](epo|ave|trans|ica|cov|proj|eve|annot|dig|dip|info|src|bem|sol|fwd|inv)(-\d+)?\.fif(\.gz)?"
)
"""Names in mne, mne-bids and MaxFilter of .fif files that are no recordings."""


def list_recordings(
    root: Path,
    pattern: str,
    subject_numbers: Mapping[str, int] = {},
    sessions: Sequence[int | str] | None = None,
    are_epochs: bool = False,
) -> dict[int, dict[int, list[Path]]]:
    """List the recordings below a folder by subject and session.

    Args:
        root: Folder.
        pattern: Pattern of the paths.
        subject_numbers: Number of a subject by its label, in the recipe.
        sessions: Sessions in the recipe, or None for all sessions.
        are_epochs: If True, list files of epochs instead of continuous recordings.

    Returns:
        Paths of each session in natural order, such as run-9 before run-10.

    Raises:
        MissingData: if a session of the recipe, or the whole folder, has no recording.
        BrainhiveError: if a path has no subject, or if two files are versions of a
            recording.
    """
    paths = []
    for path in list_signal_files(root, pattern, are_epochs):
        read_label(path, root)  # a name without a subject is refused at once
        paths.append(path)
    labels = [read_session(path, root) for path in paths]
    recordings = group_by_session(
        root, paths, subject_numbers, number_sessions(labels, sessions)
    )
    if not recordings:
        _raise_no_recordings(root, pattern, are_epochs)
    return recordings


def list_signal_files(root: Path, pattern: str, are_epochs: bool) -> Iterator[Path]:
    """Yield the first file of each recording below a folder, in natural order.

    The arguments are the same as in `list_recordings`.

    Raises:
        MissingData: if a companion file has no header file.
    """
    paths = []
    for name, entry in walk(root, enters=lambda name: name not in DERIVED_FOLDERS):
        file_name = name.rpartition("/")[2].lower()
        if _is_signal_name(file_name, are_epochs) and not entry.is_dir():
            paths.append(root / name)

    # Endings that mne reads in lower case only.
    capitals = [
        path.name
        for path in paths
        if path.suffix.lower() in (".vhdr", ".set", ".fdt")
        and not path.suffix.islower()
    ]
    if capitals:
        raise MissingData(
            f"{root} has endings in capitals, which mne does not read: "
            f"{', '.join(capitals)}",
            f"rename them: mv {capitals[0]} "
            f"{Path(capitals[0]).stem}{Path(capitals[0]).suffix.lower()} …",
        )

    # sort without extensions, so that x.fif comes before x-1.fif
    paths.sort(key=lambda path: natural_key(f"{path.parent}/{path.name.split('.')[0]}"))
    for path in paths:
        # mne opens the header of a companion file
        ending = HEADER_ENDINGS.get(path.suffix.lower(), path.suffix)
        header_path = path.with_suffix(ending)
        if not matches_pattern(header_path.as_posix(), pattern):
            continue
        # mne reads a further part with the file that names it
        if path in map(find_next_part, list_named_parts(path)):
            continue
        if header_path == path:
            yield path
        elif not os.path.lexists(header_path):
            raise MissingData(
                f"{path} exists, but {header_path.name} does not",
                f"copy {header_path.name} to this folder, or remove {path.name}",
            )


def list_unread_files(root: Path) -> dict[Path, str]:
    """List the files below a folder that may hold signals and are not read here.

    Returns:
        Label of the person in each path, such as "sub-02", or "" without.
    """
    labels = {}

    def enters(name: str) -> bool:
        # Endings of recordings that are folders.
        return name not in DERIVED_FOLDERS and not name.endswith(
            (".mff", ".ds", ".mefd")
        )

    for name, entry in walk(root, enters=enters):
        path = root / name
        file_name = path.name.lower()
        is_folder = entry.is_dir()
        if is_folder and enters(entry.name):
            continue
        # Names of files next to recordings that hold no recording: descriptions, images
        # and tables of BIDS. Companion files belong to a header.
        is_known = bool(
            re.fullmatch(
                r".*\.(json|md|html|pdf|png|jpe?g|nii|gii|ini|db)(\.gz)?"
                r"|.*_(channels|electrodes|scans|events|physio|beh|stim|headshape|sessions)"
                r"\.(tsv|pos)(\.gz)?|.*_trials\.[ct]sv|.*\.(eeg|vmrk|fdt)",
                file_name,
            )
            or OTHER_FIF.fullmatch(file_name)
        )
        if file_name.endswith((".eeg", ".dat")):  # signals of BrainVision
            header_name = f"{path.stem}.vhdr".lower()
            names = {sibling.name.lower() for sibling in path.parent.iterdir()}
            is_known = header_name in names
        if is_folder or not (is_known or _is_signal_name(file_name, False)):
            labels[path] = find_label(path, root)
    return labels


def list_recording_files(path: Path) -> list[Path]:
    """List the files that are read with a recording: companions, parts and tables.

    Raises:
        MissingData: if the recording is empty, or a placeholder of git-annex or LFS.
    """
    require_content(path)
    if not path.stat().st_size:
        raise MissingData(f"{path} is empty", "copy or export it again")
    paths = [path]
    # Endings of the companion files of a recording. A .set may hold its signal itself.
    companion_endings = {".vhdr": (".eeg", ".vmrk"), ".set": (".fdt",)}
    for ending in companion_endings.get(path.suffix.lower(), ()):
        companion = path.with_suffix(ending)
        if is_file(companion):
            paths.append(companion)
    paths += list_further_parts(path)
    for suffix in ("events", "channels"):
        sidecar = find_sidecar(path, suffix)
        if sidecar is not None:
            paths.append(sidecar)
    return paths


def _is_signal_name(name: str, are_epochs: bool) -> bool:
    """Return True for the lower-case name of a file, or companion file, with signals.

    Empty-room recordings, covariances and the like are no signals.
    """
    if are_epochs:
        # Names of files of epochs: of mne, of EEGLAB, and of arrays.
        return (
            re.fullmatch(r".*[-_]epo(-\d+)?\.fif(\.gz)?|.*\.(set|fdt|npy|npz)", name)
            is not None
        )
    endings = RECORDING_ENDINGS + tuple(HEADER_ENDINGS)
    return name.endswith(endings) and not OTHER_FIF.fullmatch(name)


def _raise_no_recordings(root: Path, pattern: str, are_epochs: bool) -> NoReturn:
    """Raise an error that names files of the other kind or of other formats."""
    kind = "epochs" if are_epochs else "recordings"
    other_kind = "recordings" if are_epochs else "epochs"
    if not root.is_dir():
        raise MissingData(
            f"there is no folder {root}",
            "name the folder of the recordings: preparation.root=FOLDER",
        )
    other_preparation = "recording" if are_epochs else "epochs"
    endings = ("-epo.fif", ".set", ".npy", ".npz") if are_epochs else RECORDING_ENDINGS
    path = next(list_signal_files(root, "*", not are_epochs), None)
    if path:
        raise MissingData(
            f"{root} holds {other_kind} (such as {path.name}), but no {kind}",
            f"read them: {Line('prepare', ('from', other_preparation))}",
        )
    other_paths = [path for path, label in list_unread_files(root).items() if label]
    if other_paths:
        raise MissingData(
            f"the {kind} in {root} have a format that cannot be read, such as "
            f"{summarise_names([path.name for path in other_paths])}",
            "open it with mne (or pyxdf) and save it as .fif: raw.save('sub-01_raw"
            ".fif')",
        )
    matching = "" if pattern == "*" else f" that match {pattern}"
    raise MissingData(
        f"there are no {kind} in {root}{matching} (files that end in "
        f"{', '.join(endings)})",
        f"name their folder: preparation.root=FOLDER, with sub-01_ses-01{endings[0]} … "
        "or a BIDS data set. Save other formats as .fif with mne",
    )
