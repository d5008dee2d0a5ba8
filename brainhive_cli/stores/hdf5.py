"""HDF5 stores: contiguous arrays that are written row by row, survive a kill and map into memory.

The file's structure is written once, at creation; rows then go straight to their place in the file. So a kill
at any moment leaves a file that opens, and processes write to one store without a lock between them.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray

from brainhive_cli.core.errors import BrainhiveError, MissingData

PART = ".part"
"""Ending of a store that is still being written; it is renamed when complete."""


def part_of(path: Path) -> Path:
    """Return where a store is written until it is complete."""
    return path.with_name(path.name + PART)


def create(
    path: Path,
    spaces: Mapping[str, tuple[tuple[int, ...], DTypeLike]],
    arrays: Mapping[str, NDArray[Any]],
    attributes: Mapping[str, Any],
) -> None:
    """Create an HDF5 file with `spaces` allocated but not written, and `arrays` and `attributes` written.

    Attributes that are not plain numbers or strings are kept as JSON.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(f"{path.name}.new")  # a kill meanwhile leaves nothing under the store's name
    size = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in spaces.values())
    _take_room(making, size)
    with h5py.File(making, "w") as file:
        for name, (shape, dtype) in spaces.items():
            layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            layout.set_layout(h5py.h5d.CONTIGUOUS)
            layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            layout.set_obj_track_times(False)  # the same content is the same bytes
            links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
            links.set_create_intermediate_group(True)
            kind = h5py.h5t.py_create(np.dtype(dtype))
            h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), layout, links)
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        set_attributes(file, attributes)
    _take_room(making, making.stat().st_size)
    os.replace(making, path)


def _take_room(path: Path, size: int) -> None:
    """Allocate a file's bytes, so that a disk that is too small is an error now and not after hours.

    Before HDF5 writes, since without room it would fail with noise, or crash; and after, since it frees them.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with path.open("ab") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
        except OSError as error:
            path.unlink()
            raise OSError(*error.args, str(path)) from error


def set_attributes(file: h5py.File, attributes: Mapping[str, Any]) -> None:
    """Write attributes on the file's root; mappings and lists become JSON."""
    for name, value in attributes.items():
        plain = isinstance(value, str | int | float | bool)
        file.attrs[name] = value if plain else json.dumps(value)


def get_attributes(file: h5py.File) -> dict[str, Any]:
    """Read back what `set_attributes` wrote."""
    return {name: _plain(value) for name, value in file.attrs.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in "{[":
        return json.loads(value)
    return value.item() if isinstance(value, np.generic) else value


def open_file(path: Path, made_by: str) -> h5py.File:
    """Open a store for reading.

    Args:
        path: The HDF5 file.
        made_by: The command line that makes such a file, for the hint.

    Raises:
        MissingData: if there is no such file.
        BrainhiveError: if it is not HDF5, or cut short.
    """
    if not path.is_file():
        state = "is not finished" if part_of(path).is_file() else "does not exist"
        raise MissingData(f"{path} {state}", made_by)
    try:
        return h5py.File(path, "r")
    except OSError as error:
        reason = str(error).rsplit("(", 1)[-1].rstrip(")")
        raise BrainhiveError(
            f"{path} is corrupt or cut short: {reason}", f"delete it, then: {made_by}"
        ) from error


def mapped(dataset: h5py.Dataset) -> NDArray[Any]:
    """Map a contiguous dataset into memory, read-only; processes share its pages."""
    offset = dataset.id.get_offset()
    if offset is None or dataset.size == 0:
        return np.asarray(dataset[()])
    return np.memmap(dataset.file.filename, dataset.dtype, "r", offset, dataset.shape)


class RowWriter:
    """Writes rows of one contiguous dataset to their place in the file.

    A failed write (no space, say) is an OSError at once, never a damaged file.
    """

    def __init__(self, path: Path, dataset: str) -> None:
        with h5py.File(path, "r") as file:
            found = file[dataset]
            self._offset: int = found.id.get_offset()
            self._dtype, self._row_shape, self._path = found.dtype, found.shape[1:], path
        self._row_bytes = int(np.prod(self._row_shape, dtype=int)) * self._dtype.itemsize
        self._file = os.open(path, os.O_WRONLY)

    def write(self, rows: Sequence[int] | NDArray[np.integer[Any]], values: NDArray[Any]) -> None:
        """Write `values` [len(rows), …] at `rows`; neighbouring rows go in one call."""
        values = np.ascontiguousarray(values, self._dtype).reshape(len(rows), *self._row_shape)
        rows, content = np.asarray(rows), values.reshape(-1).view(np.uint8)
        for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
            if len(run):
                within = slice(run[0] * self._row_bytes, (run[-1] + 1) * self._row_bytes)
                self._write_all(content[within].data, int(rows[run[0]]))

    def _write_all(self, left: memoryview, row: int) -> None:
        at = self._offset + row * self._row_bytes
        while left:
            try:
                written = os.pwrite(self._file, left, at)
            except OSError as error:
                raise OSError(*error.args, str(self._path)) from error
            at, left = at + written, left[written:]

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def match_ids(requested: Sequence[str], known: Sequence[str], where: str) -> NDArray[np.int64]:
    """Find the row of each image id; by file stem where one side has no more.

    Args:
        requested: Image ids, or file stems.
        known: Image ids of the rows, or file stems.
        where: What the rows belong to, for the error.

    Raises:
        MissingData: if an id is not there, or its stem stands for several.
    """
    by_id = {image_id: row for row, image_id in enumerate(known)}
    rows = [by_id.get(image_id, -1) for image_id in requested]
    if -1 in rows:
        by_stem: dict[str, list[int]] = {}
        for row, image_id in enumerate(known):
            by_stem.setdefault(image_id.rsplit("/", 1)[-1], []).append(row)
        rows = [
            _by_stem(w, by_stem, known, where) if row < 0 else row
            for w, row in zip(requested, rows, strict=True)
        ]
    return np.asarray(rows, dtype=np.int64)


def _by_stem(image_id: str, by_stem: Mapping[str, list[int]], known: Sequence[str], where: str) -> int:
    rows = by_stem.get(image_id.rsplit("/", 1)[-1], [])
    if "/" in image_id:  # two full ids with one stem are two pictures
        rows = [row for row in rows if "/" not in known[row]]
    if not rows:
        raise MissingData(f"{where} has no picture {image_id!r}", "embed the same data set and split again")
    if len(rows) > 1:
        clashes = ", ".join(known[row] for row in rows[:5])
        raise MissingData(f"{where}: {image_id!r} could be any of {clashes}", "give full image ids")
    return rows[0]
