"""A live session of one person, saved while it runs as a BIDS data set."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainhive_cli import __version__
from brainhive_cli.core.base import BrainhiveError, Float32, Float64, first_line
from brainhive_cli.core.files import atomic_write, open_unless_link
from brainhive_cli.data.exchange.growing_run import GrowingRun
from brainhive_cli.data.files import DESCRIPTION, SIMULATED, to_table_cell
from brainhive_cli.data.streams import StreamFormat
from brainhive_cli.models import UNIT_SIZES, normalise_unit

TASK = "live"
GAP = "BAD boundary"
"""Annotation where samples are missing."""
MISSING_CELL = "n/a"
PAUSE_S = 10.0
"""Time without events after which a block ends, so that no trial is cut and filters
settle before the next trial.
"""
HELD_BACK_S = 5.0
"""Newest samples in memory, which may belong to the next block."""
MAX_BLOCK_BYTES = 10**9
"""Largest size of a block's samples. MNE reads .fif files of at most 2 GB."""


class _Event(NamedTuple):
    """Event at a sample of the session, with its marker and picture."""

    sample: int
    marker: str
    image: str


class SessionFolder:
    """A BIDS data set to which a live session appends samples, events and results.

    A block lasts from its first event to a pause and becomes a run. Samples are written
    every second. If the process is killed, the last `HELD_BACK_S` seconds are lost.
    One thread calls all methods except `add_result`, which other threads may call.
    `stimuli/stimuli.tsv` lists the pictures as BIDS extension 44 (a draft) proposes.

    Args:
        root: New folder of the data set.
        format: Format of the stream.
        subject: Number of the person.
        stimulus: Kind of the stimuli, such as "picture".

    Raises:
        BrainhiveError: if a unit cannot be converted, or the folder cannot be written.
    """

    def __init__(
        self, root: Path, format: StreamFormat, subject: int, stimulus: str = "picture"
    ) -> None:
        # this import takes seconds, so it precedes the session
        import mne_bids

        channels = zip(format.channels, format.channel_types, format.units, strict=True)
        self._scales = np.array([_find_scale(*channel) for channel in channels])

        # samples [n, C] in memory, and sample numbers of the session
        self._samples = [np.empty((0, len(format.channels)), np.float32)]
        self._events: list[_Event] = []
        self._n_samples = 0
        self._n_written = 0
        self._block_start = 0
        self._last_event = 0
        self._has_block = False
        self._format = format
        self._start_time = datetime.now(UTC)
        self._channel_names = [
            # Text in channel names that BrainVision, tables or MNE cannot hold.
            re.sub(r'[\[\]"\\]|[^\w -~]|^\s+|\s+$|^n/a$', "_", name)
            for name in format.channels
        ]
        self._stimulus_ids: dict[str, str] = {}
        # BIDS type by kind of stimulus. Categories have no files.
        stimulus_types = {"picture": "image", "clip": "video"}
        self._stimulus_type = stimulus_types.get(stimulus, MISSING_CELL)
        is_meg = not {"mag", "grad"}.isdisjoint(format.channel_types)
        self._datatype = "meg" if is_meg else "eeg"
        self._path = mne_bids.BIDSPath(
            f"{subject:02d}", "01", datatype=self._datatype, root=root
        )

        # the thread that writes, and variables that only this thread uses
        self._writer = ThreadPoolExecutor(1)
        self._writing = Future[None]()
        self._writing.set_result(None)
        self._run: GrowingRun | None = None
        self._n_runs = 0
        self._event_numbers: dict[str, int] = {}

        # mne-bids adds further keys to the description
        generator = {
            "Name": "Brainhive",
            "Version": __version__,
            "Description": format.simulated or TASK,
        }
        description: dict[str, Any] = {
            "Name": root.resolve().name,
            "GeneratedBy": [generator],
        }
        if format.simulated:
            description[SIMULATED] = format.simulated
        with _report_write_errors(root):
            self._path.directory.mkdir(parents=True)
            _write_json(root / DESCRIPTION, description)
            (root / ".bidsignore").write_text("results.jsonl\n")
            path = root / "results.jsonl"
            self._results = open(path, "xb", buffering=0, opener=open_unless_link)  # noqa: SIM115
            self._write_positions()

    def add_samples(self, samples: Float64) -> None:
        """Append samples [n, C] in the units of the format, and write earlier samples.

        Raises:
            BrainhiveError: if earlier samples could not be written.
        """
        rate_hz = self._format.rate_hz
        n_held_back = round(HELD_BACK_S * rate_hz)
        stop = self._n_samples - n_held_back
        block_bytes = (self._n_samples - self._block_start) * 4 * samples.shape[1]
        is_pause = self._n_samples - self._last_event > PAUSE_S * rate_hz
        write_interval_s = 1.0
        is_due = stop - self._n_written > write_interval_s * rate_hz
        if is_pause or block_bytes > MAX_BLOCK_BYTES:
            self._write(stop, is_end=True)
        elif is_due and self._writing.done():
            self._write(stop)
        self._samples.append(samples.astype(np.float32))
        self._n_samples += len(samples)

    def add_event(self, sample: int, name: str, image: str) -> None:
        """Append an event.

        Args:
            sample: Number of the sample in the session, from 0.
            name: Marker. "event" precedes names by which MNE would reject trials.
            image: Id of the picture that was shown, or "".
        """
        marker = _make_cell(name)
        # Prefix of annotations by which MNE and `prepare` reject trials.
        if re.match("bad|edge", marker, re.IGNORECASE):
            marker = f"event {marker}"
        self._events.append(_Event(sample, marker, _make_cell(image)))
        self._last_event = max(self._last_event, sample)

    def mark_gap(self, sample: int) -> None:
        """Mark missing samples before a sample, so that trials across are rejected."""
        self._events.append(_Event(sample, GAP, MISSING_CELL))

    def add_result(self, result: Mapping[str, Any]) -> None:
        """Append a line to results.jsonl, without a buffer that a killed process loses.

        Raises:
            BrainhiveError: if the line cannot be written.
        """
        line = json.dumps(
            dict(result), ensure_ascii=False, default=lambda value: value.tolist()
        )
        with _report_write_errors(self._path.root):
            self._results.write(f"{line}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        """Write all samples and end the last block. Further calls do nothing.

        Raises:
            BrainhiveError: if samples cannot be written.
        """
        self._results.close()
        with self._writer:
            if self._n_samples > self._n_written:
                self._write(self._n_samples, is_end=True)
        self._writing.result()

    def _write(self, stop: int, is_end: bool = False) -> None:
        """Start to write the samples before `stop`, with their events.

        If `is_end`, the block ends. A block without events is not written.
        """
        # raise the error of the previous write, if any
        self._writing.result()

        # take the events of the block before `stop`
        start = self._block_start
        events = sorted(event for event in self._events if start <= event.sample < stop)
        has_events = any(event.marker != GAP for event in events)
        is_in_block = self._has_block or has_events
        if not is_end and not is_in_block:
            return
        self._events = [event for event in self._events if event.sample >= stop]
        samples = np.concatenate(self._samples)
        n_new = stop - self._n_written
        self._samples = [samples[n_new:].copy()]
        if is_in_block:
            self._writing = self._writer.submit(
                self._append_to_run, start, samples[:n_new], events, is_end
            )
            self._has_block = True
        self._n_written = stop
        if is_end:
            self._block_start = stop
            self._has_block = False
            self._last_event = self._n_samples

    def _append_to_run(
        self, start: int, samples: Float32, events: list[_Event], is_end: bool
    ) -> None:
        """Append samples [n, C] and events to the run that begins at sample `start`."""
        with _report_write_errors(self._path.root):
            if self._run is None:
                self._n_runs += 1
                self._run = self._make_run(start)
            self._list_stimuli(event.image for event in events)
            rows = []
            for sample, marker, image in events:
                number = self._event_numbers.setdefault(
                    marker, len(self._event_numbers) + 1
                )
                columns = {
                    "trial_type": marker,
                    "stim_file": image,
                    "stimulus_id": self._stimulus_ids.get(image, MISSING_CELL),
                }
                rows.append((sample - start, number, columns))
            self._run.append(samples, rows)
            if is_end:
                self._run.finish()
                self._run = None

    def _make_run(self, start: int) -> GrowingRun:
        """Make the files of the run from sample `start`, with positions of MEG."""
        import mne

        format = self._format
        info = mne.create_info(
            self._channel_names,
            format.rate_hz,
            list(format.channel_types),
            verbose="ERROR",
        )
        if self._datatype == "meg" and format.positions is not None:
            for channel, position in zip(info["chs"], format.positions, strict=True):
                if np.isfinite(position).all():
                    channel["loc"][:3] = position
        path = self._path.copy().update(task=TASK, run=f"{self._n_runs:02d}")
        start_time = self._start_time + timedelta(seconds=start / format.rate_hz)
        return GrowingRun(path, info, start_time, self._scales)

    def _list_stimuli(self, images: Iterable[str]) -> None:
        """Give new pictures a stimulus_id, and write all to stimuli/stimuli.tsv."""
        ids = self._stimulus_ids
        n_before = len(ids)
        for image in images:
            if image != MISSING_CELL:
                ids.setdefault(image, f"stim-{len(ids) + 1:05d}")
        table = self._path.root / "stimuli/stimuli.tsv"
        if len(ids) > n_before or not table.exists():
            rows = "stimulus_id\tfilename\ttype\n"
            for image, stimulus_id in ids.items():
                rows += f"{stimulus_id}\t{image}\t{self._stimulus_type}\n"
            with atomic_write(table) as path:
                path.write_text(rows, "utf-8")

    def _write_positions(self) -> None:
        """Write the positions of EEG electrodes, if all are known.

        MEG positions are in the .fif files.
        """
        positions = self._format.positions
        if self._datatype == "meg" or positions is None:
            return
        lines = ["name\tx\ty\tz"]
        for name, channel_type, position in zip(
            self._channel_names, self._format.channel_types, positions, strict=True
        ):
            if channel_type == "eeg":
                if not np.isfinite(position).all():
                    return
                x, y, z = position.tolist()
                lines.append(f"{name}\t{x}\t{y}\t{z}")
        table = self._path.copy().update(suffix="electrodes", extension=".tsv").fpath
        table.write_text("\n".join(lines) + "\n", "utf-8")
        sidecar = self._path.copy().update(suffix="coordsystem", extension=".json")
        # BIDS name of the head frame of MNE, and its unit.
        coordinate_system = {
            "EEGCoordinateSystem": "CapTrak",
            "EEGCoordinateUnits": "m",
        }
        _write_json(sidecar.fpath, coordinate_system)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _make_cell(text: str) -> str:
    """Make a table cell, with ? for characters that UTF-8 cannot encode."""
    return to_table_cell(text.encode(errors="replace").decode()) or MISSING_CELL


@contextmanager
def _report_write_errors(root: Path) -> Iterator[None]:
    """Report errors of the system and of libraries as errors of the data set."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise BrainhiveError(
            f"{root}: the session cannot be saved: {first_line(error)}",
            "free space, or restore the folder; earlier blocks can be prepared",
        ) from error


def _find_scale(name: str, channel_type: str, unit: str) -> float:
    """Return the factor from a channel's samples to the unit of MNE.

    Raises:
        BrainhiveError: if the unit does not fit the channel type.
    """
    # Unit of MNE by channel type. Samples of other types are saved unchanged.
    mne_units = {
        "mag": "T",
        "grad": "T/m",
        **dict.fromkeys(("eeg", "eog", "ecg", "emg", "ecog", "seeg", "dbs"), "V"),
    }
    mne_unit = mne_units.get(channel_type)
    if mne_unit is None:
        return 1.0
    if mne_unit == "V" and not unit.strip():
        # BrainVision's unit of voltages without a unit.
        default_voltage_v = 1e-6
        return default_voltage_v
    factor, quantity = UNIT_SIZES.get(normalise_unit(unit), (0.0, ""))
    if quantity != mne_unit:
        raise BrainhiveError(
            f"channel {name} of type {channel_type} has the unit {unit or 'none'}",
            "use µV, mV or V for EEG, and fT, T, fT/cm or T/m for MEG",
        )
    return factor
