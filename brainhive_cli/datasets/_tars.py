"""Pictures in webdataset tars, read in place by their byte offsets."""

import hashlib
import os
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from brainhive_cli import datasets
from brainhive_cli.core import home
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.datasets._pictures import Listing

READERS = 16
"""Threads that read headers: each is a seek away from the one before, so that several seek at once."""
END = tarfile.NUL * tarfile.BLOCKSIZE
Member = tuple[str, int, int]
"""A file in a tar: its name, byte offset and size."""
Listed = tuple[list[str], list[str], NDArray[np.int64]]
"""Names and labels of pictures, and [N, 2] byte offset and size; or [N, 3] with their shard first."""
FOLDER = ".listings"
"""Where listings are kept, below the embeddings."""


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


def listed(shards: Sequence[Path], kept: Path) -> Listing:
    """List the pictures of tars in which the files of a sample share their name up to the first dot.

    Args:
        shards: The tars.
        kept: The folder of listings that earlier commands kept.

    Raises:
        BrainhiveError: naming a tar that is no tar, or cut short.
    """
    names, labels, places = _kept(kept, shards)
    shard, offset, size = places.T
    return Listing(names, labels, Tars(tuple(shards), shard.astype(np.int32), offset, size))


def _kept(folder: Path, shards: Sequence[Path]) -> Listed:
    """List pictures, from the last time if no shard has changed its size or time since."""
    here = [str(home.portable(str(file.absolute()))) for file in shards]
    name = hashlib.sha256(_joined(here).tobytes()).hexdigest()
    path = folder / f"{name}.npz"
    stamp = [(state.st_size, state.st_mtime_ns) for state in map(os.stat, shards)]
    with suppress(OSError, EOFError, KeyError, ValueError, BadZipFile), np.load(path) as found:
        if np.array_equal(found["stamp"], stamp):
            return _split(found["names"]), _split(found["labels"]), found["places"]
    names, labels, places = _read_through(shards)
    with suppress(OSError):  # a folder that cannot be written to
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as own:  # of this writer alone
            made = Path(own, path.name)
            np.savez(made, stamp=stamp, names=_joined(names), labels=_joined(labels), places=places)
            os.replace(made, path)
    return names, labels, places


def _joined(texts: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer("".join(f"{text}\0" for text in texts).encode(errors="surrogateescape"), np.uint8)


def _split(joined: NDArray[np.uint8]) -> list[str]:
    return joined.tobytes().decode(errors="surrogateescape").split("\0")[:-1]


def _read_through(shards: Sequence[Path]) -> Listed:
    names: list[str] = []
    labels: list[str] = []
    places = []
    with ThreadPoolExecutor(READERS) as pool:
        for shard, (keys, classes, place) in enumerate(pool.map(_listed, shards)):
            names += keys
            labels += classes
            places.append(np.insert(place, 0, shard, axis=1))
    return names, labels, np.concatenate(places)


def _listed(shard: Path) -> Listed:
    try:
        with shard.open("rb", buffering=0) as file:
            return _pictures(file)
    except (tarfile.TarError, OSError) as error:
        raise BrainhiveError(
            f"{shard} cannot be read, or is cut short: {error}", "download it again"
        ) from error


def _pictures(file: FileIO) -> Listed:
    keys, places, labels = [], [], {}
    for name, offset, size in _files(file):
        folder, slash, own = name.removeprefix("./").rpartition("/")
        key, _, ending = own.partition(".")  # ._name is what macOS adds, and has no key
        if key and f".{ending.lower()}" in datasets.PICTURES:
            keys.append(folder + slash + key)
            places.append((offset, size))
        elif key and ending == "cls":
            labels[folder + slash + key] = sys.intern(
                _read(file, offset, size).decode(errors="replace").strip()
            )
    return keys, [labels.get(key, "") for key in keys], np.array(places, np.int64).reshape(-1, 2)


def _files(file: FileIO) -> list[Member]:
    try:
        return list(_plain_files(file))
    except ValueError:  # a name of over 100 characters, say, or no tar at all
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            found = [(member.name, member.offset_data, member.size) for member in tar if member.isfile()]
            file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != END:  # which tarfile takes for the end
            raise tarfile.ReadError(f"neither a file nor the end at byte {tar.offset}") from None
        return found


def _plain_files(file: FileIO) -> Iterator[Member]:
    """Walk through the headers of a tar, in a fifth of the time that tarfile takes to read all they say.

    Raises:
        ValueError: at the first that says more than the name and size of a file.
    """
    at = 0
    while (header := _read(file, at, tarfile.BLOCKSIZE)) != END:
        kind, size = header[156:157], int(header[124:135], 8)
        if header[257:262] != b"ustar" or header[345]:
            raise ValueError("no header, or a long name")
        if kind == tarfile.REGTYPE:
            yield header[:100].rstrip(b"\0").decode(), at + tarfile.BLOCKSIZE, size
        elif kind != tarfile.XHDTYPE or re.search(
            rb" (path|size)=", _read(file, at + tarfile.BLOCKSIZE, size)
        ):
            raise ValueError(f"a header of type {kind!r}")
        at += tarfile.BLOCKSIZE * (1 + -(-size // tarfile.BLOCKSIZE))


def _read(file: FileIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)
