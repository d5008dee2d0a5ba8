"""Checksums of stores: one a row, written with the row, and a seal over all other bytes of the file.

The seal is verified before HDF5 reads anything: of damaged structures it can crash, or go on for ever. A row
is verified when it is first read, since stores are larger than what most commands read of them.
"""

import copy
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.stores.mapping import NUMBERS, mapped, read_rows, release

GROUP = "checksum"
"""The group that has, for each dataset written row by row, the checksums [N] of its rows, 0 where none is."""
MARK = b"brnhvsl1"
"""The last bytes of a sealed file; before them stand the parts that are rows, the digest and their count."""
END = struct.Struct("<16sQ8s")
MOST = 64
"""Parts that are rows, in any store that we write."""
BYTES = 8
"""Of a row's checksum."""
BLOCK_BYTES = 2**24
"""Of rows that are verified at once when all are."""
COPIED_BYTES = 2**20
"""Of rows that are verified and then copied: so few are copied from the processor's cache."""


def of_rows(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Compute the checksum (xxh3, 64 bits) of each row's bytes, [N]."""
    rows = np.asarray(values).reshape(len(values), -1).view(np.uint8) if values.size else values
    return np.fromiter(map(xxhash.xxh3_64_intdigest, rows), np.uint64, len(values))


def seal(path: Path) -> None:
    """Append the seal to a file whose rows have checksums."""
    with h5py.File(path, "r") as file:
        places = sorted((file[name].id.get_offset() or 0, values.nbytes) for name, values, _ in _summed(file))
    parts = np.array(places, np.uint64).tobytes()
    digest = _digest(path, places, path.stat().st_size)
    with path.open("ab") as end:
        end.write(parts + END.pack(digest, len(places), MARK))


def unseal(path: Path) -> None:
    """Cut the seal off."""
    if sealed := _read_seal(path):
        os.truncate(path, sealed[2])


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
    """Read the digest, the parts (start and size) that are rows, and where the file ended before the seal."""
    with path.open("rb") as file:
        at = max(0, file.seek(0, os.SEEK_END) - END.size)
        file.seek(at)
        content = file.read()
        if len(content) < END.size or not content.endswith(MARK):
            return None
        digest, count, _ = END.unpack(content)
        end = at - 16 * count
        if count > MOST or end < 0:
            raise ValueError("its seal is damaged")
        file.seek(end)
        parts = np.frombuffer(file.read(16 * count), np.uint64).reshape(-1, 2)
    return digest, [(int(start), int(size)) for start, size in parts], end


def _digest(path: Path, places: Sequence[tuple[int, int]], end: int) -> bytes:
    """Digest what lies between parts of a file, and where these are."""
    content, at, total = np.memmap(path, np.uint8, "r"), 0, xxhash.xxh3_128(repr((places, end)).encode())
    for start, size in (*places, (end, 0)):
        if not at <= start <= start + size <= end:
            raise ValueError("its seal is damaged")
        total.update(content[at:start].data)
        at = start + size
    return total.digest()


def verify_rows(file: h5py.File) -> None:
    """Verify all rows that have a checksum; reads the whole file.

    Raises:
        ValueError: naming those that do not match.
    """
    for name, damaged in damaged_rows(file).items():
        rows = ", ".join(map(str, damaged[:5])) + (" …" if damaged.size > 5 else "")
        some = f"{damaged.size} of {len(file[name])} rows of {name}"
        raise ValueError(f"{some} do not match their checksums: {rows}")


def damaged_rows(file: h5py.File) -> dict[str, NDArray[np.int64]]:
    """Find the rows that do not match their checksums, by dataset; reads all rows that were written."""
    damaged = {name: _damaged(values, sums) for name, values, sums in _summed(file)}
    return {name: rows for name, rows in damaged.items() if rows.size}


def _damaged(values: NDArray[Any], sums: NDArray[np.uint64]) -> NDArray[np.int64]:
    written = np.flatnonzero(sums)
    step = max(1, BLOCK_BYTES // values[:1].nbytes)
    found = [np.empty(0, np.int64)]
    for start in range(0, len(written), step):
        rows = written[start : start + step]
        found.append(rows[_differs(values[rows], sums[rows])])
        release(values)  # or a store larger than memory would count as this process's
    return np.concatenate(found)


def _differs(values: NDArray[Any], sums: NDArray[np.uint64]) -> NDArray[np.bool_]:
    differs: NDArray[np.bool_] = (sums != 0) & (of_rows(values) != sums)
    return differs


def _summed(file: h5py.File) -> Iterator[tuple[str, NDArray[Any], NDArray[np.uint64]]]:
    """Yield each dataset whose rows have checksums, and these; none that is empty."""
    names: list[str] = []
    file.visit(names.append)  # each once, and no link that leads elsewhere
    for name in sorted(names):
        if name.startswith(f"{GROUP}/") and isinstance(file[name], h5py.Dataset):
            summed = name.removeprefix(f"{GROUP}/")
            values = mapped(file, summed)
            sums = _sums_of(file, summed, values)
            if values.size:
                yield summed, values, sums


def _sums_of(file: h5py.File, name: str, values: NDArray[Any]) -> NDArray[np.uint64]:
    """Map the checksums [N] of the rows of a dataset."""
    sums = mapped(file, f"{GROUP}/{name}")
    if sums.dtype != np.uint64 or sums.shape != values.shape[:1]:
        raise ValueError(f"the checksums of {name} are not one a row")
    return sums


class StoredRows:
    """Rows [N, …] of a store, mapped; each is compared with its checksum when this process first reads it.

    It is sliced and indexed along N as an array is; `np.asarray` reads all rows.

    Attributes:
        values: The mapped array, which compares nothing: whoever reads from it calls `verify` before.
    """

    def __init__(self, file: h5py.File, name: str, way_out: Callable[[], str], kinds: str = NUMBERS) -> None:
        """Map a dataset of an open file.

        Args:
            file: The file, whose seal was verified.
            name: Of the dataset.
            way_out: Says which line makes the file again.
            kinds: NumPy's letters of the kinds of dtype that are accepted.

        Raises:
            ValueError: as `mapped` does, or if there are no checksums, or not one a row.
        """
        self.values: NDArray[Any] = mapped(file, name, kinds)
        self._path, self._name, self._way_out = file.filename, name, way_out
        count = len(self.values) if self.values.ndim else 0
        self._bytes = np.zeros((count, 0), np.uint8)
        self._sums, self._is_due = np.zeros(count, np.uint64), np.zeros(count, bool)
        if self.values.size:
            self._sums = _sums_of(file, name, self.values)
            self._is_due = np.asarray(self._sums != 0)  # rows that were never written have none
            self._bytes = self.values.view(np.ndarray).reshape(count, -1).view(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        """N, and the shape of a row."""
        return self.values.shape

    @property
    def ndim(self) -> int:
        """Count the axes."""
        return self.values.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype in the file."""
        return self.values.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.values.nbytes

    def __len__(self) -> int:
        """N."""
        return len(self.values)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read rows, or parts of them, by what indexes an array; the first index chooses among the N.

        Raises:
            BrainhiveError: if one does not match its checksum.
        """
        part: NDArray[Any] = self.values.view(np.ndarray)[index]
        self.verify(index[0] if isinstance(index, tuple) else index)
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all rows; raises as slicing does."""
        whole = np.empty(self.shape, dtype or self.dtype)
        step = max(1, COPIED_BYTES // max(1, self.values[:1].nbytes))
        for start in range(0, len(self), step):
            whole[start : start + step] = self[start : start + step]
        return whole

    def column(self, place: int) -> Self:
        """Give the rows' parts at one place of the second axis, [N, …]; what was verified is so of both."""
        column = copy.copy(self)
        column.values = self.values[:, place]
        return column

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read rows [n, …] from the file, of which no page then counts as memory of this process.

        Raises:
            BrainhiveError: if one does not match its checksum.
        """
        content = read_rows(self.values, rows) if isinstance(self.values, np.memmap) else self.values[rows]
        if self._is_due[rows].any():
            self._refuse(rows[_differs(content, self._sums[rows])])
            self._is_due[rows] = False
        return content

    def verify(self, index: Any) -> None:
        """Compare the rows that `index` chooses, unless they were compared before.

        Raises:
            BrainhiveError: if one does not match its checksum.
        """
        index = slice(None) if index is Ellipsis else index
        if not np.any(self._is_due[index]):
            return
        if isinstance(index, slice | int | np.integer):
            rows = np.atleast_1d(range(len(self))[index])
        else:
            chosen = np.asarray(index)
            rows = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.ravel() % len(self)
        rows = np.unique(rows[self._is_due[rows]])
        digests = (xxhash.xxh3_64_intdigest(self._bytes[row]) for row in rows.tolist())  # nothing is copied
        self._refuse(rows[np.fromiter(digests, np.uint64, len(rows)) != self._sums[rows]])
        self._is_due[rows] = False

    def _refuse(self, damaged: NDArray[np.int64]) -> None:
        if len(damaged):
            problem = f"row {damaged[0]} of {self._name} does not match its checksum"
            raise BrainhiveError(f"{self._path} is damaged: {problem}", f"delete it, then: {self._way_out()}")
