"""Folder of a session that is saved while it runs: a BIDS data set that can be read at any moment."""

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli import __version__
from brainhive_cli.core import documents
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import atomic_write, open_no_link
from brainhive_cli.data.stores.ids import table_text
from brainhive_cli.data.streams import StreamFormat
from brainhive_cli.models.physical_units import SIZES, name_unit

DESCRIPTION, SIMULATED = "dataset_description.json", "Simulated"
"""File of a BIDS data set about all of it, and our key in it: the program that made the signals."""
ROOT_LEVELS = 5
"""Folders above a recording, of which the root of its data set is one."""
BIDS_TYPES = {
    **{kind: kind.upper() for kind in ("eeg", "eog", "ecg", "emg", "ecog", "seeg", "dbs", "resp", "gsr")},
    **{"stim": "TRIG", "temperature": "TEMP", "mag": "MEGMAG", "grad": "MEGGRADPLANAR"},
}
"""Types of channels in BIDS, by their types in mne; all others are MISC."""
VOLTAGES = ("eeg", "eog", "ecg", "emg", "ecog", "seeg", "dbs")
"""Types of channels that mne has in volts."""
BAD_PREFIX = re.compile("bad|edge", re.IGNORECASE)
"""Beginning of an annotation of which mne, and `prepare`, take no trial."""
TASK = "live"
GAP = "BAD boundary"
"""Type of the row of events.tsv where samples are missing."""
WAY_OUT = "free space, or put the folder back; what was written before can be prepared"


def read_simulated(recording: Path) -> str:
    """Read which program simulated a recording of a BIDS data set; empty for one that nothing says that of.

    Raises:
        MissingData: if the description of the data set cannot be read.
    """
    for folder in list(recording.parents)[:ROOT_LEVELS]:
        if (path := folder / DESCRIPTION).is_file():
            description: dict[str, Any] = documents.read(path, hint="correct it", error=MissingData)
            if simulated := description.get(SIMULATED):
                return str(simulated)
    return ""


