"""HDF5 stores: contiguous arrays that are written row by row, survive a kill, and whose
damage is found.

The file's structure is written once, at creation; rows then go straight to their offset
in it. So a kill at any moment leaves a file that opens, and processes write to one
store without a lock between them.

Each row has a checksum, written with it, and a seal covers all other bytes of the file.
It is verified before HDF5 reads anything: of damaged structures it can crash, or go on
for ever. A row is verified when it is first read, since stores are larger than what
most commands read of them.
"""

import json
import mmap
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash
from numpy.typing import DTypeLike, NDArray

from brainhive_cli.core.arrays import Array, Bool, UInt64
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import BrainhiveError, DamagedStore, Hint, MissingData
from brainhive_cli.core.files import (
    atomic_write,
    is_file,
    open_descriptor,
    open_unless_link,
)

PART = ".part"
"""Ending of a store that is still being written; it is renamed when complete."""
JSON = ("{", "[", '"', "null")
"""How an attribute begins that is kept as JSON."""
NUMBERS = "fiu"
"""NumPy's letters of the kinds of dtype that are numbers."""
CHECKSUMS = "checksum"
"""The group that has, for each dataset written row by row, the checksums [N] of its
rows, 0 where none is.
"""
CHECKSUM_BYTES = 8
OWN_LINKS = h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT
SEAL_MARK = b"brnhvsl1"
"""The last bytes of a sealed file; before them stand the parts that are rows, the
digest and their count.
"""
STRUCTURE_BYTES = 2**16
"""More than the structure of a file takes, besides its rows and lists."""
SEAL_FOOTER = struct.Struct("<16sQ8s")
VERIFIED_BYTES = 2**24
"""Of rows that are verified at once when all are."""


def part_of(path: Path) -> Path:
    """Return where a store is written until it is complete."""
    return path.with_name(path.name + PART)


def state_of(path: Path) -> tuple[int, ...]:
    """Give what changes when a file does: whoever has opened it need not open it again
    while it is the same.

    Raises:
        OSError: if there is none.
    """
    about = path.stat()
    # device and inode differ after another file was renamed to this path
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def short_name(path: Path) -> str:
    """Name a store by where it lies: data set, split and encoder, or data set,
    preparation and subject.
    """
    return "/".join(path.with_suffix("").parts[-3:])


def create(
    path: Path,
    spaces: Mapping[str, tuple[tuple[int, ...], DTypeLike]],
    arrays: Mapping[str, Array],
    attributes: Mapping[str, Any],
) -> None:
    """Create an HDF5 file with `spaces` allocated but not written, and `arrays` and
    `attributes` written.

    Attributes that are not plain numbers or strings are kept as JSON. Each space gets
    room for the checksums of its rows, which `RowWriter` writes.
    """
    # rows, and the checksums of each
    sums = {
        f"{CHECKSUMS}/{name}": (shape[:1], "uint64")
        for name, (shape, _) in spaces.items()
    }

    size = sum(
        prod(shape) * np.dtype(dtype).itemsize
        for shape, dtype in {**spaces, **sums}.values()
    )
    size += sum(np.asarray(array).nbytes for array in arrays.values())

    # the structure, lists and attributes; rows follow later, each at its offset
    with atomic_write(path, is_lasting=False) as part:
        # without room, HDF5 would fail with noise
        _allocate(part, size + STRUCTURE_BYTES)
        with open_unlocked(part, "w") as file:
            for name, (shape, dtype) in {**spaces, **sums}.items():
                # allocated and not filled, so that rows can be written by their offset
                layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                file.create_dataset(name, shape, dtype, dcpl=layout)
            for name, array in arrays.items():
                file.create_dataset(name, data=array)
            set_attributes(file, attributes)
        # again, since HDF5 leaves holes
        _allocate(part, part.stat().st_size)


