"""HDF5 stores: contiguous arrays that are written row by row, survive a kill, and whose damage is found.

The file's structure is written once, at creation; rows then go straight to their place in the file. So a kill
at any moment leaves a file that opens, and processes write to one store without a lock between them.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray

from brainhive_cli.core import documents
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.data.stores import checksums
from brainhive_cli.data.stores.damage import described
from brainhive_cli.data.stores.mapping import find

PART = ".part"
"""Ending of a store that is still being written; it is renamed when complete."""
JSON = ("{", "[", '"')
"""How an attribute begins that is kept as JSON."""
NULL = "null"
"""An attribute that is None, as JSON."""


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

    Attributes that are not plain numbers or strings are kept as JSON. Each space gets room for the checksums
    of its rows, which `RowWriter` writes.
    """
    sums = {f"{checksums.GROUP}/{name}": (shape[:1], "uint64") for name, (shape, _) in spaces.items()}
    spaces = {**spaces, **sums}
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
    """Write attributes on the file's root; mappings, lists and text that could be taken for them as JSON."""
    for name, value in attributes.items():
        is_json = _is_json(value)
        is_plain = isinstance(value, str | int | float | bool) and not is_json
        file.attrs[name] = value if is_plain else json.dumps(value)


def _is_json(value: Any) -> bool:
    return isinstance(value, str) and (value.startswith(JSON) or value == NULL)


def get_attributes(file: h5py.File) -> dict[str, Any]:
    """Read back what `set_attributes` wrote.

    Raises:
        ValueError: if one is no number, truth value or text.
    """
    found = {}
    for name in file.attrs:
        value = file.attrs[name] if file.attrs.get_id(name).shape == () else None
        if not isinstance(value, str | np.number | np.bool_):
            raise ValueError(f"its attribute {name} is neither a number nor text")
        f"{name}{value}".encode()  # which surrogates, of bytes that are not UTF-8, do not survive
        is_json = _is_json(value)
        found[name] = (
            _parsed(str(value), name) if is_json else value if isinstance(value, str) else value.item()
        )
    return found


def _parsed(text: str, name: str) -> Any:
    try:
        return documents.parse(text, f"its attribute {name}", Any)
    except BrainhiveError as error:  # which `open_file` makes one of, with the store's name
        raise ValueError(error.message) from error


def seal(path: Path, attributes: Mapping[str, Any] | None = None) -> None:
    """Write the last attributes of a complete store, and the seal by which damage is found."""
    if attributes:
        with h5py.File(path, "r+") as file:
            set_attributes(file, attributes)
    checksums.seal(path)


@contextmanager
def open_file(path: Path, made_by: str, error: type[BrainhiveError] = BrainhiveError) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, and verify its seal where it has one; `StoredRows` verifies its rows.

    Whatever reading it raises until the block ends is taken for damage, so that the block should do no more.

    Args:
        path: The HDF5 file.
        made_by: The command line that makes such a file, for the hint.
        error: Raised where it is damaged.

    Raises:
        MissingData: if there is no such file.
        BrainhiveError: if it is not HDF5, cut short, damaged, or holds something else.
    """
    if not path.is_file():
        state = "is not finished" if part_of(path).is_file() else "does not exist"
        raise MissingData(f"{path} {state}", made_by)
    with described(path, f"delete it, then: {made_by}", error):
        is_sealed = checksums.verify_seal(path)
        with h5py.File(path, "r") as file:
            if not is_sealed and checksums.GROUP in file and path.suffix != PART:
                raise ValueError("it has lost its seal")
            yield file


class RowWriter:
    """Writes rows of one contiguous dataset to their place in the file.

    A failed write (no space, say) is an OSError at once, never a damaged file.
    """

    def __init__(self, path: Path, dataset: str) -> None:
        with h5py.File(path, "r") as file:
            found, summed = find(file, dataset), f"{checksums.GROUP}/{dataset}"
            self._offset: int = found.id.get_offset()
            self._dtype, self._row_shape, self._path = found.dtype, found.shape[1:], path
            self._sums: int | None = find(file, summed).id.get_offset() if summed in file else None
        self._row_bytes = int(np.prod(self._row_shape, dtype=int)) * self._dtype.itemsize
        self._file = os.open(path, os.O_WRONLY)

    def write(self, rows: Sequence[int] | NDArray[np.integer[Any]], values: NDArray[Any]) -> None:
        """Write `values` [len(rows), …] at `rows`, then their checksums; neighbouring rows go in one call."""
        rows = np.asarray(rows, np.int64)
        values = np.ascontiguousarray(values, self._dtype).reshape(len(rows), *self._row_shape)
        if not len(rows):
            return
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        runs = list(pairwise([0, *ends.tolist(), len(rows)]))
        parts = [(values, self._row_bytes, self._offset)]
        if self._sums is not None:
            parts.append((checksums.of_rows(values), checksums.BYTES, self._sums))
        for content, size, start in parts:
            flat = content.reshape(-1).view(np.uint8).data
            for first, end in runs:
                self._write_all(flat[first * size : end * size], start + int(rows[first]) * size)

    def _write_all(self, left: memoryview, at: int) -> None:
        while left:
            try:
                written = os.pwrite(self._file, left, at)
            except OSError as error:
                raise OSError(*error.args, str(self._path)) from error
            at, left = at + written, left[written:]

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
