"""ImageNet-1k: 1,281,167 training, 50,000 validation and 100,000 test pictures of 1000 classes.

They lie in folders, or are packed many to a file: in webdataset tars, read in place, and in the hub's parquet
files.
"""

import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.archives import open_parquet, read_at, tar_members
from brainhive_cli.core.arrays import Int64, UInt8
from brainhive_cli.core.damage import RAISED, reading
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import portable, publish, walk
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import (
    PICTURES,
    SPLIT_FOLDERS,
    Dataset,
    StimulusSet,
    check_split,
    check_unique,
    decode,
    decoding,
    from_files,
    pictures_below,
)
from brainhive_cli.data.published import fetch_line
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.stores.ids import Names

# split by the name of its folder, and folders and classes in paths
CALLED = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}
NAMED = re.compile(rf"(?<![a-z])({'|'.join(CALLED)})(?![a-z])")
CLASS = re.compile(r"n\d{8}")
CLASS_FIRST = re.compile(r"(?:.*/)?(n\d{8})_[^/]+")
PACKED = ("parquet", "tar")
READERS = 16
"""Threads that read headers: each header needs a seek, and several threads seek at once."""
LABEL_BYTES = 256
"""Bytes of a label that are read."""
AGAIN = "download it again"
FOLDER = ".listings"
"""Folder of listings, below the embeddings."""


Place = tuple[str, str, Path]
"""A split, a form, and a folder or file of it."""
Listed = tuple[list[str], list[str], Int64]
"""Names and labels of pictures, and [N, 2] byte offset and size; or [N, 3] with their shard first."""


class Config(parts.Config):
    """ImageNet-1k as folders of classes, as the hub's parquet files, or as webdataset tars.

    A concept is a class (`n01440764`); a picture whose class is not said is a concept of its own.
    """

    root: str = Field("", description="folder of the data set; default: imagenet below paths.data")
    form: Literal["folder", "parquet", "tar"] | None = Field(
        None, description="form of the files; default: the one that is there"
    )

    def build(self, paths: Paths) -> Dataset:
        """Find the splits that are there, and their form."""
        root = paths.dataset("imagenet", self.root)
        # folders and files of each split, in the form that is chosen or there
        sources = sorted(source for source in set(_find(root)) if self.form in (None, source[1]))
        listings = paths.under_home("embeddings") / FOLDER
        there = tuple(split for split in SPLIT_FOLDERS if split in {source[0] for source in sources})
        return Dataset("imagenet", there or tuple(SPLIT_FOLDERS), partial(_images, root, sources, listings))


TINY = Config()


def _find(root: Path) -> Iterator[Place]:
    """Search for folders of pictures and for packed files, but not into the folders of classes."""

    def enters(name: str) -> bool:
        return not CLASS.fullmatch(name) and not name.endswith((".parquet", ".tar"))

    for path, entry in walk(root, enters=enters):
        # the last name of a split in the path of a packed file counts
        *above, name = path.split("/")
        ending = os.path.splitext(name)[1].lower()
        if not entry.is_dir() and ending[1:] in PACKED and (synsets := NAMED.findall(path.lower())):
            yield CALLED[synsets[-1]], ending[1:], root / path

        # pictures or folders of classes below a folder of a split
        depth = next((n for n, folder in enumerate(above, 1) if folder in CALLED), 0)
        if depth and (CLASS.fullmatch(name) if entry.is_dir() else ending in PICTURES):
            yield CALLED[above[depth - 1]], "folder", root.joinpath(*above[:depth])