def _allocate(path: Path, size: int) -> None:
    """Allocate a file's bytes, so that a disk that is too small is an error now and not
    after hours.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("ab") as file, name_file(path):
            os.posix_fallocate(file.fileno(), 0, size)


@contextmanager
def name_file(path: Path) -> Iterator[None]:
    """Name the file of an error of the system, where functions of descriptors do
    not.
    """
    try:
        yield
    except OSError as error:
        raise OSError(*error.args, str(path)) from error


def set_attributes(file: h5py.File, attributes: Mapping[str, Any]) -> None:
    """Write attributes on the file's root; mappings, lists and text that could be taken
    for them as JSON.
    """
    for name, value in attributes.items():
        # text that begins like JSON is quoted, or reading would parse it
        is_text = isinstance(value, str) and not value.startswith(JSON)
        file.attrs[name] = (
            value
            if is_text or isinstance(value, int | float | bool)
            else json.dumps(value)
        )


def get_attributes(file: h5py.File) -> dict[str, Any]:
    """Read back what `set_attributes` wrote."""
    attributes = {}
    for name, value in file.attrs.items():
        if isinstance(value, str):
            attributes[name] = json.loads(value) if value.startswith(JSON) else value
        else:
            attributes[name] = value.item()
    return attributes


def open_unlocked(path: Path, mode: str = "r") -> h5py.File:
    """Open an HDF5 file without locking it: some network disks have no locks, and a
    store gets its name when it is complete.
    """
    return h5py.File(path, mode, locking=False)


@contextmanager
def open_file(
    path: Path, made_by: Hint, error: type[BrainhiveError] = BrainhiveError
) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, and verify its seal where it has one; `open_rows`
    verifies its rows.

    Whatever reading it raises until the block ends is taken for damage, so that the
    block should do no more.

    Args:
        path: The HDF5 file.
        made_by: The command line that makes such a file, for the hint.
        error: Raised where it is damaged.

    Raises:
        MissingData: if there is no such file.
        BrainhiveError: if it is not HDF5, cut short, damaged, or holds something else.
    """
    # an unfinished store lies beside it, with another ending
    if not is_file(path):
        state = "is not finished" if part_of(path).is_file() else "does not exist"
        raise MissingData(f"{path} {state}", made_by)

    # the seal first: HDF5 can crash on damaged structures
    with report_damage(path, f"delete it, then: {made_by}", error):
        is_sealed = verify_seal(path)
        with open_unlocked(path) as file:
            # a finished store without its seal was cut short
            if not is_sealed and CHECKSUMS in file and path.suffix != PART:
                raise ValueError("its seal is missing")
            refuse_other_files(file)
            yield file


def refuse_other_files(file: h5py.File, has_datasets: bool = False) -> None:
    """Refuse a file with links to other files, which HDF5 would follow wherever they
    lead.

    Args:
        file: The file, open.
        has_datasets: Whether its datasets are checked as well, for a reader of a
            library; else `find_dataset` checks those that are read.

    Raises:
        ValueError: naming a link or a dataset.
    """

    def is_own(name: bytes, link: h5py.h5l.LinkInfo) -> bytes | None:
        return None if link.type in OWN_LINKS else name

    other = file.id.links.visit(is_own, info=True)
    if other is not None:
        raise ValueError(f"{other.decode(errors='replace')} is a link to another file")
    if has_datasets:
        file.visititems(_require_own_values)


def _require_own_values(name: str, item: Any) -> None:
    """Refuse a dataset whose values are in other files."""
    if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
        raise ValueError(f"the values of {name} are in other files")


def find_dataset(file: h5py.Group, name: str) -> h5py.Dataset:
    """Find a dataset.

    Raises:
        ValueError: if it is not there, or its values are in other files.
    """
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"it has no dataset {name}")
    _require_own_values(name, dataset)
    return dataset


