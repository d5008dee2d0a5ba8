"""Session of one person, saved while it runs as a BIDS data set: a run for each block
of trials.
"""

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli import __version__
from brainhive_cli.core import documents
from brainhive_cli.core.arrays import Float32, Float64
from brainhive_cli.core.errors import BrainhiveError, MissingData, first_line
from brainhive_cli.core.files import atomic_write, open_no_link
from brainhive_cli.data.stores.ids import table_text
from brainhive_cli.data.streams import StreamFormat
from brainhive_cli.models.signal_spec import UNIT_SIZES, name_unit

DESCRIPTION, SIMULATED = "dataset_description.json", "Simulated"
"""File of a BIDS data set about all of it, and our key in it: the program that made the
signals.
"""
ROOT_LEVELS = 5
"""Folders above a recording, of which the root of its data set is one."""
BASES = {
    "mag": "T",
    "grad": "T/m",
    **dict.fromkeys(("eeg", "eog", "ecg", "emg", "ecog", "seeg", "dbs"), "V"),
}
"""Units in which mne has channels, by their types; numbers of other types are saved as
they are.
"""
BAD_PREFIX = re.compile("bad|edge", re.IGNORECASE)
"""Beginning of an annotation of which mne, and `prepare`, take no trial."""
NOT_IN_NAMES = re.compile(r'[\[\]"\\]|[^\w -~]|^\s+|\s+$|^n/a$')
"""Parts of names of channels that BrainVision, tables or mne cannot hold."""
TASK, GAP = "live", "BAD boundary"
"""Name of the task, and annotation where samples are missing."""
PAUSE_S, MAX_BLOCK_S = 10.0, 300.0
"""A block ends amid a pause of so many seconds between events, so that no trial is cut
and filters settle before the next one; and after five minutes in any case: 64 channels
at 1000 Hz take 77 MB by then.
"""
WAY_OUT = "free space, or put the folder back; blocks that ended can be prepared"


def read_simulated(*recordings: Path) -> str:
    """Read which programs simulated recordings of a BIDS data set; empty where nothing
    says that any did.

    Raises:
        MissingData: if the description of the data set cannot be read.
    """
    programs = set[str]()
    for recording in recordings:
        # nothing says which folder is the root, so the nearest description with our
        # key counts
        for folder in list(recording.parents)[:ROOT_LEVELS]:
            if (path := folder / DESCRIPTION).is_file():
                description: dict[str, Any] = documents.read(
                    path, hint="correct it", error=MissingData
                )
                if simulated := description.get(SIMULATED):
                    programs.add(str(simulated))
                    break
    return ", ".join(sorted(programs))