class SessionFolder:
    """A session of one person, saved while it runs: samples, events and results.

    EEG is written as BrainVision, whose files grow, and can be read at any moment, also after the process was
    killed. BIDS has no BrainVision for MEG: of a stream with magnetometers or gradiometers these files grow
    below `sourcedata`, and `close` makes a .fif of them. Positions of electrodes are written where those of
    all EEG channels are known. Names of channels that these files cannot hold are changed; then the table of
    channels has a column original_name, as JSON writes it. One thread calls all methods, but for
    `add_result`, which any other may call.

    Args:
        root: Folder of the data set; it may hold other sessions.
        format: Of the stream. EEG without a unit is taken for µV, as BrainVision does.
        subject: Number of the person.
        session: Number of the session.

    Raises:
        BrainhiveError: if the session is there already, the folder holds recorded sessions where this one is
            simulated (or the other way round), the format has units or channels that cannot be written, or
            the system refuses to write.
    """

    def __init__(self, root: Path, format: StreamFormat, subject: int, session: int = 1) -> None:
        self.root, self.format = root, format
        self._count, self._gaps = 0, 0
        self._times_s: tuple[float, float] | None = None  # of the first and the last sample
        self._pending: list[tuple[int, str, str]] = []  # sample, marker, picture
        self._markers = 1
        self._failure: BrainhiveError | None = None
        self._created: list[Path] = []

        # what the files cannot hold
        if len({*format.channels}) < len(format.channels) or not all(format.channels):
            raise BrainhiveError(
                f"stream {format.name}: channels have no name, or one of others", "rename one"
            )
        names = self._names = write_channel_names(format.channels)
        if not format.rate_hz > 0:
            raise BrainhiveError(f"stream {format.name} has no sampling rate", "save a stream with one")
        scales = [
            _scale_of(name, kind, unit)
            for name, kind, unit in zip(names, format.kinds, format.units, strict=True)
        ]

        # files of the session; nothing of it may be there
        self._is_meg = not {"mag", "grad"}.isdisjoint(format.kinds)
        self._datatype = "meg" if self._is_meg else "eeg"
        visit = Path(f"sub-{subject:02d}", f"ses-{session:02d}", self._datatype)
        stem = f"sub-{subject:02d}_ses-{session:02d}_task-{TASK}"
        self._folder, self._stem = root / visit, stem
        self._signal_folder = root / "sourcedata" / visit if self._is_meg else self._folder
        self._about: dict[str, Any] = {"subject": subject, "session": session, "task": TASK}
        with self._refusing():
            self._signal_folder.mkdir(parents=True, exist_ok=True)
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in (*self._folder.iterdir(), *self._signal_folder.iterdir()):
                if path.name.startswith(f"{stem}_"):
                    raise FileExistsError(errno.EEXIST, "", str(path))
            try:
                self._describe_dataset(f"sub-{subject:02d}")
                self._describe_session([unit for _, unit, _ in scales])
                self._open_files([(factor, unit) for factor, _, unit in scales])
            except BaseException:  # a session that was not begun can be begun again
                for path in self._created:
                    path.unlink(missing_ok=True)
                raise

    def add(self, samples: NDArray[np.floating[Any]], times_s: NDArray[np.floating[Any]]) -> None:
        """Append samples.

        Args:
            samples: [n, C] in the units of the format; they are rounded to float32.
            times_s: [n] on the stream's clock; the first and the last of the session give its effective rate.

        Raises:
            BrainhiveError: if they are of another shape, or the disk is full or the folder gone; then nothing
                more is saved, and all methods but `close` raise it again.
        """
        if samples.shape != (len(times_s), len(self._names)):
            problem = f"samples {list(samples.shape)} are not [{len(times_s)}, {len(self._names)}]"
            raise BrainhiveError(problem, "samples by channels of the stream's format")
        if not len(times_s):
            return
        self._write(self._signals, np.ascontiguousarray(samples, "<f4").tobytes())
        self._times_s = (self._times_s or (float(times_s[0]), 0.0))[0], float(times_s[-1])
        self._count += len(samples)
        self._write_events()

    def add_event(self, sample: int, name: str, image: str) -> None:
        """Append an event, once its sample has been added; outside of the samples there is no event.

        Args:
            sample: Counted from 0.
            name: The marker.
            image: Id of the picture that was shown; empty where none was, or none is known.

        Raises:
            BrainhiveError: see `add`.
        """
        name = table_text(name) or "n/a"
        name = f"event {name}" if BAD_PREFIX.match(name) else name
        self._pending.append((sample, name, table_text(image) or "n/a"))
        self._write_events()

    def mark_gap(self, sample: int) -> None:
        """Mark that samples are missing before this one, so that no trial is cut across.

        Raises:
            BrainhiveError: see `add`.
        """
        self._pending.append((sample, GAP, "n/a"))
        self._gaps += 1
        self._write_events()

    def add_result(self, result: Mapping[str, Any]) -> None:
        """Append a line to results.jsonl, with subject, session and task.

        Raises:
            BrainhiveError: see `add`.
        """
        line = json.dumps(
            self._about | dict(result), ensure_ascii=False, default=lambda value: value.tolist()
        )
        self._write(self._results, f"{line}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        """Close the files, write the duration, and make the .fif of MEG; may be called twice.

        Raises:
            BrainhiveError: if the disk refuses; what was added is in the files that grew.
        """
        if self._signals.closed:
            return
        for file in (self._signals, self._vmrk, self._events, self._results):
            file.close()
        if self._failure is not None or self._times_s is None:
            return
        sidecar = {**self._sidecar, "RecordingDuration": self._count / self.format.rate_hz}
        first_s, last_s = self._times_s
        if last_s > first_s and not self._gaps:
            sidecar["EffectiveSamplingFrequency"] = (self._count - 1) / (last_s - first_s)
        with self._refusing():
            with atomic_write(self._path("json")) as part:
                part.write_text(json.dumps(sidecar, indent=2) + "\n", "utf-8")
            if self._is_meg:
                self._save_fif()

    def _path(self, ending: str) -> Path:
        """Name a file that is called as the recording is."""
        return self._folder / f"{self._stem}_{self._datatype}.{ending}"

    def _describe_dataset(self, participant: str) -> None:
        """Write the files of the whole data set, unless they are there; the participant is listed once."""
        # simulated and recorded sessions are never mixed, since the description is that of all
        description, simulated = self.root / DESCRIPTION, self.format.simulated
        if description.exists():
            if (known := read_simulated(description)) != simulated:
                kinds = [
                    f"simulated ({program})" if program else "recorded" for program in (known, simulated)
                ]
                problem = f"{self.root} holds {kinds[0]} sessions, and this one is {kinds[1]}"
                raise BrainhiveError(problem, "save it in another folder")
        else:
            about = "session saved while it was decoded"
            generator = {"Name": "Brainhive", "Version": __version__, "Description": simulated or about}
            document: dict[str, Any] = {"Name": self.root.resolve().name, "BIDSVersion": "1.9.0"}
            document |= {"DatasetType": "raw", "GeneratedBy": [generator]}
            document |= {SIMULATED: simulated} if simulated else {}
            with atomic_write(description) as part:
                part.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
            if not any(self.root.glob("README*")):
                program = f", simulated by {simulated}" if simulated else ""
                text = f"Sessions saved while they were decoded{program}.\n"
                self.root.joinpath("README").write_bytes(text.encode(errors="backslashreplace"))
        if not (ignored := self.root / ".bidsignore").exists():
            ignored.write_text("results.jsonl\n")

        # a row of as many cells as the table has columns
        participants = self.root / "participants.tsv"
        text = participants.read_text("utf-8") if participants.exists() else "participant_id\n"
        header, *rows = text.splitlines() or ["participant_id"]
        if participant not in (row.partition("\t")[0] for row in rows):
            row = "\t".join([participant, *["n/a"] * header.count("\t")])
            with atomic_write(participants) as part:
                part.write_text("\n".join([header, *rows, row, ""]), "utf-8")

    def _describe_session(self, units: list[str]) -> None:
        """Write the channels, their positions and the facts of the recording."""
        # channels, and facts that nothing here knows
        types = [BIDS_TYPES.get(kind, "MISC") for kind in self.format.kinds]
        columns = {"name": self._names, "type": types, "units": units}
        if self._names != list(self.format.channels):
            columns["original_name"] = [json.dumps(name)[1:-1] for name in self.format.channels]
        lines = ["\t".join(columns), *map("\t".join, zip(*columns.values(), strict=True))]
        self._create(self._folder / f"{self._stem}_channels.tsv", "\n".join(lines) + "\n").close()
        self._sidecar: dict[str, Any] = {
            "TaskName": TASK,
            "TaskDescription": f"pictures shown while the stream {self.format.name} is decoded",
            "SamplingFrequency": self.format.rate_hz,
            "PowerLineFrequency": "n/a",
            "SoftwareFilters": "n/a",
            "RecordingType": "continuous",
        }
        if self._is_meg:
            self._sidecar |= {
                "DewarPosition": "n/a",
                "DigitizedLandmarks": False,
                "DigitizedHeadPoints": False,
            }
        else:
            self._sidecar["EEGReference"] = "n/a"
        self._create(self._path("json"), json.dumps(self._sidecar, indent=2) + "\n").close()

        # electrodes in mne's head frame, which BIDS calls CapTrak; another task may have written them
        is_eeg = np.array([kind == "eeg" for kind in self.format.kinds])
        positions = self.format.positions
        electrodes = self._folder / f"{self._stem.rpartition('_task-')[0]}_electrodes.tsv"
        if (
            self._is_meg
            or positions is None
            or not np.isfinite(positions[is_eeg]).all()
            or electrodes.exists()
        ):
            return
        rows = [
            "\t".join([self._names[row], *map(repr, positions[row].tolist())])
            for row in np.flatnonzero(is_eeg).tolist()
        ]
        self._create(electrodes, "\n".join(["name\tx\ty\tz", *rows]) + "\n").close()
        frame = {"EEGCoordinateSystem": "CapTrak", "EEGCoordinateUnits": "m"}
        system = electrodes.with_name(electrodes.name.replace("electrodes.tsv", "coordsystem.json"))
        self._create(system, json.dumps(frame, indent=2) + "\n").close()

    def _open_files(self, scales: list[tuple[float, str]]) -> None:
        """Write the headers of the files that grow, and open these."""
        stem = self._signal_folder / f"{self._stem}_{self._datatype}"
        self._header, eeg, vmrk = (stem.with_name(f"{stem.name}.{end}") for end in ("vhdr", "eeg", "vmrk"))

        channels = [
            f"Ch{number}={_brainvision_text(name)},,{factor!r},{unit}"
            for number, (name, (factor, unit)) in enumerate(zip(self._names, scales, strict=True), 1)
        ]
        header = (
            "Brain Vision Data Exchange Header File Version 1.0",
            *("", "[Common Infos]", "Codepage=UTF-8", f"DataFile={eeg.name}", f"MarkerFile={vmrk.name}"),
            *("DataFormat=BINARY", "DataOrientation=MULTIPLEXED", f"NumberOfChannels={len(channels)}"),
            f"SamplingInterval={1e6 / self.format.rate_hz!r}",  # µs
            *("", "[Binary Infos]", "BinaryFormat=IEEE_FLOAT_32", "", "[Channel Infos]", *channels, ""),
        )
        start = datetime.now(UTC).strftime("%Y%m%d%H%M%S%f")
        markers = (
            "Brain Vision Data Exchange Marker File, Version 1.0",
            *("", "[Common Infos]", "Codepage=UTF-8", f"DataFile={eeg.name}"),
            *("", "[Marker Infos]", f"Mk1=New Segment,,1,1,0,{start}", ""),
        )

        # the header comes last: a recording is listed once all its files are there
        self._signals = self._create(eeg)
        self._vmrk = self._create(vmrk, "\n".join(markers))
        events = self._folder / f"{self._stem}_events.tsv"
        self._events = self._create(events, "onset\tduration\ttrial_type\tstim_file\n")
        self._results = open(self.root / "results.jsonl", "ab", buffering=0, opener=open_no_link)  # noqa: SIM115
        self._create(self._header, "\n".join(header)).close()

    def _create(self, path: Path, text: str = "") -> FileIO:
        """Create a file that is not there, unbuffered: what is written survives the process."""
        file = open(path, "xb", buffering=0, opener=open_no_link)  # noqa: SIM115
        self._created.append(path)
        _write_all(file, text.encode(errors="backslashreplace"))
        return file

    def _write_events(self) -> None:
        """Write the events whose samples are written: a later one would look like a truncated recording."""
        due = sorted(event for event in self._pending if event[0] < self._count)
        self._pending = [event for event in self._pending if event[0] >= self._count]
        for sample, name, image in due:
            if sample < 0 or (name == GAP and sample == 0):
                continue
            self._markers += 1
            marker = "New Segment," if name == GAP else f"Stimulus,{_brainvision_text(name)}"
            entry = f"Mk{self._markers}={marker},{sample + 1},1,0\n"
            self._write(self._vmrk, entry.encode(errors="backslashreplace"))
            duration = "0" if name == GAP else "n/a"
            row = f"{sample / self.format.rate_hz!r}\t{duration}\t{name}\t{image}\n"
            self._write(self._events, row.encode(errors="backslashreplace"))

    def _write(self, file: FileIO, data: bytes) -> None:
        """Append to a file; a part that the disk refuses is taken back, and nothing more is written."""
        if self._failure is not None:
            raise self._failure
        end = None
        try:
            state = os.fstat(file.fileno())
            if not state.st_nlink:
                raise FileNotFoundError(errno.ENOENT, "it was removed")
            end = state.st_size
            _write_all(file, data)
        except OSError as error:
            if end is not None:
                with suppress(OSError):
                    os.ftruncate(file.fileno(), end)
            problem = f"{file.name}: the session is no longer saved: {error.strerror}"
            self._failure = BrainhiveError(problem, WAY_OUT)
            raise self._failure from error

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Turn errors of the system into two lines."""
        try:
            yield
        except FileExistsError as error:
            problem = (
                f"{error.filename} is there already: session {self._about['session']} is not written over"
            )
            raise BrainhiveError(problem, "save it as another session, or in another folder") from error
        except OSError as error:
            if isinstance(error, BrainhiveError):
                raise
            where = error.filename or self.root
            raise BrainhiveError(
                f"{where}: the session cannot be saved: {error.strerror}", WAY_OUT
            ) from error

    def _save_fif(self) -> None:
        """Copy the samples and markers of MEG into a .fif, of which mne writes some at a time."""
        import mne

        # types and positions, which BrainVision does not have; its factors give mne's units
        raw = mne.io.read_raw_brainvision(self._header, verbose="ERROR")
        like = mne.create_info(self._names, self.format.rate_hz, list(self.format.kinds))
        for row, (channel, template) in enumerate(zip(raw.info["chs"], like["chs"], strict=True)):
            channel.update({key: template[key] for key in ("kind", "coil_type", "unit")})
            if self.format.positions is not None and np.isfinite(self.format.positions[row]).all():
                channel["loc"][:3] = self.format.positions[row]

        # the .fif, or the parts of a large one, appear with their whole content; then the rest is removed
        parts = self._signal_folder / f"{self._stem}_fif"
        parts.mkdir()
        raw.save(parts / self._path("fif").name, fmt="single", split_naming="bids", verbose="ERROR")
        for path in sorted(parts.iterdir(), reverse=True):
            os.replace(path, self._folder / path.name)
        for suffix in (".vhdr", ".vmrk", ".eeg"):
            self._header.with_suffix(suffix).unlink()
        for folder in (parts, self._signal_folder, *list(self._signal_folder.parents)[:3]):
            with suppress(OSError):  # other sessions lie there
                folder.rmdir()


def write_channel_names(names: Sequence[str]) -> list[str]:
    """Write names of channels as BrainVision, BIDS and mne hold them; different ones stay different."""

    def clean(name: str) -> str:
        letters = [letter if letter.isprintable() and letter not in '[]\\"' else "_" for letter in name]
        return {"n/a": "n_a", "": "_"}.get(text := "".join(letters).strip(), text)

    # those that are changed end in another letter where another channel has the name
    taken, written = {*names}, list[str]()
    for name in names:
        text = clean(name)
        while text != name and text in taken:
            text += "_"
        taken.add(text)
        written.append(text)
    return written


def _brainvision_text(name: str) -> str:
    """Write a name as an entry of BrainVision, in which backslash 1 is a comma."""
    return name.replace("\\", "/").replace(",", "\\1")


def _write_all(file: FileIO, data: bytes) -> None:
    """Write to an unbuffered file, which takes a part where a disk is nearly full, and raises at the next."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _scale_of(name: str, kind: str, unit: str) -> tuple[float, str, str]:
    """Give the factor of a channel's samples, its unit in BIDS, and that in BrainVision.

    Raises:
        BrainhiveError: if it is of another quantity than the type of the channel.
    """
    usual, (factor, base) = name_unit(unit), SIZES.get(name_unit(unit), (0.0, ""))
    if kind in ("mag", "grad"):
        if base == {"mag": "T", "grad": "T/m"}[kind]:
            return factor, base, base
    elif not unit.strip():
        return 1.0, "n/a", "" if kind in VOLTAGES else "n/a"
    elif base == "V":
        return 1.0, usual, "n/a" if kind == "stim" else usual
    elif kind not in VOLTAGES:
        return 1.0, table_text(unit), "n/a"  # mne reads the numbers as they are
    problem = f"channel {name} of type {kind} has the unit {unit or 'of nothing'}"
    raise BrainhiveError(problem, "µV, mV or V for EEG; fT or T, fT/cm or T/m for MEG")
