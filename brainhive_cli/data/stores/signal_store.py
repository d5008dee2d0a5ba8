"""Signal store: one subject's trials by split, mapped into memory."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any, Self

import numpy as np
import xxhash

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Array
from brainhive_cli.core.claims import Claim
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import publish, resolve_below
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.signals.spaces import (
    Grid,
    Sensors,
    Surface,
    Voxels,
    list_axis_values,
)
from brainhive_cli.data.signals.trials import Trials, digest_trials

FORMAT = 3
"""Of a signal store; the number that it carries."""
REMAKE_HINT = "run again what made it: prepare, or the command that needs the signals"
"""Way out of a damaged store."""
MAX_COPIED_BYTES = 2**26
"""Copied at a time, at most; one stimulus where it is larger."""
OPTIONAL_ARRAYS = {
    "sessions": "i",
    "whiteners": "f",
    "runs": "i",
    "onset_s": "f",
    "trial_numbers": "i",
}
"""Arrays of a split that a store may lack, and NumPy's letter of the kind of their
numbers.
"""


@dataclass(frozen=True)
class SignalStore:
    """One subject's finished signal store."""

    path: Path
    splits: Mapping[str, Trials]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a store; the signals stay on disk until sliced.

        Raises:
            MissingData: if there is none.
            BrainhiveError: if the file is corrupt or of another format, or an axis does
                not match its list.
        """
        with hdf5.open_file(path, REMAKE_HINT) as file:
            # attributes of the right format
            about = hdf5.get_attributes(file)
            if about.get("format") != FORMAT or about.get("holds") != "signal":
                raise BrainhiveError(
                    f"{path} is not a signal store of format {FORMAT}",
                    "delete it and run again",
                )

            def read(name: str, kind: str) -> Array | None:
                return (
                    np.array(hdf5.map_numbers(file, name, kind))
                    if name in file
                    else None
                )

            # sensors, or voxels with their regions, maps and grid
            if about["space"] == "sensors":
                space: Sensors | Voxels = Sensors(
                    about["channels"], read("positions", "f")
                )
            else:
                # [regions, V]
                masks = (
                    hdf5.read_flags(file, "region_masks") if about["regions"] else ()
                )
                voxel_indices = read("places", "i")  # [V, 3]
                grid = None
                if voxel_indices is not None:
                    affine = np.array(about["affine"], np.float64)
                    grid = Grid(voxel_indices, tuple(about["volume_shape"]), affine)
                surface, vertices = None, read("vertices", "i")  # [V, 2]
                if vertices is not None:
                    surface = Surface(vertices, tuple(about["surface_sizes"]))
                maps = {
                    name: np.array(hdf5.map_numbers(file, f"maps/{name}", "f"))
                    for name in about["maps"]
                }
                space = Voxels(
                    dict(zip(about["regions"], masks, strict=True)), maps, grid, surface
                )

            # one recording a split; signals stay on disk
            recordings = {}
            for split in about["splits"]:
                optional: dict[str, Any] = {
                    n: read(f"{split}/{n}", kind) for n, kind in OPTIONAL_ARRAYS.items()
                }
                try:
                    recordings[split] = Trials(
                        signal=hdf5.open_rows(file, f"{split}/signal", REMAKE_HINT),
                        image_ids=Names(hdf5.read_strings(file, f"{split}/image_id")),
                        space=space,
                        times_s=np.asarray(about["times_s"], np.float64),
                        rate_hz=about.get("rate_hz"),
                        unit=about["unit"],
                        provenance=about["provenance"][split],
                        repetitions=np.array(
                            hdf5.map_numbers(file, f"{split}/repetitions", "iu")
                        ),
                        known_digests=read(f"{split}/digests", "u"),
                        **optional,
                    )
                except BrainhiveError as error:
                    raise BrainhiveError(
                        f"{path}: {error.message}", "delete it and run again"
                    ) from error
            return cls(path, recordings)

    def __getitem__(self, split: str) -> Trials:
        """Return the recording of a split; MissingData when the store does not have
        it.
        """
        if split not in self.splits:
            raise MissingData(
                f"{self.path} has no {split} signals",
                f"it has: {', '.join(self.splits)}",
            )
        return self.splits[split]

    @cached_property
    def identity(self) -> str:
        """Identity of the signals: 16 hexadecimal digits.

        It is made of the checksums that the store carries, so that no row is read. The
        same signals written again have the same; versions of libraries and names of
        files have no part in it.
        """
        first = next(iter(self.splits.values()))

        # what the axes mean, then each split: shape, checksums, stimuli and steps
        about = [first.unit, first.rate_hz, first.times_s.tolist()]
        for name, values in list_axis_values(first.space).items():
            listed = repr(np.asarray(values).tolist()).encode()
            about.append((name, xxhash.xxh3_64_hexdigest(listed)))
        for split, recording in self.splits.items():
            arrays = (recording.repetitions, recording.sessions)
            counts = [None if array is None else array.tobytes() for array in arrays]
            for array in (recording.runs, recording.onset_s, recording.trial_numbers):
                counts += [] if array is None else [array.tobytes()]
            # the order in which steps were recorded has no part in it
            steps = sorted(recording.preparation.items())
            ids = Names.of(recording.image_ids).digest
            checksums = xxhash.xxh3_128_hexdigest(
                np.ascontiguousarray(recording.signal.checksums).data
            )
            about.append((split, recording.signal.shape, checksums, ids, counts, steps))
        return xxhash.xxh3_64_hexdigest(repr(about).encode())

    def verify(self) -> None:
        """Verify the checksums of all rows; reads the whole store.

        Raises:
            BrainhiveError: if one does not match.
        """
        with hdf5.open_file(self.path, REMAKE_HINT) as file:
            hdf5.verify_rows(file, REMAKE_HINT)

    @staticmethod
    def write(path: Path, recordings: Mapping[str, Trials]) -> None:
        """Write one subject's recordings by split; the final name appears when all is
        there.

        Signals of float16 stay so; others are kept as float32.

        Raises:
            BrainhiveError: if the splits differ in their channels or regions, times,
                rate or unit.
        """
        # splits share their axes, and say what was shown
        part, first = hdf5.part_of(path), next(iter(recordings.values()))
        for split, recording in recordings.items():
            if not len(recording.image_ids):
                raise BrainhiveError(
                    f"{path.stem}: nothing says which pictures the {split} signals "
                    "are of",
                    "Trials(image_ids=[…]), one for each of its N rows",
                )
            if difference := describe_difference(first, recording):
                raise BrainhiveError(
                    f"{path.stem}: the {split} signals have other {difference} "
                    "than the first",
                    "prepare the splits with the same channels, positions, window, "
                    "rate and unit",
                )

        # attributes and arrays of the axes
        space = first.space
        about: dict[str, Any] = {
            "format": FORMAT,
            "holds": "signal",
            "splits": list(recordings),
        }
        if isinstance(space, Voxels):
            about |= {
                "space": "voxels",
                "regions": list(space.regions),
                "maps": list(space.maps),
            }
            # [regions, V]
            masks = np.array(list(space.regions.values()), bool)
            arrays = {"region_masks": masks if space.regions else None}
            for name, values in space.maps.items():
                arrays[f"maps/{name}"] = np.asarray(values, np.float64)
            if space.grid is not None:
                arrays["places"] = space.grid.indices
                about |= {
                    "volume_shape": [*space.grid.shape],
                    "affine": space.grid.affine.tolist(),
                }
            if space.surface is not None:
                arrays["vertices"] = space.surface.vertices
                about["surface_sizes"] = [*space.surface.sizes]
        else:
            about |= {"space": "sensors", "channels": list(space.names)}
            arrays = {"positions": space.positions}
        about["times_s"] = [float(time_s) for time_s in first.times_s]
        about |= {} if first.rate_hz is None else {"rate_hz": float(first.rate_hz)}
        about |= {"unit": first.unit, "provenance": {}, "pictures": {}}

        # room for the signals of each split, and the lists of its trials
        spaces = {}
        for split, recording in recordings.items():
            count, most = recording.signal.shape[:2]  # N, R
            spaces[f"{split}/signal"] = (
                tuple(recording.signal.shape),
                _dtype(recording),
            )
            spaces[f"{split}/digests"] = ((count, most), "uint64")
            image_ids = Names.of(recording.image_ids)
            arrays |= {
                f"{split}/image_id": image_ids.packed,
                f"{split}/repetitions": recording.counts,
            }
            arrays |= {
                f"{split}/{name}": getattr(recording, name) for name in OPTIONAL_ARRAYS
            }
            about["provenance"][split] = recording.provenance
            about["pictures"][split] = image_ids.digest

        # create the file, then copy signals some stimuli at a time
        lock = Claim.for_path(path, wait=True)
        try:
            known = {name: array for name, array in arrays.items() if array is not None}
            hdf5.create(part, spaces, known, about)
            counts = [len(recording.signal) for recording in recordings.values()]
            with console.progress(
                f"writing {path.parent.name}/{path.stem}", sum(counts)
            ) as bar:
                for split, recording in recordings.items():
                    signal = recording.signal
                    writer = hdf5.RowWriter(part, f"{split}/signal")
                    digests = hdf5.RowWriter(part, f"{split}/digests")
                    # at least one stimulus at a time, however large it is
                    row_bytes = int(np.prod(signal.shape[1:])) * signal.dtype.itemsize
                    step = max(1, MAX_COPIED_BYTES // max(1, row_bytes))
                    for start in range(0, len(signal), step):
                        values = np.asarray(signal[start : start + step])
                        rows = np.arange(start, start + len(values))
                        writer.write(rows, values)
                        digests.write(rows, digest_trials(values))
                        bar.advance(len(values), split)
                    writer.close()
                    digests.close()

            # the final name appears with the whole content
            hdf5.seal(part)
            publish(part, path)
        finally:
            lock.release()


def is_signal_store(path: Path) -> bool:
    """Whether a store holds signals."""
    with hdf5.open_file(path, REMAKE_HINT) as file:
        return hdf5.get_attributes(file).get("holds") == "signal"


def build_store_path(signals: Path, dataset: str, name: str, subject: int) -> Path:
    """Say where a subject's store lies."""
    source = "the data set or preparation of a store,"
    return resolve_below(signals, dataset, name, f"sub-{subject:02d}.h5", source=source)


