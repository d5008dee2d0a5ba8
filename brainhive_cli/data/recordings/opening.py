"""Recordings that are opened with mne or mne-bids."""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import h5py

from brainhive_cli.core.base import (
    BrainhiveError,
    Line,
    MissingData,
    MissingExtra,
    first_line,
)
from brainhive_cli.core.files import (
    documents,
    is_machine_error,
    read_regular,
    require_regular,
    verify_compressed,
)
from brainhive_cli.data.files import hdf5, require_own, require_own_parts
from brainhive_cli.data.recordings.tables import (
    find_sidecar,
    is_read_as_bids,
    read_table,
)
from brainhive_cli.data.signals import name_electrodes

SIDECARS = {
    "eeg": ".json",
    "meg": ".json",
    "ieeg": ".json",
    "coordsystem": ".json",
    "channels": ".tsv",
    "electrodes": ".tsv",
    "events": ".tsv",
    "scans": ".tsv",
}
"""Extension of the BIDS sidecars of a recording, by suffix."""
VOLT_TYPES = ("eeg", "ecog", "seeg", "dbs", "eog", "emg", "ecg", "misc")
CHANNEL_UNITS = dict.fromkeys(VOLT_TYPES, (1e6, "µV"))
CHANNEL_UNITS |= {"mag": (1e15, "fT"), "grad": (1e13, "fT/cm")}
"""Factor from mne's unit to our unit, and our unit, by type of channel. Values in our
unit are near 1 to 1000.
"""
EXPORT_HINT = "copy or export it again; if mne opens a complete file, save it as .fif"
"""Hint for a damaged recording."""
READER_HINTS = {
    r"not seem to contain epochs": str(Line("prepare", ("from", "recording"))),
    r"number of trials is \d+": str(Line("prepare", ("from", "epochs"))),
    r"HDF reader|pymatreader": "it is of MATLAB 7.3: pip install pymatreader, or save "
    "it in EEGLAB with 'Save as v6' (pop_saveset(EEG, 'version', '6'))",
    r"EDF\+D": "export it without pauses; if there are none, open it with mne and save "
    "it as .fif",
    r"Active Shielding": "apply MaxFilter or mne.preprocessing.maxwell_filter, and "
    "save it as .fif",
}
"""Hints for errors of readers without damage, by a pattern of the message."""


def get_scales(ch_types: Iterable[str]) -> list[float]:
    """Return the factor in `CHANNEL_UNITS` of each type of channel."""
    return [CHANNEL_UNITS.get(ch_type, (1.0, ""))[0] for ch_type in ch_types]


def open_raw(
    path: Path,
    has_bids_onsets: bool = True,
    rename: Mapping[str, str] | None = None,
    montage: str = "",
    omitted: list[int] | None = None,
) -> Any:
    """Open a recording with mne-bids in a BIDS data set, else with mne.

    Signals stay on disk. The checksum of a .fif.gz is verified first.

    Args:
        path: Path of the recording.
        has_bids_onsets: If False, onsets in tables are not in seconds, and mne-bids is
            not used.
        rename: New names of channels, by their names in the file.
        montage: Montage in mne, or "" for the positions in the file.
        omitted: List to which the number of annotations outside the recording is added.

    Raises:
        MissingData: if the file is damaged, or names files outside its folder.
        BrainhiveError: if a BIDS sidecar does not fit.
        MissingExtra: if mne needs another package for its format.
    """
    import mne

    with refuse_truncated(path, omitted), report_unreadable(path):
        _require_own_companions(path)
        require_own_content(path)
        _refuse_pauses(path)
        if is_read_as_bids(path, has_bids_onsets):
            raw = _open_bids(path)
        else:
            raw = mne.io.read_raw(path, preload=False, verbose="WARNING")

        # the signals must lie next to the header, and belong to no other recording
        for name in raw.filenames:
            signal_path = Path(name or path)
            folder = signal_path.parent.resolve()
            # in DataLad, the files are links into another folder
            if folder not in (path.parent.resolve(), path.resolve().parent):
                raise ValueError(f"its signals are in another folder, {folder}")
            require_own(path, signal_path.name)

    with report_unreadable(path):
        name_electrodes(raw, path, rename or {}, montage)
    return raw


def require_own_content(path: Path) -> None:
    """Check that a recording is a regular file, and reads only its own files.

    Raises:
        ValueError, UnfitFile: if the file is not regular, or has HDF5 links to others.
        BrainhiveError: if a file belongs to another recording.
    """
    require_regular(path)
    if path.name.lower().endswith((".fif", ".fif.gz")):
        require_own_parts(path)
    elif h5py.is_hdf5(path):  # MATLAB 7.3
        with hdf5.open_unlocked(path) as file:
            hdf5.refuse_other_files(file, has_datasets=True)


