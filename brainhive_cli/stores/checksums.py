"""Checksums of stores: one a row, written with the row, and a seal over all other bytes of the file.

The seal is verified before HDF5 reads anything: of damaged structures it can crash, or go on for ever.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from brainhive_cli.stores.mapping import mapped, release

GROUP = "checksum"
"""The group that has, for each dataset written row by row, the checksums [N] of its rows, 0 where none is."""
MARK = b"brnhvsl1"
"""The last bytes of a sealed file; before them stand the parts that are rows, the digest and their count."""
END = struct.Struct("<16sQ8s")
MOST = 64
"""Parts that are rows, in any store that we write."""
BYTES = 8
"""Of a row's checksum."""
SAMPLED_BYTES, SAMPLED_ROWS = 2**23, 32
"""Of each dataset, most that is checked at opening; first and last row always."""
BLOCK_BYTES = 2**24
"""Of rows that are verified at once when all are."""


def of_rows(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Compute the checksum (xxh3, 64 bits) of each row's bytes, [N]."""
    rows = np.asarray(values).reshape(len(values), -1).view(np.uint8) if values.size else values
    return np.fromiter(map(xxhash.xxh3_64_intdigest, rows), np.uint64, len(values))


def seal(path: Path) -> None:
    """Append the seal to a file whose rows have checksums; those that an older version began have none."""
    with h5py.File(path, "r") as file:
        places = sorted((file[name].id.get_offset() or 0, values.nbytes) for name, values, _ in _summed(file))
        has_sums = GROUP in file
    if has_sums:
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


def verify_sample(file: h5py.File) -> None:
    """Verify a few rows of each dataset.

    Raises:
        ValueError: if one does not match.
    """
    for name, values, sums in _summed(file):
        most = min(SAMPLED_ROWS, SAMPLED_BYTES // max(1, values[:1].nbytes))
        rows = np.unique(np.linspace(0, len(values) - 1, max(2, most), dtype=np.int64))
        if (damaged := rows[_differs(values[rows], sums[rows])]).size:
            raise ValueError(f"row {damaged[0]} of {name} does not match its checksum")


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
            summed, sums = name.removeprefix(f"{GROUP}/"), mapped(file, name)
            values = mapped(file, summed)
            if sums.dtype != np.uint64 or sums.shape != values.shape[:1]:
                raise ValueError(f"the checksums of {summed} are not one a row")
            if values.size:
                yield summed, values, sums
