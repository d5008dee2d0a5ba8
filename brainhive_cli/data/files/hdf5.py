"""HDF5 files that are written row by row, with checksums.

The structure of a file is written once. Rows then go straight to their offsets, so a
killed process leaves a readable file, and processes write to it without a lock.

Each row has a checksum, which is compared when the row is first read. A seal covers all
other bytes. It is verified before HDF5 reads the file, because HDF5 can crash or hang
on damaged structures.
"""

import importlib
import json
import mmap
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from brainhive_cli.core.base import (
    Array,
    Bool,
    BrainhiveError,
    DamagedStore,
    Hint,
    MissingData,
    MissingExtra,
    UInt64,
)
from brainhive_cli.core.files import (
    atomic_write,
    is_file,
    open_descriptor,
    open_unless_link,
    report_damage,
)

PART_SUFFIX = ".part"
"""Suffix of a store until it is complete, after which the file is renamed."""
JSON_STARTS = ("{", "[", '"', "null")
"""Starts of an attribute that is stored as JSON."""
NUMBERS = "fiu"
"""NumPy's dtype kinds of numbers."""
CHECKSUMS = "checksum"
"""Name of the group with the checksums [N] of the rows of each dataset. A checksum is 0
until the row is written.
"""
SEAL_MARK = b"brnhvsl1"
"""Last bytes of a sealed file. Before them are the spans of the rows, the digest of all
other bytes and the number of spans.
"""
SEAL_FOOTER = struct.Struct("<16sQ8s")
SPAN_BYTES = 16
"""Size of a span in the seal: start and size, 64 bits each."""
Spaces = dict[str, tuple[tuple[int, ...], str]]
"""Shape and dtype of datasets whose rows are written later, by name."""


def get_part_path(path: Path) -> Path:
    """Return the path at which a store is written until it is complete."""
    return path.with_name(path.name + PART_SUFFIX)


def get_file_state(path: Path) -> tuple[int, ...]:
    """Return device, inode, size and modification time of a file, to notice changes.

    The inode differs after another file was renamed to this path.

    Raises:
        OSError: if there is no file.
    """
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def shorten_store_path(path: Path) -> str:
    """Return the last three parts of a store's path, such as `things/test/clip`."""
    return "/".join(path.with_suffix("").parts[-3:])


def create(
    path: Path,
    spaces: Spaces,
    arrays: Mapping[str, Array],
    attributes: Mapping[str, Any],
) -> None:
    """Create an HDF5 file, with datasets whose rows `RowWriter` writes later.

    Args:
        path: File to create.
        spaces: Datasets that are allocated but not filled. Each gets a dataset for the
            checksums of its rows.
        arrays: Datasets that are written now, keyed by name.
        attributes: Attributes of the file, as in `set_attributes`.
    """
    all_spaces = dict(spaces)
    for name, (shape, _) in spaces.items():
        all_spaces[f"{CHECKSUMS}/{name}"] = (shape[:1], "uint64")

    # A file without rows and lists has at most 64 KiB.
    n_bytes = 2**16
    for shape, dtype in all_spaces.values():
        n_bytes += prod(shape) * np.dtype(dtype).itemsize
    for array in arrays.values():
        n_bytes += np.asarray(array).nbytes

    with atomic_write(path, is_lasting=False) as part:
        # on a full disk, HDF5 would print its own messages
        _allocate(part, n_bytes)
        with open_unlocked(part, "w") as file:
            for name, (shape, dtype) in all_spaces.items():
                # an allocated dataset has an offset, at which rows are written
                layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                file.create_dataset(name, shape, dtype, dcpl=layout)
            for name, array in arrays.items():
                file.create_dataset(name, data=array)
            set_attributes(file, attributes)
        # HDF5 leaves holes in the file
        _allocate(part, part.stat().st_size)