def open_numbers(file: h5py.File, name: str, kinds: str = NUMBERS) -> h5py.Dataset:
    """Find a dataset of numbers, which may be compressed.

    Args:
        file: The file, open.
        name: Of the dataset.
        kinds: NumPy's letters of the kinds of dtype that are accepted; S is a string of
            fixed width.

    Raises:
        ValueError: if it is of another kind.
    """
    dataset = find_dataset(file, name)
    if dataset.dtype.kind not in kinds or dataset.shape is None:
        raise ValueError(f"{name} is {dataset.dtype}, not of kind {' or '.join(kinds)}")
    return dataset


def map_numbers(file: h5py.File, name: str, kinds: str = NUMBERS) -> Array:
    """Map a contiguous dataset of numbers, read-only; processes share its pages.

    Raises:
        ValueError: if it is of another kind, not contiguous, or not wholly inside the
            file.
    """
    dataset = open_numbers(file, name, kinds)
    if not dataset.size:  # mmap refuses a length of 0
        return np.empty(dataset.shape, dataset.dtype)
    start = dataset.id.get_offset()
    if start is None:
        raise ValueError(f"{name} is not in one piece")
    return np.memmap(file.filename, dataset.dtype, "r", start, dataset.shape)


def read_strings(file: h5py.File, name: str) -> NDArray[np.bytes_]:
    """Read strings of fixed width [N], UTF-8."""
    return np.array(map_numbers(file, name, "S"))


def read_flags(file: h5py.File, name: str) -> Bool:
    """Read truth values, which are kept as bytes or as HDF5's booleans."""
    return np.array(map_numbers(file, name, "ub")).astype(bool)


def release_pages(values: Any) -> None:
    """Give the pages of a mapped array back, which count as memory of this process; the
    array stays valid.
    """
    # views refer to arrays, and the last of these to the mapping
    while isinstance(values, np.ndarray):
        values = values.base
    if isinstance(values, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        values.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True, eq=False)
class LazyRows:
    """Array [N, …] that is read when it is indexed along N; `np.asarray` reads all of
    it.

    Attributes:
        shape: N, and the shape of a row.
        dtype: Of the values.
        read: Reads rows by a slice, indices [n] or a mask [N]; those of a store by what
            indexes an array.
        path: The file whose values must be finite, for the error; None where they need
            not be.
        checksums: [N] of the rows of a store; None elsewhere.
        verify: Compares rows of a store with their checksums.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[Any], Array]
    path: Path | None = None
    checksums: UInt64 | None = None
    verify: Callable[[Any], object] = lambda rows: None

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        """N."""
        return self.shape[0]

    def __getitem__(self, index: Any) -> Array:
        """Read rows, or parts of them, by what indexes an array.

        Raises:
            BrainhiveError: if they are not finite, or a row does not match its
                checksum.
        """
        # the first index selects rows, further ones select within rows
        rows, *rest = index if isinstance(index, tuple) else (index,)
        if rows is Ellipsis:
            part: Array = np.asarray(self)[index]
            return part
        # rows of a store are compared with their checksums before they are used
        if self.checksums is not None:
            self.verify(rows)
            return self.read(index)  # mapped: no more than the part is copied
        # `read` of other files returns [n, …], so that one row is a list of one
        is_one = isinstance(rows, int | np.integer)
        values = self.read(np.array([rows]) if is_one else rows)
        if self.path is not None and not np.isfinite(values).all():
            raise BrainhiveError(
                f"{self.path} has signals that are not finite",
                "get or make the file again",
            )
        return values[(0 if is_one else slice(None), *rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Read all rows; raises as indexing does."""
        return np.array(self[:], dtype)

    def column(self, position: int) -> "LazyRows":
        """Select one position of the second axis of a store, [N, …]; what was verified
        is so of both.
        """
        column = self.read((slice(None), position))
        return replace(self, shape=column.shape, read=column.__getitem__)


