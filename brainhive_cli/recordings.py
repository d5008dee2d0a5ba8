"""Recordings and the signal store: one subject's signals by split, mapped into memory."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from brainhive_cli import store
from brainhive_cli.errors import BrainhiveError, MissingData
from brainhive_cli.names import Names

FORMAT = 1
CHUNK = 256
"""Pictures copied at a time."""


@dataclass(frozen=True)
class Recording:
    """What one subject's brain did while the pictures of one split were shown.

    Attributes:
        signal: [N, R, C, T], sliceable along N; need not be in memory.
        image_ids: [N] image ids, or file stems where the source knows no more.
        times_s: [T] seconds after the picture came on.
        repetitions: [N] how many of R there are; None when all are.
    """

    signal: Any
    image_ids: Sequence[str]
    channels: Sequence[str]
    times_s: NDArray[np.float64]
    rate_hz: float
    unit: str
    provenance: dict[str, Any] = field(default_factory=dict)
    repetitions: NDArray[np.int64] | None = None


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
            BrainhiveError: if the file is corrupt or of another format.
        """
        with store.open_file(path, "run the command that needs the signals again") as file:
            attributes = store.get_attributes(file)
            if attributes.get("format") != FORMAT or attributes.get("holds") != "signal":
                raise BrainhiveError(
                    f"{path} is not a signal store of format {FORMAT}", "delete it and run again"
                )
            return cls(path, {split: _recording(file, split, attributes) for split in attributes["splits"]})

    def __getitem__(self, split: str) -> Recording:
        """Return the recording of a split; MissingData when the store does not have it."""
        if split not in self.splits:
            raise MissingData(f"{self.path} has no {split} signals", f"it has: {', '.join(self.splits)}")
        return self.splits[split]

    @staticmethod
    def write(path: Path, recordings: Mapping[str, Recording]) -> None:
        """Write one subject's recordings by split; the final name appears when all is there."""
        part, first = store.part_of(path), next(iter(recordings.values()))
        claim = store.Claim.beside(path)
        spaces = {f"{split}/signal": (tuple(r.signal.shape), "float32") for split, r in recordings.items()}
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
        }
        store.create(part, spaces, arrays, attributes)
        for split, recording in recordings.items():
            _copy(part, f"{split}/signal", recording.signal)
        os.replace(part, path)
        claim.release()


def path_of(signals: Path, dataset: str, name: str, subject: int) -> Path:
    """Say where a subject's store lies."""
    return signals / dataset / name / f"sub-{subject:02d}.h5"


def _copy(part: Path, dataset: str, signal: Any) -> None:
    writer = store.RowWriter(part, dataset)
    for start in range(0, len(signal), CHUNK):
        values = np.asarray(signal[start : start + CHUNK], np.float32)
        writer.write(np.arange(start, start + len(values)), values)
    writer.close()


def _recording(file: h5py.File, split: str, attributes: dict[str, Any]) -> Recording:
    group = file[split]
    return Recording(
        signal=store.mapped(group["signal"]),
        image_ids=Names(group["image_id"][()]),
        channels=attributes["channels"],
        times_s=np.asarray(attributes["times_s"]),
        rate_hz=attributes["rate_hz"],
        unit=attributes["unit"],
        provenance=attributes["provenance"][split],
        repetitions=group["repetitions"][()],
    )