def _allocate(path: Path, size: int) -> None:
    """Allocate the bytes of a file, so that a full disk is an error at once."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("ab") as file, name_file(path):
            os.posix_fallocate(file.fileno(), 0, size)


@contextmanager
def name_file(path: Path) -> Iterator[None]:
    """Context manager that adds a path to an OSError of a file descriptor."""
    try:
        yield
    except OSError as error:
        raise OSError(*error.args, str(path)) from error


def set_attributes(file: h5py.File, attributes: Mapping[str, Any]) -> None:
    """Write attributes of a file. Values that are no text or number become JSON.

    Text that starts like JSON also becomes JSON, so that it is read back as text.
    """
    for name, value in attributes.items():
        is_text = isinstance(value, str) and not value.startswith(JSON_STARTS)
        is_plain = is_text or isinstance(value, int | float | bool)
        file.attrs[name] = value if is_plain else json.dumps(value)


def get_attributes(file: h5py.File) -> dict[str, Any]:
    """Read the attributes that `set_attributes` wrote."""
    attributes = {}
    for name, value in file.attrs.items():
        if not isinstance(value, str):
            attributes[name] = value.item()
        elif value.startswith(JSON_STARTS):
            attributes[name] = json.loads(value)
        else:
            attributes[name] = value
    return attributes


def open_unlocked(path: Path, mode: str = "r") -> h5py.File:
    """Open an HDF5 file without a lock, which some network disks do not support."""
    return h5py.File(path, mode, locking=False)


@contextmanager
def open_file(
    path: Path, made_by: Hint, error: type[BrainhiveError] = BrainhiveError
) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, after verifying its seal if it has one.

    The block should only read: its errors count as damage of the file. `open_rows`
    verifies the rows.

    Args:
        path: The HDF5 file.
        made_by: Command line that makes such a file, for the hint.
        error: Class of the raised error.

    Raises:
        MissingData: if there is no such file, or it is unfinished.
        BrainhiveError: if it is damaged, cut short, no HDF5, or has unexpected content.
    """
    if not is_file(path):
        is_unfinished = get_part_path(path).is_file()
        state = "is not finished" if is_unfinished else "does not exist"
        raise MissingData(f"{path} {state}", made_by)

    with report_damage(path, f"delete it, then: {made_by}", error):
        is_sealed = verify_seal(path)
        with open_unlocked(path) as file:
            # a finished store without its seal was cut short
            if not is_sealed and CHECKSUMS in file and path.suffix != PART_SUFFIX:
                raise ValueError("its seal is missing")
            refuse_other_files(file)
            yield file


def refuse_other_files(file: h5py.File, has_datasets: bool = False) -> None:
    """Raise an error if a file has links to other files, which HDF5 would open.

    Args:
        file: The open file.
        has_datasets: If True, check the datasets too, for libraries that read them.

    Raises:
        ValueError: if a link or a dataset refers to another file.
    """

    def name_foreign_link(name: bytes, link: h5py.h5l.LinkInfo) -> bytes | None:
        return None if link.type in (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT) else name

    # `visit` stops at the first name that is returned
    foreign_name = file.id.links.visit(name_foreign_link, info=True)
    if foreign_name is not None:
        text = foreign_name.decode(errors="replace")
        raise ValueError(f"{text} is a link to another file")
    if has_datasets:
        file.visititems(_require_own_values)


def _require_own_values(name: str, item: Any) -> None:
    """Raise an error if the values of a dataset are in other files."""
    if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
        raise ValueError(f"the values of {name} are in other files")


def find_dataset(file: h5py.Group, name: str) -> h5py.Dataset:
    """Return the dataset of a name.

    Raises:
        ValueError: if it is absent, or its values are in other files.
        MissingExtra: if a filter of its values is not installed.
    """
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"it has no dataset {name}")
    _require_own_values(name, dataset)
    settings = dataset.id.get_create_plist()
    # Filters of HDF5 that plugins read, by their registered numbers.
    plugins = {
        32001: "blosc",
        32004: "LZ4",
        32008: "bitshuffle",
        32013: "ZFP",
        32015: "Zstandard",
        32026: "blosc2",
    }
    for index in range(settings.get_nfilters()):
        number = settings.get_filter(index)[0]
        if not h5py.h5z.filter_avail(number):
            # the import registers the filters
            with suppress(ImportError):
                importlib.import_module("hdf5plugin")
        if not h5py.h5z.filter_avail(number):
            raise MissingExtra(
                f"{file.file.filename}: {name} is packed by the HDF5 filter "
                f"{plugins.get(number, number)}, which is not installed",
                "pip install hdf5plugin; or save it with compression='gzip'",
            )
    return dataset


def open_numbers(file: h5py.File, name: str, kinds: str = NUMBERS) -> h5py.Dataset:
    """Return a dataset of numbers, which may be compressed.

    Args:
        file: The open file.
        name: Name of the dataset.
        kinds: Accepted dtype kinds of NumPy. S is a string of fixed width.

    Raises:
        ValueError: if it is absent or of another kind, or its values are in other
            files.
    """
    dataset = find_dataset(file, name)
    if dataset.dtype.kind not in kinds or dataset.shape is None:
        raise ValueError(f"{name} is {dataset.dtype}, not of kind {' or '.join(kinds)}")
    return dataset


