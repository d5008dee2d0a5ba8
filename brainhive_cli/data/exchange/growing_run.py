"""Run of a BIDS data set that grows while it is recorded."""

import json
import struct
import warnings
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.base import Float32, Float64
from brainhive_cli.core.files import atomic_write

FLOAT32 = 4
"""Type of tags with float32 samples. Source: mne.io.constants.FIFF."""


class GrowingRun:
    """Run of a BIDS data set that can be read at any time while it grows.

    mne-bids writes the files of the run with a single sample and event, which are
    removed. Then samples and events are appended, to BrainVision files for EEG, and to
    a .fif file for MEG.

    Args:
        path: `mne_bids.BIDSPath` of the run, which has no files.
        info: `mne.Info` of the C channels.
        start_time: Time of the first sample.
        scales: Factors [C] from the appended samples to the units of MNE.

    Raises:
        OSError, RuntimeError, ValueError: if the files cannot be written.
    """

    def __init__(
        self, path: Any, info: Any, start_time: datetime, scales: Float64
    ) -> None:
        import mne
        import mne_bids

        # write ones, which the file holds as factors from MNE's units to its own
        raw = mne.io.RawArray(np.ones((len(info["chs"]), 1)), info, verbose="ERROR")
        raw.set_meas_date(start_time)
        extras = [{"stim_file": "n/a", "stimulus_id": "n/a"}]
        raw.set_annotations(mne.Annotations(0.0, 0.0, "event", extras=extras))
        is_fif = path.datatype == "meg"
        with warnings.catch_warnings():
            # pybv warns of each channel that is not a voltage
            warnings.filterwarnings("ignore", "Encountered unsupported non-voltage")
            header_path = mne_bids.write_raw_bids(
                raw,
                path,
                allow_preload=True,
                format="FIF" if is_fif else "BrainVision",
                verbose="ERROR",
            ).fpath
        self._sfreq = float(info["sfreq"])
        self._data_path = header_path if is_fif else header_path.with_suffix(".eeg")
        self._is_fif = is_fif
        self._dtype = ">f4" if is_fif else "<f4"

        # remove the sample, and keep the bytes before and after it
        content = self._data_path.read_bytes()
        head = tail = b""
        file_dtype = "<f4"
        if is_fif:
            # mne-bids writes float64, although float32 is appended
            file_dtype = ">f8"
            n_bytes = 8 * len(scales)
            # Type of tags with float64 samples. Source: mne.io.constants.FIFF.
            head, _, data = content.rpartition(_make_tag(5, n_bytes))
            content = data[:n_bytes]
            tail = data[n_bytes:]
        self._scales = scales * np.frombuffer(content, file_dtype)
        self._end = len(head)
        self._tail = tail
        self._data_path.write_bytes(head + tail)

        # remove the event
        self._events_path = path.copy().update(suffix="events", extension=".tsv").fpath
        heading = self._events_path.read_bytes().splitlines()[0]
        self._columns = heading.decode("utf-8-sig").split("\t")
        self._events_path.write_text("\t".join(self._columns) + "\n", "utf-8")
        self._markers_path = None if is_fif else header_path.with_suffix(".vmrk")
        if self._markers_path is not None:
            content = self._markers_path.read_bytes()
            # Start of the first marker in a .vmrk file.
            self._markers_path.write_bytes(content.partition(b"Mk1=")[0])
        self._sidecar_path = header_path.with_suffix(".json")
        self._n_samples = 0
        self._n_events = 0

    def append(
        self, samples: Float32, events: Iterable[tuple[int, int, Mapping[str, str]]]
    ) -> None:
        """Append samples, then events.

        Args:
            samples: Samples [n, C].
            events: Sample number in the run, number of the event's kind, and further
                columns of the events table.

        Raises:
            OSError: if the disk is full or fails. The new samples are removed again.
        """
        if len(samples):
            values = (samples * self._scales).astype(self._dtype).tobytes()
            if self._is_fif:
                values = _make_tag(FLOAT32, len(values)) + values
            # the tail of a .fif file moves behind the new samples
            with self._data_path.open("r+b", buffering=0) as file:
                file.seek(self._end)
                unwritten = memoryview(values + self._tail)
                try:
                    while unwritten:
                        n_written = file.write(unwritten)
                        unwritten = unwritten[n_written:]
                except OSError:
                    file.truncate(self._end)
                    file.seek(self._end)
                    file.write(self._tail)
                    raise
            self._end += len(values)
            self._n_samples += len(samples)

        rows = ""
        markers = ""
        for sample, number, columns in events:
            self._n_events += 1
            row = {
                "onset": sample / self._sfreq,
                "duration": 0.0,
                "sample": sample,
                "value": number,
                **columns,
            }
            cells = [str(row.get(column, "n/a")) for column in self._columns]
            rows += "\t".join(cells) + "\n"
            # BrainVision counts from 1
            markers += f"Mk{self._n_events}=Stimulus,S{number:3d},{sample + 1},1,0\n"
        if rows:
            _append_text(self._events_path, rows)
            if self._markers_path is not None:
                _append_text(self._markers_path, markers)

    def finish(self) -> None:
        """Write the duration of the run to its sidecar.

        Raises:
            OSError: if the disk is full or fails.
        """
        sidecar = json.loads(self._sidecar_path.read_text("utf-8"))
        sidecar["RecordingDuration"] = self._n_samples / self._sfreq
        with atomic_write(self._sidecar_path) as path:
            path.write_text(json.dumps(sidecar, indent=4) + "\n", "utf-8")


def _make_tag(data_type: int, n_bytes: int) -> bytes:
    """Make the .fif tag that precedes the bytes of samples."""
    # Kind of the .fif tags that hold samples. Source: mne.io.constants.FIFF.
    return struct.pack(">IIii", 300, data_type, n_bytes, 0)


def _append_text(path: Path, text: str) -> None:
    with path.open("ab") as file:
        file.write(text.encode())