def _images(root: Path, sources: Sequence[Place], listings: Path, split: str) -> StimulusSet:
    """List the pictures of a split, which must be there in one form alone."""
    check_split("imagenet", split, tuple(SPLIT_FOLDERS))
    here = [(form, path) for source_split, form, path in sources if source_split == split]
    labels = sorted({str(path) if form == "folder" else f"*.{form}" for form, path in here})
    if len(labels) > 1:
        problem = f"imagenet: {split} is there several times: {' and '.join(labels)}"
        raise MissingData(problem, "dataset.form=folder, parquet or tar; or dataset.root=FOLDER")

    # folders of classes, or packed files
    images, paths = None, [path for _, path in here]
    if "folder" in dict(here):
        # a concept is the folder of a picture; one directly in the split's folder says it by its name, or not
        [folder] = paths
        files = list(pictures_below(folder.parent, folder.name))
        concepts = []
        for file in files:
            *_, above, name = file.split("/")
            if above == folder.name:
                concepts.append(_describe(os.path.splitext(name)[0], "", ())[1])
            else:
                concepts.append(sys.intern(above))
        images = from_files("imagenet", split, folder.parent, files, concepts)
    elif here:
        names, labels, archive = list_tars(paths, listings) if "tar" in dict(here) else list_parquet(paths)

        # the class of each label's number, in the order of ImageNet-1k
        from timm.data import ImageNetInfo

        classes = ImageNetInfo("imagenet-1k").label_names()
        pairs = [_describe(*pair, classes) for pair in zip(names, labels, strict=True)]
        ids = [image_id for image_id, _ in pairs]
        check_unique(ids, lambda index: f"{names[index]} in {archive.path(index)}")
        image_ids, concept_names = Names.of(ids), Names.of(concept for _, concept in pairs)
        read = partial(_read_picture, image_ids, archive)
        images = StimulusSet("imagenet", split, image_ids, concept_names, read)
    if not images:
        raise MissingData(
            f"imagenet: no {split} pictures in {root}: neither {split}/n01440764/*.JPEG, nor "
            f"{split}-*.parquet, nor *-{split}-*.tar",
            fetch_line("imagenet"),
        )
    return images


def _describe(name: str, label: str, classes: Sequence[str]) -> tuple[str, str]:
    """Return the id and concept of a picture: the class in its name or of its label, else its name."""
    # the hub writes the class last (ILSVRC2012_val_00000001_n01440764), the original files first
    stem, _, last = name.rpartition("_")
    if stem and CLASS.fullmatch(last):
        return stem, sys.intern(last)
    if match := CLASS_FIRST.fullmatch(name):
        return name, sys.intern(match[1])
    # a label is the number of a class, in the order of ImageNet-1k
    if label.isdecimal() and int(label) < len(classes):
        return name, classes[int(label)]
    return name, name.rsplit("/", 1)[-1]


def _read_picture(image_ids: Names, archive: "Tars | Rows", index: int) -> Image.Image:
    """Decode a picture of an archive."""
    name = f"{image_ids[index]} in {archive.path(index)}"
    with decoding(name):
        data = archive.read(index)
    return decode(BytesIO(data), name)


@dataclass(frozen=True)
class Tars:
    """Pictures by shard, byte offset and size, each [N]."""

    shards: tuple[Path, ...]
    shard: NDArray[np.int32]
    offset: Int64
    size: Int64

    def path(self, index: int) -> Path:
        """Return the shard that holds a picture."""
        return self.shards[self.shard[index]]

    def read(self, index: int) -> bytes:
        """Read the bytes of a picture."""
        # opened at each read, since open files cannot be sent to worker processes
        with self.path(index).open("rb") as file:
            file.seek(self.offset[index])
            return file.read(self.size[index])


def list_tars(shards: Sequence[Path], listings: Path) -> tuple[list[str], list[str], "Tars | Rows"]:
    """List the pictures of tars in which the files of a sample share their name up to the first dot.

    They are listed from the last time if no shard has changed its size or time since.

    Args:
        shards: The tars.
        listings: The folder of those that earlier commands kept.

    Returns:
        Name of each picture, without ending; its class, a number or a name, empty when it has none; and the
        archive that reads it.

    Raises:
        BrainhiveError: naming a tar that is no tar, or cut short.
    """
    # the listing of these shards, and their sizes and times
    here = [str(portable(str(file.absolute()))) for file in shards]
    path = listings / f"{hashlib.sha256(_join(here).tobytes()).hexdigest()}.npz"
    stamp = []  # [shards, 2]
    for file in shards:
        with reading(file, AGAIN):
            state = os.stat(file)
            stamp.append((state.st_size, state.st_mtime_ns))

    # a listing of unchanged shards
    listed = None
    with suppress(BrainhiveError, *RAISED):
        content = pickles.load(path)
        if np.array_equal(content["stamp"], stamp):
            listed = _split(content["names"]), _split(content["labels"]), content["places"]

    # a new listing, kept for the next command
    if listed is None:
        with ThreadPoolExecutor(READERS) as pool:
            shard_names, shard_labels, shard_spans = zip(*pool.map(_read_shard, shards), strict=True)
        numbered = [np.insert(spans, 0, shard, axis=1) for shard, spans in enumerate(shard_spans)]
        listed = [*chain(*shard_names)], [*chain(*shard_labels)], np.concatenate(numbered)
        names, labels, spans = listed
        with suppress(OSError):  # a folder that cannot be written to
            listings.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=listings) as folder:  # of this writer alone
                part = Path(folder, path.name)
                np.savez(part, stamp=stamp, names=_join(names), labels=_join(labels), places=spans)
                publish(part, path)

    names, labels, spans = listed
    shard, offset, size = spans.T  # [N] each
    return names, labels, Tars(tuple(shards), shard.astype(np.int32), offset, size)


