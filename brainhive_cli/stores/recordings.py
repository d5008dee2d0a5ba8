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

FORMAT = 2
"""Of a signal store. The first held sensors only; it is still read."""
CHUNK = 256
"""Stimuli copied at a time."""
STEP_TOLERANCE = 0.02
"""Share of the time between samples by which it may differ from 1 / rate, as after resampling."""


@dataclass(frozen=True)
class Sensors:
    """Where the C channels of a signal were recorded.

    Attributes:
        names: [C] in the order of the signal.
        positions: [C, 3] in metres, where they are known.
    """

    names: Sequence[str]
    positions: NDArray[np.float64] | None = None

    @property
    def lists(self) -> dict[str, Any]:
        """All that has one entry a channel."""
        positions = {} if self.positions is None else {"positions": self.positions}
        return {"channels": self.names, **positions}


@dataclass(frozen=True)
class Voxels:
    """The regions that the V voxels of a signal belong to; a voxel may lie in several, or in none.

    Attributes:
        regions: Mask [V] of each region, by its name.
    """

    regions: Mapping[str, NDArray[np.bool_]]

    @property
    def lists(self) -> dict[str, Any]:
        """All that has one entry a voxel."""
        return {f"voxels in the mask of region {name}": mask for name, mask in self.regions.items()}


@dataclass(frozen=True)
class Recording:
    """What was recorded of one subject while the stimuli of one split were shown.

    Attributes:
        signal: [N, R, C, T], or [N, R, V, 1] of voxels; sliceable along N, of the source's dtype; need not be
            in memory.
        image_ids: [N] stimulus ids, or file stems where the source knows no more.
        space: What the third axis is: sensors, or voxels.
        times_s: [T] seconds after stimulus onset.
        rate_hz: Samples a second; None where there is one sample and no rate.
        repetitions: [N] how many of R there are; None when all are.

    Raises:
        BrainhiveError: if an axis of the signal has another length than one of its lists, or the times do not
            match the rate.
    """

    signal: Any
    image_ids: Sequence[str]
    space: Sensors | Voxels
    times_s: NDArray[np.float64]
    rate_hz: float | None
    unit: str
    provenance: dict[str, Any] = field(default_factory=dict)
    repetitions: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Check every axis against every list."""
        shape = list(self.signal.shape)
        if len(shape) != 4:
            raise BrainhiveError(f"signals {shape} are not [N, R, C, T]")
        lists = [("image ids", self.image_ids, 0), ("repetitions", self.repetitions, 0)]
        lists += [(name, values, 2) for name, values in self.space.lists.items()]
        for name, values, axis in [*lists, ("times", self.times_s, 3)]:
            if values is not None and len(values) != shape[axis]:
                raise BrainhiveError(f"signals {shape} come with {len(values)} {name}, not {shape[axis]}")
        counts = np.asarray(shape[1] if self.repetitions is None else self.repetitions)
        if ((counts < 1) | (counts > shape[1])).any():
            raise BrainhiveError(f"signals {shape} come with counts of repetitions beyond 1 to {shape[1]}")
        self._check_times(shape[3])

    def _check_times(self, samples: int) -> None:
        if self.rate_hz is None:
            if samples != 1:
                raise BrainhiveError(f"signals of {samples} samples have no sampling rate")
            return
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
            BrainhiveError: if the file is corrupt or of another format, or an axis does not match its list.
        """
        with hdf5.open_file(path, "run the command that needs the signals again") as file:
            attributes = hdf5.get_attributes(file)
            if attributes.get("format") not in (1, FORMAT) or attributes.get("holds") != "signal":
                raise BrainhiveError(
                    f"{path} is not a signal store of format {FORMAT}", "delete it and run again"
                )
            space = _space(file, attributes)
            try:
                return cls(
                    path,
                    {split: _recording(file, split, space, attributes) for split in attributes["splits"]},
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
            BrainhiveError: if the splits differ in their channels or regions, times, rate or unit.
        """
        part, first = hdf5.part_of(path), next(iter(recordings.values()))
        for split, recording in recordings.items():
            if difference := _difference(first, recording):
                raise BrainhiveError(
                    f"{path.stem}: the {split} signals have other {difference} than the first"
                )
        lock = FileLock.for_path(path)
        spaces = {f"{split}/signal": (tuple(r.signal.shape), _dtype(r)) for split, r in recordings.items()}
        arrays = _space_arrays(first.space)
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
            **_space_attributes(first.space),
            "times_s": [round(float(t), 6) for t in first.times_s],
            **({} if first.rate_hz is None else {"rate_hz": float(first.rate_hz)}),
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
        lock.release()


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
    if type(first.space) is not type(other.space) or first.space.lists.keys() != other.space.lists.keys():
        return "space"
    pairs = {name: (values, other.space.lists[name]) for name, values in first.space.lists.items()}
    pairs |= {name: (getattr(first, name), getattr(other, name)) for name in ("times_s", "rate_hz", "unit")}
    differing = (name for name, pair in pairs.items() if not np.array_equal(*pair))
    return next(differing, "").removesuffix("_s")


def _space_arrays(space: Sensors | Voxels) -> dict[str, NDArray[Any]]:
    if isinstance(space, Voxels):
        return {"region_masks": np.array(list(space.regions.values()), bool)} if space.regions else {}
    return {} if space.positions is None else {"positions": np.asarray(space.positions, np.float64)}


def _space_attributes(space: Sensors | Voxels) -> dict[str, Any]:
    if isinstance(space, Voxels):
        return {"space": "voxels", "regions": list(space.regions)}
    return {"space": "sensors", "channels": list(space.names)}


def _space(file: h5py.File, attributes: dict[str, Any]) -> Sensors | Voxels:
    if attributes.get("space") == "voxels":
        names = attributes["regions"]
        masks = file["region_masks"][()] if names else []
        return Voxels(dict(zip(names, masks, strict=True)))
    return Sensors(attributes["channels"], file["positions"][()] if "positions" in file else None)


def _copy(part: Path, dataset: str, signal: Any) -> None:
    writer = hdf5.RowWriter(part, dataset)
    for start in range(0, len(signal), CHUNK):
        values = np.asarray(signal[start : start + CHUNK])
        writer.write(np.arange(start, start + len(values)), values)
    writer.close()


def _recording(file: h5py.File, split: str, space: Sensors | Voxels, attributes: dict[str, Any]) -> Recording:
    group = file[split]
    return Recording(
        signal=hdf5.mapped(group["signal"]),
        image_ids=Names(group["image_id"][()]),
        space=space,
        times_s=np.asarray(attributes["times_s"]),
        rate_hz=attributes.get("rate_hz"),
        unit=attributes["unit"],
        provenance=attributes["provenance"][split],
        repetitions=group["repetitions"][()],
    )
