"""Recordings and the signal store: one subject's signals by split, mapped into memory."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.file_lock import FileLock
from brainhive_cli.stores import hdf5
from brainhive_cli.stores.ids import Names

FORMAT = 1
CHUNK = 256
"""Pictures copied at a time."""
STEP_TOLERANCE = 0.02
"""Share of the time between samples by which it may differ from 1 / rate, as after resampling."""


@dataclass(frozen=True)
class Recording:
    """What one subject's brain did while the pictures of one split were shown.

    Attributes:
        signal: [N, R, C, T], sliceable along N, of the source's dtype; need not be in memory.
        image_ids: [N] image ids, or file stems where the source knows no more.
        times_s: [T] seconds after the picture came on.
        repetitions: [N] how many of R there are; None when all are.

    Raises:
        BrainhiveError: if an axis of the signal is of another length than its list, or the times are not
            those of the rate.
    """

    signal: Any
    image_ids: Sequence[str]
    channels: Sequence[str]
    times_s: NDArray[np.float64]
    rate_hz: float
    unit: str
    provenance: dict[str, Any] = field(default_factory=dict)
    repetitions: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Hold every axis against every list."""
        shape = list(self.signal.shape)
        if len(shape) != 4:
            raise BrainhiveError(f"signals {shape} are not [N, R, C, T]")
        lists = {"image ids": 0, "repetitions": 0, "channels": 2, "times_s": 3}
        for name, axis in lists.items():
            found = getattr(self, name.replace(" ", "_"))
            if found is not None and len(found) != shape[axis]:
                raise BrainhiveError(
                    f"signals {shape} come with {len(found)} {name.removesuffix('_s')}, not {shape[axis]}"
                )
        counts = np.asarray(shape[1] if self.repetitions is None else self.repetitions)
        if ((counts < 1) | (counts > shape[1])).any():
            raise BrainhiveError(f"signals {shape} come with counts of repetitions beyond 1 to {shape[1]}")
        steps = np.diff(self.times_s) * self.rate_hz  # [T - 1], 1 each
        if not (np.abs(steps - 1) <= STEP_TOLERANCE).all():  # of NaN, too
            raise BrainhiveError(
                f"times lie {steps[np.abs(steps - 1).argmax()] * 1000 / self.rate_hz:g} ms apart, "
                f"not {1000 / self.rate_hz:g} ms as at {self.rate_hz:g} Hz"
            )


@dataclass(frozen=True)
class SignalStore:
    """One subject's finished signal store."""

    path: Path
    splits: Mapping[str, Recording]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a store; the signals stay on disk until sliced.

        Raises:
            MissingData: if there is none.
            BrainhiveError: if the file is corrupt or of another format, or an axis does not fit its list.
        """
        with hdf5.open_file(path, "run the command that needs the signals again") as file:
            attributes = hdf5.get_attributes(file)
            if attributes.get("format") != FORMAT or attributes.get("holds") != "signal":
                raise BrainhiveError(
                    f"{path} is not a signal store of format {FORMAT}", "delete it and run again"
                )
            try:
                return cls(
                    path, {split: _recording(file, split, attributes) for split in attributes["splits"]}
                )
            except BrainhiveError as error:
                raise BrainhiveError(f"{path}: {error.message}", "delete it and run again") from error

    def __getitem__(self, split: str) -> Recording:
        """Return the recording of a split; MissingData when the store does not have it."""
        if split not in self.splits:
            raise MissingData(f"{self.path} has no {split} signals", f"it has: {', '.join(self.splits)}")
        return self.splits[split]

    @staticmethod
    def write(path: Path, recordings: Mapping[str, Recording]) -> None:
        """Write one subject's recordings by split; the final name appears when all is there.

        Signals of float16 stay so; others are kept as float32.

        Raises:
            BrainhiveError: if the splits differ in channels, times, rate or unit.
        """
        part, first = hdf5.part_of(path), next(iter(recordings.values()))
        for split, recording in recordings.items():
            if difference := _difference(first, recording):
                raise BrainhiveError(
                    f"{path.stem}: the {split} signals have other {difference} than the first"
                )
        claim = FileLock.for_path(path)
        spaces = {f"{split}/signal": (tuple(r.signal.shape), _dtype(r)) for split, r in recordings.items()}
        arrays: dict[str, NDArray[Any]] = {}
        for split, recording in recordings.items():
            count, most = recording.signal.shape[:2]
            arrays[f"{split}/image_id"] = Names.of(recording.image_ids).packed
            arrays[f"{split}/repetitions"] = (
                np.full(count, most) if recording.repetitions is None else recording.repetitions
            )
        attributes = {
            "format": FORMAT,
            "holds": "signal",
            "splits": list(recordings),
            "channels": list(first.channels),
            "times_s": [round(float(t), 6) for t in first.times_s],
            "rate_hz": float(first.rate_hz),
            "unit": first.unit,
            "provenance": {split: recording.provenance for split, recording in recordings.items()},
            "pictures": {
                split: Names.of(recording.image_ids).digest for split, recording in recordings.items()
            },
        }
        hdf5.create(part, spaces, arrays, attributes)
        for split, recording in recordings.items():
            _copy(part, f"{split}/signal", recording.signal)
        os.replace(part, path)
        claim.release()


def path_of(signals: Path, dataset: str, name: str, subject: int) -> Path:
    """Say where a subject's store lies."""
    return signals / dataset / name / f"sub-{subject:02d}.h5"


def size_of(recording: Recording) -> int:
    """Count the bytes that a recording takes in a store."""
    return int(np.prod(recording.signal.shape)) * np.dtype(_dtype(recording)).itemsize


def _dtype(recording: Recording) -> str:
    return "float16" if recording.signal.dtype == np.float16 else "float32"


def _difference(first: Recording, other: Recording) -> str:
    """Say in what two splits differ that a store keeps once; empty if in nothing."""
    for name in ("channels", "times_s", "rate_hz", "unit"):
        if not np.array_equal(getattr(first, name), getattr(other, name)):
            return name.removesuffix("_s")
    return ""


def _copy(part: Path, dataset: str, signal: Any) -> None:
    writer = hdf5.RowWriter(part, dataset)
    for start in range(0, len(signal), CHUNK):
        values = np.asarray(signal[start : start + CHUNK])
        writer.write(np.arange(start, start + len(values)), values)
    writer.close()


def _recording(file: h5py.File, split: str, attributes: dict[str, Any]) -> Recording:
    group = file[split]
    return Recording(
        signal=hdf5.mapped(group["signal"]),
        image_ids=Names(group["image_id"][()]),
        channels=attributes["channels"],
        times_s=np.asarray(attributes["times_s"]),
        rate_hz=attributes["rate_hz"],
        unit=attributes["unit"],
        provenance=attributes["provenance"][split],
        repetitions=group["repetitions"][()],
    )