def open_rows(
    file: h5py.File, name: str, made_by: Hint, kinds: str = NUMBERS
) -> LazyRows:
    """Map the rows [N, …] of a store; each is compared with its checksum when this
    process first reads it.

    Args:
        file: The file, open, whose seal was verified.
        name: Of the dataset.
        made_by: The command line that makes such a file, for the hint.
        kinds: NumPy's letters of the kinds of dtype that are accepted.

    Raises:
        ValueError: as `map_numbers` does, or if there are no checksums.
    """
    # mapped rows, and their checksums [N]
    mapped = map_numbers(file, name, kinds)
    path = file.filename
    count = len(mapped) if mapped.ndim else 0
    checksums = (
        map_numbers(file, f"{CHECKSUMS}/{name}")
        if mapped.size
        else np.zeros(count, np.uint64)
    )
    is_due = np.asarray(checksums != 0)  # rows that were never written have none
    # bytes of each row, [N, bytes]
    values = mapped.view(np.ndarray)
    numbers = np.arange(count)
    content = values.reshape(count, -1).view(np.uint8) if mapped.size else values

    def verify(index: Any) -> None:
        """Compare the rows that `index` chooses, unless they were compared before."""
        if not is_due[index].any():
            return
        # only rows that this process has not compared yet
        rows = np.unique(numbers[index][is_due[index]])
        # nothing is copied
        digests = (xxhash.xxh3_64_intdigest(content[row]) for row in rows.tolist())
        differs = np.fromiter(digests, np.uint64, len(rows)) != checksums[rows]
        if differs.any():
            problem = f"row {rows[differs][0]} of {name} does not match its checksum"
            raise DamagedStore(
                f"{path} is damaged: {problem}", f"delete it, then: {made_by}"
            )
        is_due[rows] = False

    read = values.__getitem__
    return LazyRows(mapped.shape, mapped.dtype, read, None, checksums, verify)


class RowWriter:
    """Writes rows of one contiguous dataset to their offset in the file.

    A failed write (no space, say) is an OSError at once, never a damaged file.
    """

    def __init__(self, path: Path, name: str) -> None:
        with open_unlocked(path) as file:
            # offsets of rows and checksums, which are written without HDF5
            dataset = find_dataset(file, name)
            sums = f"{CHECKSUMS}/{name}"
            self._offset: int = dataset.id.get_offset()
            self._dtype = dataset.dtype
            self._path = path
            self._sums: int | None = (
                find_dataset(file, sums).id.get_offset() if sums in file else None
            )
            self._row_bytes = prod(dataset.shape[1:]) * self._dtype.itemsize
        self._file = open_descriptor(path, os.O_WRONLY, follow=False)

    def write(
        self, rows: Sequence[int] | NDArray[np.integer[Any]], values: Array
    ) -> None:
        """Write `values` [len(rows), …] at `rows`, neighbouring ones in one call, each
        with its checksums.
        """
        rows = np.asarray(rows, np.int64)
        if not len(rows):
            return
        values = np.ascontiguousarray(values, self._dtype).reshape(len(rows), -1)
        # runs of successive rows, a write each
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        firsts = rows[np.r_[0, ends]].tolist()
        sums = row_checksums(values)
        # rows first: a row without a checksum counts as not written
        for first, part, part_sums in zip(
            firsts, np.split(values, ends), np.split(sums, ends), strict=True
        ):
            self._write_all(part, self._offset + first * self._row_bytes)
            if self._sums is not None:
                self._write_all(part_sums, self._sums + first * CHECKSUM_BYTES)

    def _write_all(self, content: Array, at: int) -> None:
        left = content.reshape(-1).view(np.uint8).data
        # pwrite may write less than it was asked to
        while left:
            with name_file(self._path):
                written = os.pwrite(self._file, left, at)
            at += written
            left = left[written:]

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def row_checksums(values: Array) -> UInt64:
    """Compute the checksum (xxh3, 64 bits) of each row's bytes, [N]."""
    rows = (
        np.asarray(values).reshape(len(values), -1).view(np.uint8)
        if values.size
        else values
    )
    return np.fromiter(map(xxhash.xxh3_64_intdigest, rows), np.uint64, len(values))


