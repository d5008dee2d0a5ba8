"""A run of a BIDS data set to which samples and events are appended while they are
recorded.
"""

import json
import struct
import warnings
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.arrays import Float32, Float64
from brainhive_cli.core.files import atomic_write

DATA_BUFFER, FLOAT, DOUBLE = 300, 4, 5
"""Kind of the tags that hold samples in a .fif file, and two of their types
(mne.io.constants.FIFF).
"""
FIRST_MARKER = b"Mk1="
"""Beginning of the first marker in a .vmrk file."""


class GrowingRun:
    """A run of a BIDS data set that can be read at any moment while it grows.

    mne-bids writes all files of a run with one sample and one event. Both are cut off
    again, and samples and events are appended from then on: EEG as BrainVision, MEG as
    .fif. A process that is killed therefore leaves a run that ends with the samples
    that were appended last.

    Args:
        path: An `mne_bids.BIDSPath` of the run, of which there are no files yet.
        info: mne's description of the C channels.
        began: Time of the first sample.
        scales: Factors [C] from the samples that will be appended to mne's units.

    Raises:
        OSError, RuntimeError, ValueError: if the files cannot be written.
    """

    def __init__(self, path: Any, info: Any, began: datetime, scales: Float64) -> None:
        import mne
        import mne_bids

        # a sample of ones shows by which factors the file's numbers differ from mne's
        raw = mne.io.RawArray(np.ones((len(info["chs"]), 1)), info, verbose="ERROR")
        raw.set_meas_date(began)
        extras = [{"stim_file": "n/a", "stimulus_id": "n/a"}]
        raw.set_annotations(mne.Annotations(0.0, 0.0, "event", extras=extras))
        is_fif = path.datatype == "meg"
        with warnings.catch_warnings():
            # pybv warns of every channel that is no voltage
            warnings.filterwarnings("ignore", "Encountered unsupported non-voltage")
            written = mne_bids.write_raw_bids(
                raw,
                path,
                allow_preload=True,
                format="FIF" if is_fif else "BrainVision",
                verbose="ERROR",
            ).fpath
        self._rate_hz = float(info["sfreq"])
        self._data = written if is_fif else written.with_suffix(".eeg")
        self._is_fif = is_fif
        self._dtype = ">f4" if is_fif else "<f4"

        # cut off the sample, and keep what ends the file after the last sample
        head = b""
        tail = b""
        ones = self._data.read_bytes()
        if is_fif:
            # which mne-bids writes in double precision
            size = 8 * len(scales)
            head, _, rest = ones.rpartition(_write_tag(DOUBLE, size))
            ones = rest[:size]
            tail = rest[size:]
        self._scales = scales * np.frombuffer(ones, ">f8" if is_fif else "<f4")
        self._end = len(head)
        self._tail = tail
        self._data.write_bytes(head + tail)

        # cut off the event
        self._table = path.copy().update(suffix="events", extension=".tsv").fpath
        first_line = self._table.read_bytes().splitlines()[0]
        self._columns = first_line.decode("utf-8-sig").split("\t")
        self._table.write_text("\t".join(self._columns) + "\n", "utf-8")
        self._markers = None if is_fif else written.with_suffix(".vmrk")
        if self._markers is not None:
            start, _, _ = self._markers.read_bytes().partition(FIRST_MARKER)
            self._markers.write_bytes(start)
        self._sidecar = written.with_suffix(".json")
        self._samples = 0
        self._events = 0

    def append(
        self, samples: Float32, events: Iterable[tuple[int, int, Mapping[str, str]]]
    ) -> None:
        """Append samples, and then events.

        Args:
            samples: [n, C], which follow those that were appended before.
            events: Sample of each, counted from the first of the run, the number of
                its kind, and further columns of the table of events.

        Raises:
            OSError: if the disk is full or fails; the run ends with the samples before.
        """
        if len(samples):
            values = (samples * self._scales).astype(self._dtype).tobytes()
            if self._is_fif:
                values = _write_tag(FLOAT, len(values)) + values
            # the end of a .fif file is written over, and follows again
            with self._data.open("r+b", buffering=0) as file:
                file.seek(self._end)
                remaining = memoryview(values + self._tail)
                try:
                    while remaining:
                        remaining = remaining[file.write(remaining) :]
                except OSError:
                    file.truncate(self._end)
                    file.seek(self._end)
                    file.write(self._tail)
                    raise
            self._end += len(values)
            self._samples += len(samples)

        rows = ""
        markers = ""
        for sample, kind, columns in events:
            self._events += 1
            row = {
                "onset": sample / self._rate_hz,
                "duration": 0.0,
                "sample": sample,
                "value": kind,
                **columns,
            }
            cells = [str(row.get(column, "n/a")) for column in self._columns]
            rows += "\t".join(cells) + "\n"
            # BrainVision counts from 1
            markers += f"Mk{self._events}=Stimulus,S{kind:3d},{sample + 1},1,0\n"
        if rows:
            _append_text(self._table, rows)
            if self._markers is not None:
                _append_text(self._markers, markers)

    def finish(self) -> None:
        """Write how long the run is.

        Raises:
            OSError: if the disk is full or fails.
        """
        about = json.loads(self._sidecar.read_text("utf-8"))
        about["RecordingDuration"] = self._samples / self._rate_hz
        with atomic_write(self._sidecar) as part:
            part.write_text(json.dumps(about, indent=4) + "\n", "utf-8")


def _write_tag(type: int, size: int) -> bytes:
    """Write the tag that precedes so many bytes of samples in a .fif file."""
    return struct.pack(">IIii", DATA_BUFFER, type, size, 0)


def _append_text(path: Path, text: str) -> None:
    with path.open("ab") as file:
        file.write(text.encode())
