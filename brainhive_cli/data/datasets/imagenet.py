"""ImageNet-1k: 1,281,167 training, 50,000 validation and 100,000 test pictures of 1000
classes.

They lie in folders of classes, or many to a file in the hub's parquet files.
"""

import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import walk
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import ROOT_FIELD, SPLIT_FOLDERS, Dataset
from brainhive_cli.data.files.ids import PICTURES, Names
from brainhive_cli.data.files.parquet import open_parquet
from brainhive_cli.data.files.published_files import fetch_line
from brainhive_cli.data.media.pictures import decode, report_bad_picture
from brainhive_cli.data.media.stimuli import (
    StimulusSet,
    find_pictures,
    make_stimulus_set,
    require_unique_ids,
)

# split by the name of its folder, and folders and classes in paths
CALLED = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}
NAMED = re.compile(rf"(?<![a-z])({'|'.join(CALLED)})(?![a-z])")
CLASS = re.compile(r"n\d{8}")
CLASS_FIRST = re.compile(r"(?:.*/)?(n\d{8})_[^/]+")

Groups = tuple[Sequence[tuple[Path, int]], Int64]
"""Row groups, each of a file, in the order of pictures, and the index of the first
picture of each.
"""


class Config(parts.Config):
    """ImageNet-1k as folders of classes, or as the hub's parquet files.

    A concept is a class (`n01440764`); a picture whose class is not said is a concept
    of its own.
    """

    root: str = ROOT_FIELD

    def build(self, paths: Paths) -> Dataset:
        """Find the splits that are there."""
        root = paths.dataset("imagenet", self.root)
        sources = sorted(set(_find(root)))
        there = dict(sources)
        splits = [split for split in SPLIT_FOLDERS if split in there or not there]
        return Dataset("imagenet", tuple(splits), partial(_images, root, sources))


TINY = Config()


def _find(root: Path) -> Iterator[tuple[str, Path]]:
    """Search for splits, each with its folder of pictures or one of its parquet
    files.
    """
    for path, entry in walk(root, enters=lambda name: not CLASS.fullmatch(name)):
        # the last name of a split in the path of a parquet file counts
        *above, name = path.split("/")
        ending = os.path.splitext(name)[1].lower()
        if (
            not entry.is_dir()
            and ending == ".parquet"
            and (synsets := NAMED.findall(path.lower()))
        ):
            yield CALLED[synsets[-1]], root / path

        # pictures or folders of classes below a folder of a split
        depth = next((n for n, folder in enumerate(above, 1) if folder in CALLED), 0)
        if depth and (CLASS.fullmatch(name) if entry.is_dir() else ending in PICTURES):
            yield CALLED[above[depth - 1]], root.joinpath(*above[:depth])


def _images(root: Path, sources: Sequence[tuple[str, Path]], split: str) -> StimulusSet:
    """List the pictures of a split, which must be there in one form alone."""
    paths = [path for source_split, path in sources if source_split == split]
    folders = [path for path in paths if path.is_dir()]
    if len(folders) > 1 or 0 < len(folders) < len(paths):
        raise MissingData(
            f"imagenet: {split} is there several times: {paths[0]} and {paths[-1]}",
            "move one elsewhere; or dataset.root=FOLDER",
        )

    # folders of classes, or parquet files
    images = None
    if folders:
        # a concept is the folder of a picture; one directly in the split's folder says
        # it by its name, or not
        [folder] = folders
        files = list(find_pictures(folder.parent, folder.name))
        concepts = []
        for file in files:
            *_, above, name = file.split("/")
            is_loose = above == folder.name
            concepts.append(
                _describe(os.path.splitext(name)[0], "", ())[1] if is_loose else above
            )
        images = make_stimulus_set("imagenet", split, folder.parent, files, concepts)
    elif paths:
        names, labels, groups = list_parquet(paths)

        # the class of each label's number, in the order of ImageNet-1k
        from timm.data import ImageNetInfo

        classes = ImageNetInfo("imagenet-1k").label_names()
        pairs = [_describe(*pair, classes) for pair in zip(names, labels, strict=True)]
        image_ids = Names.of(image_id for image_id, _ in pairs)
        require_unique_ids(
            [*image_ids], lambda index: f"{names[index]} in {_locate(groups, index)[0]}"
        )
        images = StimulusSet(
            "imagenet",
            split,
            image_ids,
            Names.of(concept for _, concept in pairs),
            partial(_read_picture, image_ids, groups),
        )
    if not images:
        raise MissingData(
            f"imagenet: no {split} pictures in {root}: neither "
            f"{split}/n01440764/*.JPEG, nor {split}-*.parquet",
            fetch_line("imagenet"),
        )
    return images