class SessionFolder:
    """A session of one person: samples and events by block, and results line by line.

    mne-bids writes a block when it ends, in a thread of its own: EEG as BrainVision,
    MEG as .fif. Whatever kills the process, blocks that ended can be read. Positions of
    electrodes are written where those of all EEG channels are known. One thread calls
    all methods, but for `add_result`, which any other may call.

    Pictures have a number as stimulus_id, which stimuli/stimuli.tsv lists by the draft
    extension 44 of BIDS; stim_file names them, too.

    Args:
        root: Folder of the data set, which is new.
        format: Of the stream. EEG without a unit is taken for µV, as BrainVision does.
        subject: Number of the person.
        stimulus: Kind of the stimuli.

    Raises:
        BrainhiveError: if the format has units that cannot be written, or the system
            refuses to write.
    """

    def __init__(
        self, root: Path, format: StreamFormat, subject: int, stimulus: str = "picture"
    ) -> None:
        import mne_bids  # before the session starts, as that takes seconds

        # pybv warns of every channel that is no voltage
        warnings.filterwarnings(
            "ignore", "Encountered unsupported non-voltage units", module="pybv"
        )

        channels = zip(format.channels, format.kinds, format.units, strict=True)
        self._scales = np.array([_scale_of(*channel) for channel in channels])

        # the block so far: samples [n, C], and events by sample of the session, marker
        # and picture
        self._samples = [np.empty((0, len(format.channels)), np.float32)]
        self._events = list[tuple[int, str, str]]()
        self._start, self._count, self._last_event, self._blocks = 0, 0, 0, 0
        self._format, self._began = format, datetime.now(UTC)
        self._names = [NOT_IN_NAMES.sub("_", name) for name in format.channels]
        self._shown = dict[str, None]()
        # as BIDS calls them; categories have no files
        self._type = {"picture": "image", "clip": "video"}.get(stimulus, "n/a")
        self._datatype = "eeg" if {"mag", "grad"}.isdisjoint(format.kinds) else "meg"
        self._path = mne_bids.BIDSPath(
            f"{subject:02d}", "01", datatype=self._datatype, root=root
        )
        self._writer, self._writing = ThreadPoolExecutor(1), Future[None]()
        self._writing.set_result(None)

        # the data set, whose description mne-bids completes
        about = {
            "Name": "Brainhive",
            "Version": __version__,
            "Description": format.simulated or TASK,
        }
        description = {"Name": root.resolve().name, "GeneratedBy": [about]}
        description |= {SIMULATED: format.simulated} if format.simulated else {}
        with _explain_errors(root):
            self._path.directory.mkdir(parents=True)
            (root / DESCRIPTION).write_text(
                json.dumps(description, indent=2) + "\n", "utf-8"
            )
            (root / ".bidsignore").write_text("results.jsonl\n")
            path = root / "results.jsonl"
            self._results = open(path, "xb", buffering=0, opener=open_no_link)  # noqa: SIM115
            self._write_positions()

    def add(self, samples: Float64) -> None:
        """Append samples [n, C], in the units of the format; the block before them ends
        if it is time.

        Raises:
            BrainhiveError: if the disk is full or the folder gone, when a block was
                written.
        """
        # events of the samples before these have come by now
        block_s = (self._count - self._start) / self._format.rate_hz
        pause_s = (self._count - self._last_event) / self._format.rate_hz
        if block_s > MAX_BLOCK_S or pause_s > PAUSE_S:
            self._end_block(PAUSE_S / 2)
        self._samples.append(samples.astype(np.float32))
        self._count += len(samples)

    def add_event(self, sample: int, name: str, image: str) -> None:
        """Append an event; outside of the samples of a block there is none.

        Args:
            sample: Counted from 0.
            name: The marker.
            image: Id of the picture that was shown; empty where none was, or none is
                known.
        """
        # names that mne would read as a BAD span, and so take no trial of, get a prefix
        name = _cell_text(name)
        name = f"event {name}" if BAD_PREFIX.match(name) else name
        self._events.append((sample, name, _cell_text(image)))
        self._last_event = max(self._last_event, sample)

    def mark_gap(self, sample: int) -> None:
        """Mark that samples are missing before this one, so that no trial is cut
        across.
        """
        self._events.append((sample, GAP, "n/a"))

    def add_result(self, result: Mapping[str, Any]) -> None:
        """Append a line to results.jsonl.

        Raises:
            BrainhiveError: see `add`.
        """
        # lines are unbuffered, so that a killed session keeps its results
        line = json.dumps(
            dict(result), ensure_ascii=False, default=lambda value: value.tolist()
        )
        with _explain_errors(self._path.root):
            self._results.write(f"{line}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        """Write the last block; may be called twice.

        Raises:
            BrainhiveError: see `add`.
        """
        self._results.close()
        with self._writer:
            self._end_block(0.0)
        self._writing.result()

    def _end_block(self, rest_s: float) -> None:
        """Have the block written, if it has events; the last seconds of its samples
        begin the next one.
        """
        # the block before is there, or raises why not
        self._writing.result()

        # events of the block; later ones wait for it to reach them
        start, end = self._start, self._count - round(rest_s * self._format.rate_hz)
        events = sorted(event for event in self._events if start <= event[0] < end)
        self._events = [event for event in self._events if event[0] >= end]
        samples = np.concatenate(self._samples)
        self._samples = [samples[end - start :].copy()]
        self._start = end
        self._last_event = self._count
        if any(name != GAP for _, name, _ in events):
            self._blocks += 1
            block = self._blocks, start, samples[: end - start], events
            self._writing = self._writer.submit(self._write_block, *block)

    def _write_block(
        self,
        number: int,
        start: int,
        samples: Float32,
        events: list[tuple[int, str, str]],
    ) -> None:
        """Write samples [n, C] from one on, with their events, as a run of the data
        set.
        """
        import mne
        import mne_bids

        rate_hz = self._format.rate_hz
        positions = self._format.positions
        is_meg = self._datatype == "meg"
        with _explain_errors(self._path.root):
            # a recording of mne, in its units, with the types of channels, the time and
            # the events
            info = mne.create_info(
                self._names, rate_hz, [*self._format.kinds], verbose="ERROR"
            )
            scaled = samples.T * self._scales[:, None]  # [C, n]
            raw = mne.io.RawArray(scaled, info, verbose="ERROR")
            raw.set_meas_date(self._began + timedelta(seconds=start / rate_hz))
            at, names, images = zip(*events, strict=True)
            pictures = self._list_stimuli(images)
            onsets_s = (np.array(at) - start) / rate_hz
            raw.set_annotations(mne.Annotations(onsets_s, 0.0, names, extras=pictures))
            if is_meg and positions is not None:
                for channel, position in zip(raw.info["chs"], positions, strict=True):
                    if np.isfinite(position).all():
                        channel["loc"][:3] = position

            # the run, which is listed in the table of scans once all its files are
            # there
            path = self._path.copy().update(task=TASK, run=f"{number:02d}")
            file_format = "FIF" if is_meg else "BrainVision"
            mne_bids.write_raw_bids(
                raw, path, allow_preload=True, format=file_format, verbose="ERROR"
            )

    def _list_stimuli(self, images: Sequence[str]) -> list[dict[str, str]]:
        """Name pictures as BIDS does, and list those that were shown so far."""
        self._shown |= dict.fromkeys(image for image in images if image != "n/a")
        ids = {
            image: f"stim-{number:05d}" for number, image in enumerate(self._shown, 1)
        }
        rows = [f"{ids[image]}\t{image}\t{self._type}\n" for image in ids]
        with atomic_write(self._path.root / "stimuli/stimuli.tsv") as part:
            part.write_text("stimulus_id\tfilename\ttype\n" + "".join(rows), "utf-8")
        return [
            {"stim_file": image, "stimulus_id": ids.get(image, "n/a")}
            for image in images
        ]

    def _write_positions(self) -> None:
        """Write the electrodes in mne's head frame, which BIDS calls CapTrak, where all
        are known.
        """
        # MEG needs no table, as its positions are in the .fif
        rows = [row for row, kind in enumerate(self._format.kinds) if kind == "eeg"]
        positions = self._format.positions
        if (
            self._datatype == "meg"
            or positions is None
            or not np.isfinite(positions[rows]).all()
        ):
            return
        # table of positions in metres, and the file that names its frame
        lines = [
            "\t".join([self._names[row], *map(repr, positions[row].tolist())])
            for row in rows
        ]
        table = self._path.copy().update(suffix="electrodes", extension=".tsv").fpath
        table.write_text("\n".join(["name\tx\ty\tz", *lines, ""]), "utf-8")
        frame = {"EEGCoordinateSystem": "CapTrak", "EEGCoordinateUnits": "m"}
        system = self._path.copy().update(suffix="coordsystem", extension=".json").fpath
        system.write_text(json.dumps(frame, indent=2) + "\n", "utf-8")


def _cell_text(text: str) -> str:
    """Write a text as a cell of a table; one that UTF-8 does not have has question
    marks.
    """
    return table_text(text.encode(errors="replace").decode()) or "n/a"


@contextmanager
def _explain_errors(root: Path) -> Iterator[None]:
    """Turn errors of the system, and of libraries that write for us, into two lines."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise BrainhiveError(
            f"{root}: the session cannot be saved: {first_line(error)}", WAY_OUT
        ) from error


def _scale_of(name: str, kind: str, unit: str) -> float:
    """Give the factor from a channel's samples to mne's unit.

    Raises:
        BrainhiveError: if they are of another quantity than the type of the channel.
    """
    # channels of other types have no unit in mne, and keep their numbers
    base = BASES.get(kind)
    if base is None:
        return 1.0
    # BrainVision's default unit
    if base == "V" and not unit.strip():
        return 1e-6
    factor, quantity = UNIT_SIZES.get(name_unit(unit), (0.0, ""))
    if quantity != base:
        raise BrainhiveError(
            f"channel {name} of type {kind} has the unit {unit or 'of nothing'}",
            "µV, mV or V for EEG; fT or T, fT/cm or T/m for MEG",
        )
    return factor