def map_numbers(file: h5py.File, name: str, kinds: str = NUMBERS) -> Array:
    """Map a contiguous dataset of numbers into memory, read-only.

    Raises:
        ValueError: as for `open_numbers`, and if the dataset is not contiguous or not
            wholly inside the file.
    """
    dataset = open_numbers(file, name, kinds)
    if not dataset.size:  # mmap refuses a length of 0
        return np.empty(dataset.shape, dataset.dtype)
    start = dataset.id.get_offset()
    if start is None:
        raise ValueError(f"{name} is not in one piece")
    return np.memmap(file.filename, dataset.dtype, "r", start, dataset.shape)


def read_strings(file: h5py.File, name: str) -> NDArray[np.bytes_]:
    """Read strings [N] of fixed width, in UTF-8."""
    return np.array(map_numbers(file, name, "S"))


def read_flags(file: h5py.File, name: str) -> Bool:
    """Read booleans, stored as bytes or as HDF5's booleans."""
    return np.array(map_numbers(file, name, "ub")).astype(bool)


def release_pages(values: Any) -> None:
    """Free the memory pages of a mapped array. The array stays valid."""
    # follow the bases of views to the mapping
    while isinstance(values, np.ndarray):
        values = values.base
    if isinstance(values, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        values.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True, eq=False)
class LazyRows:
    """Array [N, …] that is read from a file when it is indexed.

    `np.asarray` reads all rows.

    Attributes:
        shape: Shape [N, …].
        dtype: Dtype of the values.
        read: Function that reads rows, given a slice, indices [n] or a mask [N]. For a
            store, any NumPy index.
        path: File whose values must be finite, or None if they need not be.
        checksums: Checksums [N] of the rows of a store.
        verify: Function that compares rows of a store with their checksums.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[Any], Array]
    path: Path | None = None
    checksums: UInt64 | None = None
    verify: Callable[[Any], object] = lambda rows: None

    def __repr__(self) -> str:
        """Return the shape and the dtype, without reading values."""
        return f"<LazyRows {list(self.shape)} of {self.dtype}, read when indexed>"

    @property
    def nbytes(self) -> int:
        """Number of bytes of all rows."""
        return prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        """Return N."""
        return self.shape[0]

    def __getitem__(self, index: Any) -> Array:
        """Read rows, or parts of them, with a NumPy index.

        Raises:
            BrainhiveError: if they are not finite, or a row does not match its
                checksum.
        """
        # the first index selects rows, and further indices select within rows
        indices = index if isinstance(index, tuple) else (index,)
        rows = indices[0]
        if rows is Ellipsis:
            selection: Array = np.asarray(self)[index]
            return selection
        # rows of a store are mapped, so only the selection is copied
        if self.checksums is not None:
            self.verify(rows)
            return self.read(index)
        # `read` of another file returns [n, …], also for a single row
        is_single = isinstance(rows, int | np.integer)
        values = self.read(np.array([rows]) if is_single else rows)
        if self.path is not None and not np.isfinite(values).all():
            raise BrainhiveError(
                f"{self.path} has signals that are not finite",
                "get or make the file again",
            )
        first_index = 0 if is_single else slice(None)
        return values[(first_index, *indices[1:])]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Read all rows, as `__getitem__` does."""
        return np.array(self[:], dtype)

    def select_column(self, position: int) -> "LazyRows":
        """Select a position of the second axis of a store, as [N, …].

        Rows that were verified before are not verified again.
        """
        column = self.read((slice(None), position))
        return replace(self, shape=column.shape, read=column.__getitem__)


def open_rows(
    file: h5py.File, name: str, made_by: Hint, kinds: str = NUMBERS
) -> LazyRows:
    """Map the rows [N, …] of a store. Each row is verified when it is first read.

    Args:
        file: The open file, whose seal was verified.
        name: Name of the dataset.
        made_by: Command line that makes such a file, for the hint.
        kinds: Accepted dtype kinds of NumPy.

    Raises:
        ValueError: as for `map_numbers`, or if there are no checksums.
    """
    mapped = map_numbers(file, name, kinds)
    if mapped.size:
        checksums = map_numbers(file, f"{CHECKSUMS}/{name}")
    else:
        checksums = np.zeros(len(mapped) if mapped.ndim else 0, np.uint64)
    values = mapped.view(np.ndarray)
    verifier = _RowVerifier(values, checksums, file.filename, name, made_by)
    return LazyRows(
        mapped.shape,
        mapped.dtype,
        read=values.__getitem__,
        checksums=checksums,
        verify=verifier.verify,
    )