def _join(texts: Sequence[str]) -> UInt8:
    return np.frombuffer("".join(f"{text}\0" for text in texts).encode(errors="surrogateescape"), np.uint8)


def _split(joined: UInt8) -> list[str]:
    return joined.tobytes().decode(errors="surrogateescape").split("\0")[:-1]


def _read_shard(shard: Path) -> Listed:
    """List the pictures of a tar, with the label (.cls) of the same sample."""
    keys, spans, labels = [], [], {}
    with reading(shard, AGAIN), shard.open("rb", buffering=0) as file:
        for path, offset, size in tar_members(shard):
            # files of a sample share their path up to the first dot
            folder, slash, name = path.removeprefix("./").rpartition("/")
            key, _, ending = name.partition(".")  # ._name is what macOS adds, and has no key
            if key and f".{ending.lower()}" in PICTURES:
                keys.append(folder + slash + key)
                spans.append((offset, size))
            elif key and ending == "cls":
                label = read_at(file, offset, min(size, LABEL_BYTES)).decode(errors="replace").strip()
                labels[folder + slash + key] = sys.intern(label)
    return keys, [labels.get(key, "") for key in keys], np.array(spans, np.int64).reshape(-1, 2)


@dataclass
class Rows:
    """Pictures by row group.

    Attributes:
        column: The column of pictures.
        file: [G] index of the file of each row group.
        group: [G] number of the row group in its file.
        start: [G] index of its first picture.
    """

    files: tuple[Path, ...]
    column: str
    file: Int64
    group: Int64
    start: Int64
    _held: tuple[int, Any] = field(default=(-1, None), repr=False, compare=False)

    def path(self, index: int) -> Path:
        """Return the file that holds a picture."""
        return self.files[self.file[self._group(index)]]

    def read(self, index: int) -> bytes:
        """Read the bytes of a picture; its row group is kept, since the next picture is often there too."""
        # another row group replaces the one in memory
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
        # row groups are in the order of their first pictures
        return int(np.searchsorted(self.start, index, "right")) - 1

    def __getstate__(self) -> dict[str, Any]:
        """Give all but the row group that is kept, for other processes."""
        return {**self.__dict__, "_held": (-1, None)}


def list_parquet(files: Sequence[Path]) -> tuple[list[str], list[str], "Tars | Rows"]:
    """List the rows of parquet files with a column of pictures: a struct of `bytes` and `path`.

    A picture is called by the column `image_id`, else by its path, else by its file and row.

    Returns:
        As `list_tars`.

    Raises:
        MissingExtra: if pyarrow is not installed.
        BrainhiveError: naming a file that is no parquet, is cut short, or holds no pictures.
    """
    names = []
    labels = []
    groups = []
    column = ""
    for number, path in enumerate(files):
        with reading(path, AGAIN), open_parquet(path) as file:
            # the column of pictures, and names and labels where there are any
            columns = {file.schema.column(n).path for n in range(len(file.schema))}
            pictures = [name for name in file.schema_arrow.names if f"{name}.bytes" in columns]
            if not pictures:
                held = ", ".join(file.schema_arrow.names)
                problem = f"{path} has no pictures: none of its columns {held} holds bytes"
                raise BrainhiveError(problem, "remove it, or move it elsewhere")
            column = str(pictures[0])
            groups += [(number, n, file.metadata.row_group(n).num_rows) for n in range(file.num_row_groups)]
            known = [name for name in ("image_id", f"{column}.path", "label") if name in columns]
            table = file.read(columns=known).flatten()
            values = {name: table[name].to_pylist() for name in table.column_names}
            nothing = [None] * file.metadata.num_rows

        # names without the endings of pictures
        called = values.get("image_id", values.get(f"{column}.path", nothing))
        stems = (os.path.splitext(name or f"{path.stem}/{row:06d}") for row, name in enumerate(called))
        names += [stem if ending.lower() in PICTURES else stem + ending for stem, ending in stems]
        classes = values.get("label", nothing)
        labels += ["" if label is None else sys.intern(str(label)) for label in classes]

    # file, number and first picture of each row group
    group_table = np.array(groups, np.int64).reshape(-1, 3)  # [G, 3]
    start = np.cumsum(group_table[:, 2]) - group_table[:, 2]
    return names, labels, Rows(tuple(files), column, group_table[:, 0], group_table[:, 1], start)
