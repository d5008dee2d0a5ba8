"""Pictures in webdataset tars, read in place by their byte offsets."""

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core import home
from brainhive_cli.core.archives import TarMember, read_at, tar_members
from brainhive_cli.core.damage import RAISED, reading
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.files import publish
from brainhive_cli.data import datasets
from brainhive_cli.data.datasets._pictures import Listing
from brainhive_cli.data.stores import pickles

READERS = 16
"""Threads that read headers: each is a seek away from the one before, so that several seek at once."""
LABEL = 256
"""Bytes of a label that are read."""
Listed = tuple[list[str], list[str], NDArray[np.int64]]
"""Names and labels of pictures, and [N, 2] byte offset and size; or [N, 3] with their shard first."""
AGAIN = "download it again"
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
    states = []
    for shard in shards:
        with reading(shard, AGAIN):
            states.append(os.stat(shard))
    stamp = [(state.st_size, state.st_mtime_ns) for state in states]
    with suppress(BrainhiveError, *RAISED):
        found = pickles.load(path)
        listed = _split(found["names"]), _split(found["labels"]), found["places"]
        if np.array_equal(found["stamp"], stamp) and _is_within(*listed, [state.st_size for state in states]):
            return listed
    names, labels, places = _read_through(shards)
    with suppress(OSError):  # a folder that cannot be written to
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as own:  # of this writer alone
            made = Path(own, path.name)
            np.savez(made, stamp=stamp, names=_joined(names), labels=_joined(labels), places=places)
            publish(made, path)
    return names, labels, places


def _is_within(names: list[str], labels: list[str], places: NDArray[np.int64], sizes: Sequence[int]) -> bool:
    """Whether each picture of a listing lies in its shard."""
    shard, offset, size = places.T
    end = np.array(sizes)[shard]
    is_inside = (shard >= 0) & (offset >= 0) & (size >= 0) & (size <= end) & (offset <= end - size)
    return len(names) == len(labels) == len(places) and bool(is_inside.all())


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
    with reading(shard, AGAIN), shard.open("rb", buffering=0) as file:
        return _pictures(tar_members(file, os.fstat(file.fileno()).st_size), file)


def _pictures(found: Iterable[TarMember], file: BinaryIO) -> Listed:
    keys, places, labels = [], [], {}
    for name, offset, size in found:
        folder, slash, own = name.removeprefix("./").rpartition("/")
        key, _, ending = own.partition(".")  # ._name is what macOS adds, and has no key
        if key and f".{ending.lower()}" in datasets.PICTURES:
            keys.append(folder + slash + key)
            places.append((offset, size))
        elif key and ending == "cls":
            labels[folder + slash + key] = sys.intern(
                read_at(file, offset, min(size, LABEL)).decode(errors="replace").strip()
            )
    return keys, [labels.get(key, "") for key in keys], np.array(places, np.int64).reshape(-1, 2)