class _RowVerifier:
    """Comparison of rows with their checksums, once per row and process.

    Args:
        values: Mapped rows [N, …].
        checksums: Checksums [N], 0 for a row that was never written.
        path: Path of the file.
        name: Name of the dataset.
        made_by: Command line that makes such a file, for the hint.
    """

    def __init__(
        self, values: Array, checksums: UInt64, path: str, name: str, made_by: Hint
    ) -> None:
        self._content = values
        if values.size:
            self._content = values.reshape(len(values), -1).view(np.uint8)
        self._checksums = checksums
        self._is_due = np.asarray(checksums != 0)
        self._rows = np.arange(len(values) if values.ndim else 0)
        self._path = path
        self._name = name
        self._made_by = made_by

    def verify(self, index: Any) -> None:
        """Verify the rows that a NumPy index selects.

        Raises:
            DamagedStore: if a row does not match its checksum.
        """
        is_due = self._is_due[index]
        if not is_due.any():
            return
        rows = np.unique(self._rows[index][is_due])
        digests = (
            xxhash.xxh3_64_intdigest(self._content[row]) for row in rows.tolist()
        )
        is_equal = np.fromiter(digests, np.uint64, len(rows)) == self._checksums[rows]
        if not is_equal.all():
            raise DamagedStore(
                f"{self._path} is damaged: row {rows[~is_equal][0]} of {self._name} "
                "does not match its checksum",
                f"delete it, then: {self._made_by}",
            )
        self._is_due[rows] = False


class RowWriter:
    """Writer of the rows of a contiguous dataset, without HDF5.

    A failed write, such as on a full disk, is an OSError at once.

    Args:
        path: File that `create` made.
        name: Name of the dataset.
    """

    def __init__(self, path: Path, name: str) -> None:
        checksum_name = f"{CHECKSUMS}/{name}"
        self._path = path
        self._checksum_offset: int | None = None
        with open_unlocked(path) as file:
            dataset = find_dataset(file, name)
            self._offset: int = dataset.id.get_offset()
            self._dtype = dataset.dtype
            self._row_bytes = prod(dataset.shape[1:]) * self._dtype.itemsize
            if checksum_name in file:
                checksums = find_dataset(file, checksum_name)
                self._checksum_offset = checksums.id.get_offset()
        self._file = open_descriptor(path, os.O_WRONLY, follow=False)

    def write(
        self, rows: Sequence[int] | NDArray[np.integer[Any]], values: Array
    ) -> None:
        """Write rows and their checksums.

        Args:
            rows: Row numbers [n].
            values: Values [n, …].
        """
        rows = np.asarray(rows, np.int64)
        if not len(rows):
            return
        values = np.ascontiguousarray(values, self._dtype).reshape(len(rows), -1)
        checksums = row_checksums(values)

        # write successive rows in one call
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        first_rows = rows[np.r_[0, ends]].tolist()
        value_blocks = np.split(values, ends)
        checksum_blocks = np.split(checksums, ends)
        for first_row, value_block, checksum_block in zip(
            first_rows, value_blocks, checksum_blocks, strict=True
        ):
            # checksums last, since a row without a checksum counts as not written
            self._write_all(value_block, self._offset + first_row * self._row_bytes)
            if self._checksum_offset is not None:
                offset = self._checksum_offset + first_row * 8  # bytes
                self._write_all(checksum_block, offset)

    def _write_all(self, content: Array, offset: int) -> None:
        """Write the bytes of an array at an offset in the file."""
        unwritten = content.reshape(-1).view(np.uint8).data
        # pwrite may write less than it was asked to
        while unwritten:
            with name_file(self._path):
                n_written = os.pwrite(self._file, unwritten, offset)
            offset += n_written
            unwritten = unwritten[n_written:]

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def row_checksums(values: Array) -> UInt64:
    """Compute the checksum [N] (xxh3, 64 bits) of the bytes of each row."""
    rows = values
    if values.size:
        rows = np.asarray(values).reshape(len(values), -1).view(np.uint8)
    return np.fromiter(map(xxhash.xxh3_64_intdigest, rows), np.uint64, len(values))


