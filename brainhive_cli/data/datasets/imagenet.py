"""ImageNet-1k: 1,281,167 training, 50,000 validation and 100,000 test pictures of 1000 classes.

They lie in folders of classes, or many to a file in the hub's parquet files.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.archives import open_parquet
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import walk
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
from brainhive_cli.data.stores.ids import Names

# split by the name of its folder, and folders and classes in paths
CALLED = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}
NAMED = re.compile(rf"(?<![a-z])({'|'.join(CALLED)})(?![a-z])")
CLASS = re.compile(r"n\d{8}")
CLASS_FIRST = re.compile(r"(?:.*/)?(n\d{8})_[^/]+")


class Config(parts.Config):
    """ImageNet-1k as folders of classes, or as the hub's parquet files.

    A concept is a class (`n01440764`); a picture whose class is not said is a concept of its own.
    """

    root: str = Field("", description="folder of the data set; default: imagenet below paths.data")

    def build(self, paths: Paths) -> Dataset:
        """Find the splits that are there."""
        root = paths.dataset("imagenet", self.root)
        sources = sorted(set(_find(root)))
        there = tuple(split for split in SPLIT_FOLDERS if split in {split for split, _ in sources})
        return Dataset("imagenet", there or tuple(SPLIT_FOLDERS), partial(_images, root, sources))


TINY = Config()


def _find(root: Path) -> Iterator[tuple[str, Path]]:
    """Search for splits, each with its folder of pictures or one of its parquet files."""
    for path, entry in walk(root, enters=lambda name: not CLASS.fullmatch(name)):
        # the last name of a split in the path of a parquet file counts
        *above, name = path.split("/")
        ending = os.path.splitext(name)[1].lower()
        if not entry.is_dir() and ending == ".parquet" and (synsets := NAMED.findall(path.lower())):
            yield CALLED[synsets[-1]], root / path

        # pictures or folders of classes below a folder of a split
        depth = next((n for n, folder in enumerate(above, 1) if folder in CALLED), 0)
        if depth and (CLASS.fullmatch(name) if entry.is_dir() else ending in PICTURES):
            yield CALLED[above[depth - 1]], root.joinpath(*above[:depth])


def _images(root: Path, sources: Sequence[tuple[str, Path]], split: str) -> StimulusSet:
    """List the pictures of a split, which must be there in one form alone."""
    check_split("imagenet", split, tuple(SPLIT_FOLDERS))
    paths = [path for source_split, path in sources if source_split == split]
    folders = [path for path in paths if path.is_dir()]
    if len(folders) > 1 or 0 < len(folders) < len(paths):
        problem = f"imagenet: {split} is there several times: {paths[0]} and {paths[-1]}"
        raise MissingData(problem, "move one elsewhere; or dataset.root=FOLDER")

    # folders of classes, or parquet files
    images = None
    if folders:
        # a concept is the folder of a picture; one directly in the split's folder says it by its name, or not
        [folder] = folders
        files = list(pictures_below(folder.parent, folder.name))
        concepts = []
        for file in files:
            *_, above, name = file.split("/")
            if above == folder.name:
                concepts.append(_describe(os.path.splitext(name)[0], "", ())[1])
            else:
                concepts.append(sys.intern(above))
        images = from_files("imagenet", split, folder.parent, files, concepts)
    elif paths:
        names, labels, rows = list_parquet(paths)

        # the class of each label's number, in the order of ImageNet-1k
        from timm.data import ImageNetInfo

        classes = ImageNetInfo("imagenet-1k").label_names()
        pairs = [_describe(*pair, classes) for pair in zip(names, labels, strict=True)]
        ids = [image_id for image_id, _ in pairs]
        check_unique(ids, lambda index: f"{names[index]} in {rows.locate(index)[0]}")
        image_ids, concept_names = Names.of(ids), Names.of(concept for _, concept in pairs)
        read = partial(_read_picture, image_ids, rows)
        images = StimulusSet("imagenet", split, image_ids, concept_names, read)
    if not images:
        raise MissingData(
            f"imagenet: no {split} pictures in {root}: neither {split}/n01440764/*.JPEG, "
            f"nor {split}-*.parquet",
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

    def locate(self, index: int) -> tuple[Path, int]:
        """Return the file that holds a picture, and the row group, which are in the order of pictures."""
        group = int(np.searchsorted(self.start, index, "right")) - 1
        return self.files[self.file[group]], group

    def read(self, index: int) -> bytes:
        """Read the bytes of a picture; its row group is kept, since the next picture is often there too."""
        # another row group replaces the one in memory
        path, group = self.locate(index)
        if self._held[0] != group:
            with open_parquet(path) as file:
                rows = file.read_row_group(self.group[group], [f"{self.column}.bytes"], use_threads=False)
            self._held = (group, rows.flatten().column(0))
        data = self._held[1][index - self.start[group]].as_py()
        if data is None:
            raise ValueError("the file holds no bytes for it")
        return bytes(data)

    def __getstate__(self) -> dict[str, Any]:
        """Give all but the row group that is kept, for other processes."""
        return {**self.__dict__, "_held": (-1, None)}


def _read_picture(image_ids: Names, rows: Rows, index: int) -> Image.Image:
    """Decode a picture of a parquet file."""
    name = f"{image_ids[index]} in {rows.locate(index)[0]}"
    with decoding(name):
        data = rows.read(index)
    return decode(BytesIO(data), name)


def list_parquet(files: Sequence[Path]) -> tuple[list[str], list[str], Rows]:
    """List the rows of parquet files with a column of pictures: a struct of `bytes` and `path`.

    A picture is called by the column `image_id`, else by its path, else by its file and row.

    Returns:
        Name of each picture, without ending; its class, a number, empty when it has none; and the rows, which
        read pictures.

    Raises:
        MissingExtra: if pyarrow is not installed.
        BrainhiveError: naming a file that is no parquet, is cut short, or holds no pictures.
    """
    names = []
    labels = []
    groups = []
    column = ""
    for number, path in enumerate(files):
        with reading(path, "download it again"), open_parquet(path) as file:
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