def _checksummed(file: h5py.File) -> Iterator[tuple[str, Array]]:
    """Yield each dataset whose rows have checksums; none that is empty."""
    names: list[str] = []
    file.visit(names.append)  # each once, and no link that leads elsewhere
    for name in sorted(names):
        if name.startswith(f"{CHECKSUMS}/") and isinstance(file[name], h5py.Dataset):
            dataset = name.removeprefix(f"{CHECKSUMS}/")
            values = map_numbers(file, dataset)
            if values.size:
                yield dataset, values


def verify_rows(file: h5py.File, made_by: Hint) -> None:
    """Verify all rows that have a checksum; reads the whole file.

    Raises:
        DamagedStore: naming the first that does not match.
    """
    for name, values in _checksummed(file):
        rows = open_rows(file, name, made_by)
        step = max(1, VERIFIED_BYTES // values[:1].nbytes)
        for start in range(0, len(rows), step):
            rows.verify(slice(start, start + step))
            # or a store larger than memory would count as this process's
            release_pages(rows.read(...))


def seal(path: Path, attributes: Mapping[str, Any] | None = None) -> None:
    """Write the last attributes of a complete store, and the seal by which damage is
    found.
    """
    with open_unlocked(path, "r+" if attributes else "r") as file:
        set_attributes(file, attributes or {})
        spans = sorted(
            (file[name].id.get_offset() or 0, values.nbytes)
            for name, values in _checksummed(file)
        )

    # the seal: spans of the rows, and the digest of all bytes between them
    parts = np.array(spans, np.uint64).tobytes()
    digest = _digest(path, spans, path.stat().st_size)
    with path.open("ab") as end:
        end.write(parts + SEAL_FOOTER.pack(digest, len(spans), SEAL_MARK))


def unseal(path: Path) -> None:
    """Cut the seal off."""
    if sealed := _read_seal(path):
        with open(path, "r+b", opener=open_unless_link) as file:
            file.truncate(sealed[2])


def verify_seal(path: Path) -> bool:
    """Verify all bytes of a file but its rows.

    Returns:
        Whether it has a seal.

    Raises:
        ValueError: if it does not match.
    """
    sealed = _read_seal(path)
    if sealed and sealed[0] != _digest(path, *sealed[1:]):
        raise ValueError("its seal does not match its names, attributes and checksums")
    return sealed is not None


def _read_seal(path: Path) -> tuple[bytes, list[tuple[int, int]], int] | None:
    """Read the digest, the parts (start and size) that are rows, and where the file
    ended before the seal.
    """
    with path.open("rb") as file:
        # the footer: digest, number of spans, and mark
        at = max(0, file.seek(0, os.SEEK_END) - SEAL_FOOTER.size)
        file.seek(at)
        content = file.read()
        if len(content) < SEAL_FOOTER.size or not content.endswith(SEAL_MARK):
            return None
        digest, count, _ = SEAL_FOOTER.unpack(content)
        # before it the spans, two numbers of 64 bits each
        end = at - 16 * count
        file.seek(end)
        parts = np.frombuffer(file.read(16 * count), np.uint64).reshape(-1, 2)
    return digest, [(int(start), int(size)) for start, size in parts], end


def _digest(path: Path, spans: Sequence[tuple[int, int]], end: int) -> bytes:
    """Digest what lies between parts of a file, and where these are."""
    # the spans are digested too, since they say which bytes are left out
    content = np.memmap(path, np.uint8, "r")
    at = 0
    total = xxhash.xxh3_128(repr((spans, end)).encode())
    for start, size in (*spans, (end, 0)):
        total.update(content[at:start].data)
        at = start + size
    return total.digest()