def _iterate_checked_datasets(file: h5py.File) -> Iterator[tuple[str, Array]]:
    """Yield the name and the mapped values of each dataset with checksums.

    Empty datasets are left out.
    """
    names: list[str] = []
    file.visit(names.append)  # skips links to other files
    for name in sorted(names):
        if name.startswith(f"{CHECKSUMS}/") and isinstance(file[name], h5py.Dataset):
            dataset_name = name.removeprefix(f"{CHECKSUMS}/")
            values = map_numbers(file, dataset_name)
            if values.size:
                yield dataset_name, values


def verify_rows(file: h5py.File, made_by: Hint) -> None:
    """Verify all rows that have a checksum, which reads the whole file.

    Args:
        file: The open file.
        made_by: Command line that makes such a file, for the hint.

    Raises:
        DamagedStore: if a row does not match its checksum.
    """
    # Size of the block of rows that is read at a time.
    verified_bytes = 2**24
    for name, values in _iterate_checked_datasets(file):
        rows = open_rows(file, name, made_by)
        n_rows = max(1, verified_bytes // values[:1].nbytes)
        for start in range(0, len(rows), n_rows):
            rows.verify(slice(start, start + n_rows))
            # otherwise the whole store would count as memory of this process
            release_pages(rows.read(...))


def seal(path: Path, attributes: Mapping[str, Any] | None = None) -> None:
    """Write further attributes of a complete store, then its seal."""
    spans = []
    with open_unlocked(path, "r+" if attributes else "r") as file:
        set_attributes(file, attributes or {})
        for name, values in _iterate_checked_datasets(file):
            spans.append((file[name].id.get_offset() or 0, values.nbytes))
    spans.sort()

    span_bytes = np.array(spans, np.uint64).tobytes()
    digest = _digest(path, spans, path.stat().st_size)
    with path.open("ab") as sealed_file:
        sealed_file.write(span_bytes + SEAL_FOOTER.pack(digest, len(spans), SEAL_MARK))


def unseal(path: Path) -> None:
    """Remove the seal of a file, if it has one."""
    file_seal = _read_seal(path)
    if file_seal:
        with open(path, "r+b", opener=open_unless_link) as file:
            file.truncate(file_seal.end)


def verify_seal(path: Path) -> bool:
    """Verify all bytes of a file except its rows.

    Returns:
        True if it has a seal.

    Raises:
        ValueError: if the seal does not match.
    """
    file_seal = _read_seal(path)
    if file_seal is None:
        return False
    if file_seal.digest != _digest(path, file_seal.spans, file_seal.end):
        raise ValueError("its seal does not match its names, attributes and checksums")
    return True


@dataclass(frozen=True)
class _Seal:
    """Seal of a file.

    Attributes:
        digest: Digest of all bytes before the seal except the rows.
        spans: Start and size of the rows of each dataset.
        end: Size of the file without the seal.
    """

    digest: bytes
    spans: list[tuple[int, int]]
    end: int


def _read_seal(path: Path) -> _Seal | None:
    """Read the seal of a file, or return None if it has none."""
    with path.open("rb") as file:
        footer_start = max(0, file.seek(0, os.SEEK_END) - SEAL_FOOTER.size)
        file.seek(footer_start)
        footer = file.read()
        if len(footer) < SEAL_FOOTER.size or not footer.endswith(SEAL_MARK):
            return None
        digest, n_spans, _ = SEAL_FOOTER.unpack(footer)
        end = footer_start - SPAN_BYTES * n_spans
        file.seek(end)
        numbers = np.frombuffer(file.read(SPAN_BYTES * n_spans), np.uint64)
    spans = [(int(start), int(size)) for start, size in numbers.reshape(-1, 2)]
    return _Seal(digest, spans, end)


def _digest(path: Path, spans: Sequence[tuple[int, int]], end: int) -> bytes:
    """Digest the bytes of a file before `end` that are outside of spans.

    The spans are digested too, since they say which bytes are left out.
    """
    content = np.memmap(path, np.uint8, "r")
    digest = xxhash.xxh3_128(repr((spans, end)).encode())
    gap_start = 0
    for start, size in spans:
        digest.update(content[gap_start:start].data)
        gap_start = start + size
    digest.update(content[gap_start:end].data)
    return digest.digest()
