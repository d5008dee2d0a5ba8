"""Pictures in webdataset tars, read in place by their byte offsets."""

import os
import signal
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainhive_cli import datasets
from brainhive_cli.datasets._packed import Listing
from brainhive_cli.errors import BrainhiveError

READERS = 16
"""Most processes that read headers: ImageNet has four million, at 20 µs each."""


class Member(NamedTuple):
    """A picture in a tar."""

    key: str
    offset: int
    size: int
    label: str


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
    by_shard = list(_by_shard(shards))
    members = [member for some in by_shard for member in some]
    return Listing(
        [member.key for member in members],
        [member.label for member in members],
        Tars(
            tuple(shards),
            np.repeat(np.arange(len(shards), dtype=np.int32), [len(some) for some in by_shard]),
            np.array([member.offset for member in members], np.int64),
            np.array([member.size for member in members], np.int64),
        ),
    )


def _by_shard(shards: Sequence[Path]) -> Iterator[list[Member]]:
    readers = min(READERS, os.cpu_count() or 1, len(shards) // 4)
    if readers < 2:
        yield from map(_members, shards)
        return
    quiet = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for this process to answer
    with ProcessPoolExecutor(readers, initializer=signal.signal, initargs=quiet) as pool:
        yield from pool.map(_members, shards)


def _members(shard: Path) -> list[Member]:
    try:
        with tarfile.open(shard, "r:") as tar:
            members = list(_pictures(tar))
            if shard.stat().st_size < tar.offset + tarfile.BLOCKSIZE:
                raise tarfile.ReadError("its end is missing")
    except (tarfile.TarError, OSError) as error:
        raise BrainhiveError(
            f"{shard} cannot be read, or is cut short: {error}", "download it again"
        ) from error
    return members


def _pictures(tar: tarfile.TarFile) -> Iterator[Member]:
    pictures, labels = [], {}
    for member in tar:
        folder, slash, name = member.name.removeprefix("./").rpartition("/")
        key, _, ending = name.partition(".")
        if not key or not member.isfile():  # ._name is what macOS adds
            continue
        if f".{ending.lower()}" in datasets.PICTURES:
            pictures.append((folder + slash + key, member.offset_data, member.size))
        elif ending == "cls" and (content := tar.extractfile(member)):
            labels[folder + slash + key] = content.read().decode(errors="replace").strip()
    return (Member(*picture, labels.get(picture[0], "")) for picture in pictures)
