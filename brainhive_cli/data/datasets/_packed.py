"""Pictures packed many to a file: in webdataset tars, read in place, and in the hub's parquet files."""

import hashlib
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brainhive_cli.core import home
from brainhive_cli.core.archives import open_parquet, read_at, tar_members
from brainhive_cli.core.damage import RAISED, reading
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.files import publish
from brainhive_cli.data import datasets
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.stores.ids import Names

READERS = 16
"""Threads that read headers: each is a seek away from the one before, so that several seek at once."""
LABEL_BYTES = 256
"""Bytes of a label that are read."""
Listed = tuple[list[str], list[str], NDArray[np.int64]]
"""Names and labels of pictures, and [N, 2] byte offset and size; or [N, 3] with their shard first."""
AGAIN = "download it again"
FOLDER = ".listings"
"""Where listings are kept, below the embeddings."""


class Archive(Protocol):
    """Files that hold encoded pictures; it is pickled into worker processes and holds no open file."""

    def path(self, index: int) -> Path:
        """Say which file holds a picture."""

    def read(self, index: int) -> bytes:
        """Read an encoded picture; one of RAISED when it cannot be."""


@dataclass(frozen=True)
class Listing:
    """What lies in an archive.

    Attributes:
        names: Each picture's name there, without ending.
        labels: Each picture's class there: a number or a name, empty when it has none.
    """

    names: list[str]
    labels: list[str]
    archive: Archive


@dataclass(frozen=True)
class Packed:
    """Opens the pictures of an archive."""

    image_ids: Names
    archive: Archive

    def __call__(self, index: int) -> Image.Image:
        """Decode a picture."""
        name = f"{self.image_ids[index]} in {self.archive.path(index)}"
        try:
            data = self.archive.read(index)
        except RAISED as error:
            raise datasets.bad_picture(name, error) from error
        return datasets.decode(BytesIO(data), name)


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


def list_tars(shards: Sequence[Path], kept: Path) -> Listing:
    """List the pictures of tars in which the files of a sample share their name up to the first dot.

    They are listed from the last time if no shard has changed its size or time since.

    Args:
        shards: The tars.
        kept: The folder of listings that earlier commands kept.

    Raises:
        BrainhiveError: naming a tar that is no tar, or cut short.
    """
    here = [str(home.portable(str(file.absolute()))) for file in shards]
    path = kept / f"{hashlib.sha256(_join(here).tobytes()).hexdigest()}.npz"
    states = []
    for shard in shards:
        with reading(shard, AGAIN):
            states.append(os.stat(shard))
    stamp = [(state.st_size, state.st_mtime_ns) for state in states]
    listed = None
    with suppress(BrainhiveError, *RAISED):
        content = pickles.load(path)
        if np.array_equal(content["stamp"], stamp):
            listed = _split(content["names"]), _split(content["labels"]), content["places"]
            listed = listed if _is_within(*listed, [state.st_size for state in states]) else None
    if listed is None:
        listed = names, labels, places = _read_shards(shards)
        with suppress(OSError):  # a folder that cannot be written to
            kept.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=kept) as folder:  # of this writer alone
                part = Path(folder, path.name)
                np.savez(part, stamp=stamp, names=_join(names), labels=_join(labels), places=places)
                publish(part, path)
    names, labels, places = listed
    shard, offset, size = places.T
    return Listing(names, labels, Tars(tuple(shards), shard.astype(np.int32), offset, size))


def _is_within(names: list[str], labels: list[str], places: NDArray[np.int64], sizes: Sequence[int]) -> bool:
    """Whether each picture of a listing lies in its shard."""
    shard, offset, size = places.T
    end = np.array(sizes)[shard]
    is_inside = (shard >= 0) & (offset >= 0) & (size >= 0) & (size <= end) & (offset <= end - size)
    return len(names) == len(labels) == len(places) and bool(is_inside.all())


