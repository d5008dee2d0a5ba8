"""HDF5 datasets mapped into memory, after the checks that make that safe whatever a file holds.

All of them raise ValueError (or what h5py raises), which `hdf5.open_file` turns into one line.
"""

import mmap
import os
from math import prod
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from brainhive_cli.data.stores.damage import refuse_inflation

NUMBERS = "fiu"
WIDEST = 8
"""Bytes of the widest number: long doubles differ between machines."""


def find(file: h5py.File, name: str) -> h5py.Dataset:
    """Find a dataset of this very file; links that lead elsewhere are not followed.

    Raises:
        ValueError: if it is not there.
    """
    found: Any = file
    for part in name.split("/"):
        link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"it has no dataset {name}")
        found = found[part]
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise ValueError(f"{name} is no array")
    return found


def numbers(file: h5py.File, name: str, kinds: str = NUMBERS) -> h5py.Dataset:
    """Find a dataset of numbers, which may be compressed.

    Args:
        file: The file, open.
        name: Of the dataset.
        kinds: NumPy's letters of the kinds of dtype that are accepted; S is a string of fixed width.

    Raises:
        ValueError: if it is of another kind, lies in other files, or is far larger than the file.
    """
    found = find(file, name)
    dtype, layout = found.dtype, found.id.get_create_plist()
    if dtype.kind not in kinds or dtype.hasobject or not _is_numpys(found.id.get_type(), dtype):
        raise ValueError(f"{name} is {dtype}, not of kind {' or '.join(kinds)}")
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise ValueError(f"{name} lies in other files")
    count = max(prod(found.shape), prod(found.chunks or ()))  # a chunk, which is read whole, may be larger
    refuse_inflation(count * dtype.itemsize, os.path.getsize(file.filename), name)
    return found


def mapped(file: h5py.File, name: str, kinds: str = NUMBERS) -> NDArray[Any]:
    """Map a contiguous dataset of numbers, read-only; processes share its pages.

    Raises:
        ValueError: if it is of another kind, not contiguous, or not wholly inside the file.
    """
    found = numbers(file, name, kinds)
    dtype, shape = np.dtype(found.dtype.str), found.shape
    if not dtype.isnative or found.id.get_create_plist().get_layout() != h5py.h5d.CONTIGUOUS:
        raise ValueError(f"{name} is not in the machine's order of bytes, or not in one piece")
    size = prod(shape) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    start = found.id.get_offset()
    if start is None or start + size > os.path.getsize(file.filename):
        raise ValueError(f"{name} {list(shape)} reaches beyond the end of the file")
    return np.memmap(file.filename, dtype, "r", start, shape)


def _is_numpys(kind: h5py.h5t.TypeID, dtype: np.dtype[Any]) -> bool:
    """Whether a type's bits are those of NumPy's dtype, and not of a float of other make, say."""
    if dtype.kind == "S":
        return not kind.is_variable_str()
    return dtype.itemsize <= WIDEST and bool(kind.equal(h5py.h5t.py_create(dtype)))


def strings(file: h5py.File, name: str) -> NDArray[np.bytes_]:
    """Read strings of fixed width [N], UTF-8.

    Raises:
        ValueError: if they are of another kind or encoding, or not in a list.
    """
    packed = np.array(mapped(file, name, "S"))
    if packed.ndim != 1:
        raise ValueError(f"{name} {list(packed.shape)} is no list")
    content = packed.view(np.uint8)
    if content.max(initial=0) < 0x80:  # ASCII, as nearly always
        return packed
    content.tobytes().decode()
    if (content[:: packed.itemsize] & 0xC0 == 0x80).any():  # a character that began in the string before
        raise ValueError(f"{name} is not UTF-8")
    return packed


def flags(file: h5py.File, name: str) -> NDArray[np.bool_]:
    """Read truth values, which are kept as bytes or as HDF5's booleans.

    Raises:
        ValueError: if they are of another kind, or neither 0 nor 1.
    """
    found = np.array(mapped(file, name, "ub")).view(np.uint8)
    if found.shape != find(file, name).shape or found.max(initial=0) > 1:
        raise ValueError(f"{name} holds other values than 0 and 1")
    return found.astype(bool)


def read_rows(values: np.memmap[Any, Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Read rows [n, …] of a mapped array [N, …] from its file: none of its pages count as memory.

    Raises:
        ValueError: if the file ends before.
    """
    found = np.empty((len(rows), *values.shape[1:]), values.dtype)
    row_bytes = values[:1].nbytes
    with open(str(values.filename), "rb") as file:
        for place, row in enumerate(rows):
            file.seek(values.offset + int(row) * row_bytes)
            if file.readinto(found[place].data) < row_bytes:
                raise ValueError(f"{values.filename} ends before its row {row}")
    return found


def release(values: Any) -> None:
    """Give the pages of a mapped array back, which count as memory of this process; the array stays valid."""
    while isinstance(values, np.ndarray):
        values = values.base
    if isinstance(values, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        values.madvise(mmap.MADV_DONTNEED)