@contextmanager
def report_unreadable(path: Path) -> Iterator[None]:
    """Context manager that turns errors of a reader into errors with a hint.

    Errors of the machine, such as a lack of memory, pass through.

    Raises:
        MissingExtra: if a package is missing.
        MissingData: for any other error of the reader.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, BrainhiveError) or is_machine_error(error):
            raise
        hint = EXPORT_HINT
        for pattern, reader_hint in READER_HINTS.items():
            if re.search(pattern, str(error)):
                hint = reader_hint
                break
        error_class = MissingExtra if isinstance(error, ImportError) else MissingData
        raise error_class(
            f"{path} cannot be read: {first_line(error)}", hint
        ) from error


def _open_bids(path: Path) -> Any:
    """Open a recording with mne-bids. A fault of its sidecars names the sidecar."""
    import mne
    import mne_bids

    try:
        bids_path = mne_bids.get_bids_path_from_fname(path)
        return mne_bids.read_raw_bids(
            bids_path, on_ch_mismatch="reorder", verbose="WARNING"
        )
    except Exception as error:
        if is_machine_error(error):
            raise
        # without its sidecars, a sound recording opens
        mne.io.read_raw(path, preload=False, verbose="ERROR")
        reason = first_line(error)
        raise BrainhiveError(
            f"{_find_faulty_sidecar(path, reason)} does not fit {path.name}: {reason}",
            "correct it (onsets are seconds from the first sample, names of channels "
            "those of the recording), or remove it if it is optional",
        ) from error


def _find_faulty_sidecar(path: Path, reason: str) -> str:
    """Return the sidecar that cannot be read, or that holds what an error quotes."""
    # Value that an error of mne-bids quotes.
    values = [value.lower() for value in re.findall(r"'([^']{2,})'", reason)]
    named = f"a sidecar (.tsv or .json) of {path}"
    for suffix, extension in SIDECARS.items():
        sidecar = find_sidecar(path, suffix, extension)
        if sidecar is None:
            continue
        try:
            content = read_table(sidecar) if extension == ".tsv" else None
            content = content or documents.read(sidecar)
        except BrainhiveError:
            return str(sidecar)
        text = str(content).lower()
        if suffix in reason.lower() or any(value in text for value in values):
            named = str(sidecar)
    return named


@contextmanager
def refuse_truncated(path: Path, omitted: list[int] | None = None) -> Iterator[None]:
    """Context manager that raises MissingData if mne warns that a file ends early.

    The number of annotations that mne left out is added to `omitted`.
    """
    with (
        warnings.catch_warnings(record=True) as caught_warnings,
        redirect_stdout(StringIO()),  # mne logs to stdout
    ):
        warnings.simplefilter("always")
        with report_unreadable(path):
            verify_compressed(path)
        yield
    for warning in caught_warnings:
        # Warning of mne about annotations outside the recording.
        count = re.search(r"Omitted (\d+) annotation", str(warning.message))
        if count and omitted is not None:
            omitted.append(int(count[1]))
        # Warnings of mne about a file that ends early.
        if re.search(
            r"does not match the file size|Invalid tag|truncated|corrupt",
            str(warning.message),
        ):
            reason = first_line(warning.message)  # type: ignore[arg-type]
            raise MissingData(f"{path} is damaged: {reason}", EXPORT_HINT)


def _require_own_companions(path: Path) -> None:
    """Raise an error if a .vhdr file names files of another recording."""
    if path.suffix.lower() != ".vhdr":
        return
    # Name of a companion file in the header of a BrainVision recording.
    for name in re.findall(
        r"^\s*(?:DataFile|MarkerFile)\s*[=:]\s*(?:\./)?(.*?)\s*$",
        read_regular(path).decode("latin-1"),
        re.I | re.M,
    ):
        # mne replaces an absent marker file by the name of the recording
        if not name.lower().endswith(".vmrk") or (path.parent / name).exists():
            require_own(path, name)


def _refuse_pauses(path: Path) -> None:
    """Raise an error for an EDF+ or BDF+ file with pauses, which mne would ignore."""
    if path.suffix.lower() not in (".edf", ".bdf"):
        return
    with path.open("rb") as file:
        header = file.read(256)
    # Bytes of an EDF or BDF header with its type. Source: Kemp and Olivan 2003.
    edf_type = slice(192, 197)
    # Types of EDF+ and BDF+ files with pauses.
    if header[edf_type] in (b"EDF+D", b"BDF+D"):
        raise ValueError("it is of type EDF+D, with pauses between its records")