def _join(texts: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer("".join(f"{text}\0" for text in texts).encode(errors="surrogateescape"), np.uint8)


def _split(joined: NDArray[np.uint8]) -> list[str]:
    return joined.tobytes().decode(errors="surrogateescape").split("\0")[:-1]


def _read_shards(shards: Sequence[Path]) -> Listed:
    names: list[str] = []
    labels: list[str] = []
    places = []
    with ThreadPoolExecutor(READERS) as pool:
        for shard, (keys, classes, place) in enumerate(pool.map(_read_shard, shards)):
            names += keys
            labels += classes
            places.append(np.insert(place, 0, shard, axis=1))
    return names, labels, np.concatenate(places)


def _read_shard(shard: Path) -> Listed:
    keys, places, labels = [], [], {}
    with reading(shard, AGAIN), shard.open("rb", buffering=0) as file:
        for path, offset, size in tar_members(file, os.fstat(file.fileno()).st_size):
            folder, slash, name = path.removeprefix("./").rpartition("/")
            key, _, ending = name.partition(".")  # ._name is what macOS adds, and has no key
            if key and f".{ending.lower()}" in datasets.PICTURES:
                keys.append(folder + slash + key)
                places.append((offset, size))
            elif key and ending == "cls":
                label = read_at(file, offset, min(size, LABEL_BYTES)).decode(errors="replace").strip()
                labels[folder + slash + key] = sys.intern(label)
    return keys, [labels.get(key, "") for key in keys], np.array(places, np.int64).reshape(-1, 2)


@dataclass
class Rows:
    """Pictures by row group.

    Attributes:
        column: The column of pictures.
        file: [G] which file each row group is in.
        group: [G] its number there.
        start: [G] its first picture.
    """

    files: tuple[Path, ...]
    column: str
    file: NDArray[np.int64]
    group: NDArray[np.int64]
    start: NDArray[np.int64]
    _held: tuple[int, Any] = field(default=(-1, None), repr=False, compare=False)

    def path(self, index: int) -> Path:
        """Say which file holds a picture."""
        return self.files[self.file[self._group(index)]]

    def read(self, index: int) -> bytes:
        """Read the bytes of a picture; its row group is kept, since the next picture is often there too."""
        group = self._group(index)
        if self._held[0] != group:
            with open_parquet(self.path(index)) as file:
                rows = file.read_row_group(self.group[group], [f"{self.column}.bytes"], use_threads=False)
            self._held = (group, rows.flatten().column(0))
        data = self._held[1][index - self.start[group]].as_py()
        if data is None:
            raise ValueError("the file holds no bytes for it")
        return bytes(data)

    def _group(self, index: int) -> int:
        return int(np.searchsorted(self.start, index, "right")) - 1

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": (-1, None)}


def list_parquet(files: Sequence[Path]) -> Listing:
    """List the rows of parquet files with a column of pictures: a struct of `bytes` and `path`.

    A picture is called by the column `image_id`, else by its path, else by its file and row.

    Raises:
        MissingExtra: if pyarrow is not installed.
        BrainhiveError: naming a file that is no parquet, is cut short, or holds no pictures.
    """
    names: list[str] = []
    labels: list[str] = []
    groups: list[tuple[int, int, int]] = []
    column = ""
    for number, path in enumerate(files):
        with reading(path, AGAIN), open_parquet(path) as file:
            columns = {file.schema.column(n).path for n in range(len(file.schema))}
            pictures = [name for name in file.schema_arrow.names if f"{name}.bytes" in columns]
            if not pictures:
                raise BrainhiveError(
                    f"{path} has no pictures: none of its columns {', '.join(file.schema_arrow.names)} "
                    "holds bytes",
                    "remove it, or move it elsewhere",
                )
            column = str(pictures[0])
            groups += [(number, n, file.metadata.row_group(n).num_rows) for n in range(file.num_row_groups)]
            known = [name for name in ("image_id", f"{column}.path", "label") if name in columns]
            table = file.read(columns=known).flatten()
            values = {name: table[name].to_pylist() for name in table.column_names}
            nothing = [None] * file.metadata.num_rows
        called = values.get("image_id", values.get(f"{column}.path", nothing))
        names += [_stem(name or f"{path.stem}/{row:06d}") for row, name in enumerate(called)]
        classes = values.get("label", nothing)
        labels += ["" if label is None else sys.intern(str(label)) for label in classes]
    where = np.array(groups, np.int64).reshape(-1, 3)
    start = np.cumsum(where[:, 2]) - where[:, 2]
    return Listing(names, labels, Rows(tuple(files), column, where[:, 0], where[:, 1], start))


def _stem(name: str) -> str:
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in datasets.PICTURES else name
