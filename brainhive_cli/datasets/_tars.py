"""Pictures in webdataset tars, read in place by their byte offsets."""

import os
import signal
import sys
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainhive_cli import datasets
from brainhive_cli.datasets._packed import Listing
from brainhive_cli.errors import BrainhiveError

READERS = 16
"""Most processes that read headers: ImageNet has four million, at 20 µs each."""


Members = tuple[list[str], list[str], NDArray[np.int64]]
"""The pictures of a tar: their names, labels, and [N, 2] byte offset and size."""


@dataclass(frozen=True)
class Tars:
    """Pictures by shard, byte offset and size, each [N]."""

    shards: tuple[Path, ...]
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]

    def path(self, index: int) -> Path:
        """Say which shard holds a picture."""
        return self.shards[self.shard[index]]

    def read(self, index: int) -> bytes:
        """Read the bytes of a picture."""
        with self.path(index).open("rb") as file:
            file.seek(self.offset[index])
            return file.read(self.size[index])


def listed(shards: Sequence[Path]) -> Listing:
    """List the pictures of tars in which the files of a sample share their name up to the first dot.

    Raises:
        BrainhiveError: naming a tar that is no tar, or cut short.
    """
    names: list[str] = []
    labels: list[str] = []
    places = []
    for keys, classes, place in _by_shard(shards):
        names += keys
        labels += classes
        places.append(place)
    shard = np.repeat(np.arange(len(shards), dtype=np.int32), [len(place) for place in places])
    offset, size = np.concatenate(places).T
    return Listing(names, labels, Tars(tuple(shards), shard, offset, size))


def _by_shard(shards: Sequence[Path]) -> Iterator[Members]:
    readers = min(READERS, os.cpu_count() or 1, len(shards) // 4)
    if readers < 2:
        yield from map(_members, shards)
        return
    quiet = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for this process to answer
    with ProcessPoolExecutor(readers, initializer=signal.signal, initargs=quiet) as pool:
        yield from pool.map(_members, shards)


def _members(shard: Path) -> Members:
    keys, places, labels = [], [], {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                folder, slash, name = member.name.removeprefix("./").rpartition("/")
                key, _, ending = name.partition(".")
                if not key or not member.isfile():  # ._name is what macOS adds
                    continue
                if f".{ending.lower()}" in datasets.PICTURES:
                    keys.append(folder + slash + key)
                    places.append((member.offset_data, member.size))
                elif ending == "cls":
                    labels[folder + slash + key] = sys.intern(_text(tar, member))
            _check_end(tar)
    except (tarfile.TarError, OSError) as error:
        raise BrainhiveError(
            f"{shard} cannot be read, or is cut short: {error}", "download it again"
        ) from error
    return keys, [labels.get(key, "") for key in keys], np.array(places, np.int64).reshape(-1, 2)


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = tar.extractfile(member)
    return file.read().decode(errors="replace").strip() if file else ""


def _check_end(tar: tarfile.TarFile) -> None:
    """Refuse a tar that goes on, or stops, where its end should be: tarfile itself takes that for the end."""
    assert tar.fileobj
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"neither a file nor the end at byte {tar.offset}")
