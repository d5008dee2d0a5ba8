"""Session of one person, saved while it runs as a BIDS data set."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli import __version__
from brainhive_cli.core.arrays import Float32, Float64
from brainhive_cli.core.errors import BrainhiveError, first_line
from brainhive_cli.core.files import atomic_write, open_unless_link
from brainhive_cli.data.exchange.growing_run import GrowingRun
from brainhive_cli.data.files.bids_labels import DESCRIPTION, SIMULATED
from brainhive_cli.data.files.ids import table_text
from brainhive_cli.data.streams import StreamFormat
from brainhive_cli.models.signal_spec import UNIT_SIZES, name_unit

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
PAUSE_S, HELD_BACK_S = 10.0, 5.0
"""A block ends amid a pause of so many seconds between events, so that no trial is cut
and filters settle before the next one. The newest seconds wait in memory, as they may
belong to the next block.
"""
WRITE_EVERY_S = 1.0
"""Seconds of samples that are written at once."""
MAX_BLOCK_BYTES = 10**9
"""Samples of the longest block; mne reads no .fif file of more than 2 GB."""
WAY_OUT = "free space, or put the folder back; what was saved before can be prepared"


class SessionFolder:
    """A session of one person: samples and events by block, and results line by line.

    Each block is a run of the data set, which grows while it is recorded. A thread of
    its own appends to it once a second, so that a process that is killed loses the last
    `HELD_S` seconds and no more. A block begins with the first event. Positions of
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

        channels = zip(format.channels, format.channel_types, format.units, strict=True)
        self._scales = np.array([_scale_of(*channel) for channel in channels])

        # samples [n, C] that are not on the disk, and events by sample of the session,
        # marker and picture
        self._samples = [np.empty((0, len(format.channels)), np.float32)]
        self._events = list[tuple[int, str, str]]()
        # samples that have come, the first that waits, and the first of the block
        self._count = 0
        self._first = 0
        self._start = 0
        self._last_event = 0
        self._has_block = False
        self._format = format
        self._began = datetime.now(UTC)
        self._names = [NOT_IN_NAMES.sub("_", name) for name in format.channels]
        self._shown = dict[str, None]()
        # as BIDS calls them; categories have no files
        self._type = {"picture": "image", "clip": "video"}.get(stimulus, "n/a")
        self._datatype = (
            "eeg" if {"mag", "grad"}.isdisjoint(format.channel_types) else "meg"
        )
        self._path = mne_bids.BIDSPath(
            f"{subject:02d}", "01", datatype=self._datatype, root=root
        )

        # the thread that writes, and what it alone uses: the run, and numbers of kinds
        # of events
        self._writer = ThreadPoolExecutor(1)
        self._writing = Future[None]()
        self._writing.set_result(None)
        self._run: GrowingRun | None = None
        self._runs = 0
        self._kinds = dict[str, int]()

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
            self._results = open(path, "xb", buffering=0, opener=open_unless_link)  # noqa: SIM115
            self._write_positions()

    def add_samples(self, samples: Float64) -> None:
        """Append samples [n, C], in the units of the format; the block before them ends
        if it is time.

        Raises:
            BrainhiveError: if the disk is full or the folder gone, when samples before
                these were written.
        """
        # events of the samples before these have come by now
        rate_hz = self._format.rate_hz
        size = 4 * samples.shape[1]
        held = round(HELD_BACK_S * rate_hz)
        is_full = (self._count - self._start) * size > MAX_BLOCK_BYTES
        if is_full or self._count - self._last_event > PAUSE_S * rate_hz:
            self._write(self._count - held, is_end=True)
        elif (
            self._count - self._first > held + WRITE_EVERY_S * rate_hz
            and self._writing.done()
        ):
            self._write(self._count - held)
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
        """Write the samples that wait, and end the last block; may be called twice.

        Raises:
            BrainhiveError: see `add`.
        """
        self._results.close()
        with self._writer:
            if self._count > self._first:
                self._write(self._count, is_end=True)
        self._writing.result()

    def _write(self, stop: int, is_end: bool = False) -> None:
        """Have samples up to one written, with their events. Those of a block without
        events are dropped when it ends.
        """
        # what was written before is there, or raises why not
        self._writing.result()

        # events of these samples; later ones wait for theirs
        events = sorted(
            event for event in self._events if self._start <= event[0] < stop
        )
        is_begun = any(name != GAP for _, name, _ in events)
        if not (is_end or self._has_block or is_begun):
            return
        self._events = [event for event in self._events if event[0] >= stop]
        samples = np.concatenate(self._samples)
        self._samples = [samples[stop - self._first :].copy()]
        if self._has_block or is_begun:
            written = samples[: stop - self._first]
            block = self._start, written, events, is_end
            self._writing = self._writer.submit(self._write_samples, *block)
            self._has_block = True
        self._first = stop
        if is_end:
            self._start = stop
            self._has_block = False
            self._last_event = self._count

    def _write_samples(
        self,
        start: int,
        samples: Float32,
        events: list[tuple[int, str, str]],
        is_end: bool,
    ) -> None:
        """Append samples [n, C] and events to the run of the block that began with a
        sample; the run is made with the first.
        """
        with _explain_errors(self._path.root):
            if self._run is None:
                self._runs += 1
                self._run = self._make_run(start)
            ids = self._list_stimuli([image for _, _, image in events])
            rows = []
            for sample, name, image in events:
                kind = self._kinds.setdefault(name, len(self._kinds) + 1)
                columns = {
                    "trial_type": name,
                    "stim_file": image,
                    "stimulus_id": ids.get(image, "n/a"),
                }
                rows.append((sample - start, kind, columns))
            self._run.append(samples, rows)
            if is_end:
                self._run.finish()
                self._run = None

    def _make_run(self, start: int) -> GrowingRun:
        """Make the files of a run whose first sample is given."""
        import mne

        format = self._format
        rate_hz = self._format.rate_hz
        info = mne.create_info(
            self._names, rate_hz, [*format.channel_types], verbose="ERROR"
        )
        if self._datatype == "meg" and format.positions is not None:
            for channel, position in zip(info["chs"], format.positions, strict=True):
                if np.isfinite(position).all():
                    channel["loc"][:3] = position
        path = self._path.copy().update(task=TASK, run=f"{self._runs:02d}")
        began = self._began + timedelta(seconds=start / rate_hz)
        return GrowingRun(path, info, began, self._scales)

    def _list_stimuli(self, images: Sequence[str]) -> dict[str, str]:
        """Give all pictures that were shown so far their stimulus_id, and list them."""
        count = len(self._shown)
        self._shown |= dict.fromkeys(image for image in images if image != "n/a")
        ids = {
            image: f"stim-{number:05d}" for number, image in enumerate(self._shown, 1)
        }
        table = self._path.root / "stimuli/stimuli.tsv"
        if len(ids) > count or not table.exists():
            rows = [f"{ids[image]}\t{image}\t{self._type}\n" for image in ids]
            with atomic_write(table) as part:
                header = "stimulus_id\tfilename\ttype\n"
                part.write_text(header + "".join(rows), "utf-8")
        return ids

    def _write_positions(self) -> None:
        """Write the electrodes in mne's head frame, which BIDS calls CapTrak, where all
        are known.
        """
        # MEG needs no table, as its positions are in the .fif
        rows = [
            row for row, kind in enumerate(self._format.channel_types) if kind == "eeg"
        ]
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