def _describe(name: str, label: str, classes: Sequence[str]) -> tuple[str, str]:
    """Return the id and concept of a picture: the class in its name or of its label,
    else its name.
    """
    # the hub writes the class last (ILSVRC2012_val_00000001_n01440764), the original
    # files first
    stem, _, last = name.rpartition("_")
    if stem and CLASS.fullmatch(last):
        return stem, last
    if match := CLASS_FIRST.fullmatch(name):
        return name, match[1]
    # a label is the number of a class, in the order of ImageNet-1k
    if label.isdecimal() and int(label) < len(classes):
        return name, classes[int(label)]
    return name, name.rsplit("/", 1)[-1]


def _locate(groups: Groups, index: int) -> tuple[Path, int, int]:
    """Find a picture: its file, the number of its row group, and its row in that."""
    files, starts = groups
    position = int(np.searchsorted(starts, index, "right")) - 1
    return *files[position], index - int(starts[position])


@lru_cache(1)  # the next picture is often in the same row group
def _read_group(path: Path, group: int) -> Any:
    """Read the bytes of the pictures of a row group."""
    with open_parquet(path) as file:
        column = f"{_find_pictures(path, file)}.bytes"
        return (
            file.read_row_group(group, [column], use_threads=False).flatten().column(0)
        )


def _read_picture(image_ids: Names, groups: Groups, index: int) -> Image.Image:
    """Decode a picture of a parquet file."""
    path, group, row = _locate(groups, index)
    name = f"{image_ids[index]} in {path}"
    with report_bad_picture(name):
        data = _read_group(path, group)[row].as_py()
        if data is None:
            raise ValueError("the file holds no bytes for it")
    return decode(BytesIO(data), name)


def _list_columns(file: Any) -> set[str]:
    return {file.schema.column(n).path for n in range(len(file.schema))}


def _find_pictures(path: Path, file: Any) -> str:
    """Find the column of pictures: a struct of `bytes` and `path`."""
    columns = _list_columns(file)
    for name in file.schema_arrow.names:
        if f"{name}.bytes" in columns:
            return str(name)
    held = ", ".join(file.schema_arrow.names)
    raise BrainhiveError(
        f"{path} has no pictures: none of its columns {held} holds bytes",
        "remove it, or move it elsewhere",
    )


def list_parquet(files: Sequence[Path]) -> tuple[list[str], list[str], Groups]:
    """List the rows of parquet files with a column of pictures.

    A picture is called by the column `image_id`, else by its path, else by its file and
    row.

    Returns:
        Name of each picture, without ending; its class, a number, empty when it has
        none; and the row groups.

    Raises:
        MissingExtra: if pyarrow is not installed.
        BrainhiveError: naming a file that is no parquet, is cut short, or holds no
            pictures.
    """
    names = []
    labels = []
    groups = []
    lengths = [0]
    for path in files:
        with report_damage(path, "download it again"), open_parquet(path) as file:
            # names and labels where there are any
            column = _find_pictures(path, file)
            known = {"image_id", f"{column}.path", "label"} & _list_columns(file)
            table = file.read(columns=sorted(known)).flatten()
            values = {name: table[name].to_pylist() for name in table.column_names}
            nothing = [None] * file.metadata.num_rows
            for group in range(file.num_row_groups):
                groups.append((path, group))
                lengths.append(file.metadata.row_group(group).num_rows)

        # names without the endings of pictures
        called = values.get("image_id", values.get(f"{column}.path", nothing))
        stems = (
            os.path.splitext(name or f"{path.stem}/{row:06d}")
            for row, name in enumerate(called)
        )
        names += [
            stem if ending.lower() in PICTURES else stem + ending
            for stem, ending in stems
        ]
        classes = values.get("label", nothing)
        labels += ["" if label is None else str(label) for label in classes]
    return names, labels, (groups, np.cumsum(lengths[:-1]))
