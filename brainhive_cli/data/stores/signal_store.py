"""Signal store: HDF5 file with the trials of a subject, by split."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from glob import escape
from math import prod
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import xxhash

from brainhive_cli.core.base import Array, BrainhiveError, Line, MissingData, console
from brainhive_cli.core.files import publish, resolve_below
from brainhive_cli.core.results import draw_card
from brainhive_cli.core.runs import Claim
from brainhive_cli.data.files import Names, hdf5
from brainhive_cli.data.signals import (
    Grid,
    Sensors,
    Surface,
    Trials,
    Underlay,
    Voxels,
    digest_trials,
    read_preparation,
)

FORMAT = 4
"""Version of the format, as stored in the attributes."""
REMAKE_HINT = "run again what made it: prepare, or the command that needs the signals"
"""Advice for a damaged store."""
OPTIONAL_ARRAYS = {
    "sessions": "i",
    "whiteners": "f",
    "runs": "i",
    "onset_s": "f",
    "trial_numbers": "i",
}
"""Kind of dtype (NumPy's letter) of the arrays that a split may lack, by name."""


@dataclass(frozen=True)
class SignalStore:
    """Finished signal store of a subject.

    Attributes:
        path: Path of the file.
        splits: Trials by split. Their signals stay on disk until they are sliced.
    """

    path: Path
    splits: Mapping[str, Trials]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a store.

        Raises:
            MissingData: if there is no such file.
            BrainhiveError: if the file is damaged or has another format.
        """
        with hdf5.open_file(path, REMAKE_HINT) as file:
            attributes = hdf5.get_attributes(file)
            has_format = attributes.get("format") == FORMAT
            if not has_format or attributes.get("holds") != "signal":
                raise BrainhiveError(
                    f"{path} is not a signal store of format {FORMAT}",
                    f"prepare the signals again: {Line('prepare', '--again')}; or "
                    "delete it if they are simulated, and run again",
                )
            space = _read_space(file, attributes)
            recordings = {}
            for split in attributes["splits"]:
                try:
                    recordings[split] = _open_split(file, attributes, space, split)
                except BrainhiveError as error:
                    raise BrainhiveError(
                        f"{path}: {error.message}", "delete it and run again"
                    ) from error
            return cls(path, recordings)

    def __repr__(self) -> str:
        """Return the path and the sizes of each split, without the signals."""
        splits = [
            f"{name}: {trials.describe()}" for name, trials in self.splits.items()
        ]
        return f"<SignalStore {self.path}: {'; '.join(splits)}>"

    def _repr_html_(self) -> str:
        """Return a card for a notebook, with a row for each split."""
        rows = [[name, trials.describe()] for name, trials in self.splits.items()]
        return draw_card(f"signals · {self.path}", (), ("split", "signals"), rows)

    def __getitem__(self, split: str) -> Trials:
        """Return the trials of a split, or raise MissingData without such a split."""
        if split not in self.splits:
            raise MissingData(
                f"{self.path} has no {split} signals",
                f"it has: {', '.join(self.splits)}",
            )
        return self.splits[split]

    @cached_property
    def identity(self) -> str:
        """Digest of the signals, 16 hexadecimal digits.

        The digest uses the stored checksums, so no row is read. It does not depend on
        file names or versions of libraries.
        """
        # meaning of the axes
        first_recording = next(iter(self.splits.values()))
        contents: list[Any] = [
            first_recording.unit,
            first_recording.rate_hz,
            first_recording.times_s.tolist(),
        ]
        for name, values in first_recording.space.list_axis_values().items():
            text = repr(np.asarray(values).tolist())
            contents.append((name, xxhash.xxh3_64_hexdigest(text.encode())))

        # shape, checksums, stimuli and steps of each split
        for split, recording in self.splits.items():
            counts: list[bytes | None] = []
            for array in (recording.repetitions, recording.sessions):
                counts.append(None if array is None else array.tobytes())
            # stores without these arrays have kept their identity
            for later_array in (
                recording.runs,
                recording.onset_s,
                recording.trial_numbers,
            ):
                if later_array is not None:
                    counts.append(later_array.tobytes())
            checksums = np.ascontiguousarray(recording.signal.checksums)
            contents.append(
                (
                    split,
                    recording.signal.shape,
                    xxhash.xxh3_128_hexdigest(checksums.data),
                    Names.of(recording.image_ids).digest,
                    counts,
                    sorted(recording.preparation.items()),
                )
            )
        return xxhash.xxh3_64_hexdigest(repr(contents).encode())

    def verify(self) -> None:
        """Verify the checksums of all rows. This reads the whole store.

        Raises:
            BrainhiveError: if a checksum does not match.
        """
        with hdf5.open_file(self.path, REMAKE_HINT) as file:
            hdf5.verify_rows(file, REMAKE_HINT)

    @staticmethod
    def write(path: Path, recordings: Mapping[str, Trials]) -> None:
        """Write the trials of a subject. The file gets its name when it is complete.

        Float16 signals stay float16. All others are stored as float32.

        Args:
            path: Path of the store.
            recordings: Trials by split.

        Raises:
            BrainhiveError: if a split has no image ids, or other channels, regions,
                times, rate or unit than the first.
        """
        _require_same_axes(path, recordings)
        first_recording = next(iter(recordings.values()))
        attributes: dict[str, Any] = {
            "format": FORMAT,
            "holds": "signal",
            "splits": list(recordings),
        }
        space_attributes, arrays = _describe_space(first_recording.space)
        attributes.update(space_attributes)
        attributes["times_s"] = np.asarray(first_recording.times_s, np.float64).tolist()
        if first_recording.rate_hz is not None:
            attributes["rate_hz"] = float(first_recording.rate_hz)
        attributes["unit"] = first_recording.unit
        attributes["provenance"] = {}
        attributes["pictures"] = {}

        # the signals of each split are written later, row by row
        spaces: hdf5.Spaces = {}
        for split, recording in recordings.items():
            shape = tuple(recording.signal.shape)
            spaces[f"{split}/signal"] = (shape, _choose_dtype(recording))
            spaces[f"{split}/digests"] = (shape[:1], "uint64")
            image_ids = Names.of(recording.image_ids)
            arrays[f"{split}/image_id"] = image_ids.packed
            arrays[f"{split}/repetitions"] = recording.counts
            for name in OPTIONAL_ARRAYS:
                arrays[f"{split}/{name}"] = getattr(recording, name)
            attributes["provenance"][split] = recording.provenance
            attributes["pictures"][split] = image_ids.digest
        stored_arrays = {
            name: array for name, array in arrays.items() if array is not None
        }

        unfinished_path = hdf5.get_part_path(path)
        lock = Claim.for_path(path, wait=True)
        try:
            hdf5.create(unfinished_path, spaces, stored_arrays, attributes)
            n_rows = sum(len(recording.signal) for recording in recordings.values())
            title = f"writing {path.parent.name}/{path.stem}"
            with console.progress(title, n_rows) as bar:
                for split, recording in recordings.items():
                    _copy_signal(unfinished_path, split, recording, bar)
            hdf5.seal(unfinished_path)
            publish(unfinished_path, path)
        finally:
            lock.release()


def build_store_path(signals: Path, dataset: str, name: str, subject: int) -> Path:
    """Build the path of a store, `signals/DATASET/NAME/sub-XX.h5`."""
    source = "the data set or preparation of a store,"
    return resolve_below(signals, dataset, name, f"sub-{subject:02d}.h5", source=source)


def list_store_subjects(
    signals: Path, dataset: str, preparation: str | None = None
) -> tuple[int, ...]:
    """List the subjects with a store.

    Args:
        signals: Folder of all signal stores.
        dataset: Name of the data set.
        preparation: Name of the preparation, or None for all preparations.
    """
    # the name of a preparation may hold wildcards
    folder = "*" if preparation is None else escape(preparation)
    subjects = set()
    for path in (signals / dataset).glob(f"{folder}/sub-*.h5"):
        match = re.fullmatch(r"sub-(\d+)", path.stem)
        if match:
            subjects.add(int(match[1]))
    return tuple(sorted(subjects))


def is_signal_store(path: Path) -> bool:
    """Return True if a store has signals, not embeddings."""
    with hdf5.open_file(path, REMAKE_HINT) as file:
        return hdf5.get_attributes(file).get("holds") == "signal"


def _read_space(file: h5py.File, attributes: Mapping[str, Any]) -> Sensors | Voxels:
    """Read the sensors or voxels of a store."""
    if attributes["space"] == "sensors":
        positions = _read_optional(file, "positions", "f")
        return Sensors(attributes["channels"], positions)

    regions = {}
    if attributes["regions"]:
        masks = hdf5.read_flags(file, "region_masks")  # [regions, V]
        regions = dict(zip(attributes["regions"], masks, strict=True))
    maps = {}
    for name in attributes["maps"]:
        maps[name] = np.array(hdf5.map_numbers(file, f"maps/{name}", "f"))
    grid = None
    voxel_indices = _read_optional(file, "places", "i")  # [V, 3]
    if voxel_indices is not None:
        affine = np.array(attributes["affine"], np.float64)
        grid = Grid(voxel_indices, tuple(attributes["volume_shape"]), affine)
    surface = None
    vertices = _read_optional(file, "vertices", "i")  # [V, 2]
    if vertices is not None:
        surface = Surface(vertices, tuple(attributes["surface_sizes"]))
    underlay = None
    brightness = _read_optional(file, "underlay", "u")  # [X, Y, Z]
    if brightness is not None:
        underlay = Underlay(
            brightness,
            np.array(attributes["underlay_affine"], np.float64),
            attributes["underlay_source"],
        )
    return Voxels(regions, maps, grid, surface, underlay)


def _open_split(
    file: h5py.File,
    attributes: Mapping[str, Any],
    space: Sensors | Voxels,
    split: str,
) -> Trials:
    """Open the trials of a split. The signal stays on disk."""
    optional_arrays: dict[str, Any] = {}
    for name, kind in OPTIONAL_ARRAYS.items():
        optional_arrays[name] = _read_optional(file, f"{split}/{name}", kind)
    repetitions = hdf5.map_numbers(file, f"{split}/repetitions", "iu")
    provenance = attributes["provenance"][split]
    # facts of other types raise an error, which counts as damage of the file
    read_preparation(provenance)
    return Trials(
        signal=hdf5.open_rows(file, f"{split}/signal", REMAKE_HINT),
        image_ids=Names(hdf5.read_strings(file, f"{split}/image_id")),
        space=space,
        times_s=np.asarray(attributes["times_s"], np.float64),
        rate_hz=attributes.get("rate_hz"),
        unit=attributes["unit"],
        provenance=provenance,
        repetitions=np.array(repetitions),
        known_digests=_read_optional(file, f"{split}/digests", "u"),
        **optional_arrays,
    )


def _read_optional(file: h5py.File, name: str, kind: str) -> Array | None:
    """Read a dataset of a kind of dtype, or return None if it is missing."""
    if name not in file:
        return None
    return np.array(hdf5.map_numbers(file, name, kind))


def _describe_space(
    space: Sensors | Voxels,
) -> tuple[dict[str, Any], dict[str, Array | None]]:
    """Describe sensors or voxels as the attributes and arrays of a store."""
    if space.has_names:
        sensor_attributes = {"space": "sensors", "channels": list(space.names)}
        return sensor_attributes, {"positions": space.positions}

    attributes: dict[str, Any] = {
        "space": "voxels",
        "regions": list(space.regions),
        "maps": list(space.maps),
    }
    arrays: dict[str, Array | None] = {}
    if space.regions:
        arrays["region_masks"] = np.array(list(space.regions.values()), bool)
    for name, values in space.maps.items():
        arrays[f"maps/{name}"] = np.asarray(values, np.float64)
    if space.grid is not None:
        arrays["places"] = space.grid.indices
        attributes["volume_shape"] = list(space.grid.shape)
        attributes["affine"] = space.grid.affine.tolist()
    if space.surface is not None:
        arrays["vertices"] = space.surface.vertices
        attributes["surface_sizes"] = list(space.surface.sizes)
    if space.underlay is not None:
        arrays["underlay"] = space.underlay.values
        attributes["underlay_affine"] = space.underlay.affine.tolist()
        attributes["underlay_source"] = space.underlay.source
    return attributes, arrays


def _copy_signal(
    unfinished_path: Path, split: str, recording: Trials, bar: console.Bar
) -> None:
    """Copy the signal of a split and the digests of its trials, block by block."""
    signal = recording.signal
    signal_writer = hdf5.RowWriter(unfinished_path, f"{split}/signal")
    digest_writer = hdf5.RowWriter(unfinished_path, f"{split}/digests")
    row_bytes = prod(signal.shape[1:]) * signal.dtype.itemsize
    # Largest number of bytes that are copied at a time, except for a single larger row.
    max_copied_bytes = 2**26
    step = max(1, max_copied_bytes // max(1, row_bytes))
    for start in range(0, len(signal), step):
        values = np.asarray(signal[start : start + step])
        rows = np.arange(start, start + len(values))
        signal_writer.write(rows, values)
        digest_writer.write(rows, digest_trials(values))
        bar.advance(len(values), split)
    signal_writer.close()
    digest_writer.close()


def count_bytes(recording: Trials) -> int:
    """Count the bytes of the signal of a recording in a store."""
    n_values: int = prod(recording.signal.shape)
    return n_values * np.dtype(_choose_dtype(recording)).itemsize


def _choose_dtype(recording: Trials) -> str:
    """Return the dtype in which the signal of a recording is stored."""
    return "float16" if recording.signal.dtype == np.float16 else "float32"


def _require_same_axes(path: Path, recordings: Mapping[str, Trials]) -> None:
    """Raise an error unless all splits have image ids and the same axes."""
    first_recording = next(iter(recordings.values()))
    for split, recording in recordings.items():
        if not len(recording.image_ids):
            raise BrainhiveError(
                f"{path.stem}: the {split} signals have no image ids",
                "Trials(image_ids=[…]), one for each of its n rows",
            )
        difference = describe_difference(first_recording, recording)
        if difference:
            raise BrainhiveError(
                f"{path.stem}: the {split} signals have other {difference} than the "
                "first split",
                "prepare the splits with the same channels, positions, window, rate "
                "and unit",
            )


def describe_difference(first_recording: Trials, other_recording: Trials) -> str:
    """Name the first property in which two recordings differ.

    Returns:
        "space", a name from `list_axis_values` such as "channels", "times", "rate_hz"
        or "unit". Empty if the recordings can be in the same store.
    """
    first_values = first_recording.space.list_axis_values()
    other_values = other_recording.space.list_axis_values()
    if first_values.keys() != other_values.keys():
        return "space"
    for name in ("times_s", "rate_hz", "unit"):
        first_values[name] = getattr(first_recording, name)
        other_values[name] = getattr(other_recording, name)
    for name, values in first_values.items():
        if not np.array_equal(values, other_values[name]):
            return name.removesuffix("_s")
    return ""
