"""Recordings opened by mne, with errors that say what to do about a damaged file."""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import h5py

from brainhive_cli.core.archives import verify_compressed
from brainhive_cli.core.damage import is_machine_error
from brainhive_cli.core.errors import (
    BrainhiveError,
    Line,
    MissingData,
    MissingExtra,
    first_line,
)
from brainhive_cli.core.files import (
    read_regular,
    require_regular,
)
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.files.named_files import (
    require_own,
    require_own_parts,
)
from brainhive_cli.data.recordings.tables import is_read_as_bids
from brainhive_cli.data.signals.spaces import name_electrodes

VHDR_FILE = re.compile(
    r"^\s*(?:DataFile|MarkerFile)\s*[=:]\s*(?:\./)?(.*?)\s*$", re.I | re.M
)

DAMAGE = re.compile(
    r"does not match the file size|Omitted \d+ annotation|Invalid tag|truncated|corrupt"
)
"""Warnings of mne about a file that ends early."""

CHANNEL_UNITS = {
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


@contextmanager
def report_unreadable(path: Path) -> Iterator[None]:
    """Turn any error of a reader of a foreign format into MissingData or MissingExtra,
    with its way out.
    """
    try:
        yield
    except Exception as error:
        # our own errors have hints; errors of the machine are not the file's fault
        if isinstance(error, BrainhiveError) or is_machine_error(error):
            raise
        way = next(
            (way for part, way in WAYS.items() if re.search(part, str(error))), AGAIN
        )
        kind = MissingExtra if isinstance(error, ImportError) else MissingData
        raise kind(f"{path} cannot be read: {first_line(error)}", way) from error


@contextmanager
def refuse_truncated(path: Path) -> Iterator[None]:
    """Refuse a file that ends early, which mne opens with a warning.

    Raises:
        MissingData: naming it.
    """
    with (
        warnings.catch_warnings(record=True) as warned,
        redirect_stdout(StringIO()),  # where mne logs
    ):
        warnings.simplefilter("always")
        with report_unreadable(path):
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

    with refuse_truncated(path), report_unreadable(path):
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

    with report_unreadable(path):
        name_electrodes(raw, path, rename or {}, cap)
    return raw