def list_store_subjects(
    signals: Path, dataset: str, preparation: str | None = None
) -> tuple[int, ...]:
    """List the subjects who have a store in a preparation of a data set; in any of them
    where it is None.
    """
    # escaped, since the name of a preparation may hold wildcards
    folder = "*" if preparation is None else escape(preparation)
    names = {path.stem for path in (signals / dataset).glob(f"{folder}/sub-*.h5")}
    matches = [re.fullmatch(r"sub-(\d+)", name) for name in names]
    return tuple(sorted(int(match[1]) for match in matches if match))


def count_bytes(recording: Trials) -> int:
    """Count the bytes that a recording takes in a store."""
    return int(np.prod(recording.signal.shape)) * np.dtype(_dtype(recording)).itemsize


def _dtype(recording: Trials) -> str:
    return "float16" if recording.signal.dtype == np.float16 else "float32"


def describe_difference(first: Trials, other: Trials) -> str:
    """Say in what two recordings differ that a store keeps once; empty if in
    nothing.
    """
    # sensors and voxels, or spaces with different lists
    lists, others = list_axis_values(first.space), list_axis_values(other.space)
    if lists.keys() != others.keys():
        return "space"
    # lists of the space, then times, rate and unit
    pairs = {name: (values, others[name]) for name, values in lists.items()}
    pairs |= {
        name: (getattr(first, name), getattr(other, name))
        for name in ("times_s", "rate_hz", "unit")
    }
    differing = (name for name, pair in pairs.items() if not np.array_equal(*pair))
    return next(differing, "").removesuffix("_s")
