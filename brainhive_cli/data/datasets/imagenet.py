"""ImageNet-1k: 1,281,167 training, 50,000 validation and 100,000 test pictures of 1000
classes.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainhive_cli.core.base import BrainhiveError, Int64, MissingData
from brainhive_cli.core.files import report_damage, walk
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.datasets import ROOT_FIELD, SPLIT_FOLDERS, Dataset
from brainhive_cli.data.files import PICTURES, Names, fetch_line, open_parquet
from brainhive_cli.data.media import (
    StimulusSet,
    decode,
    find_pictures,
    make_stimulus_set,
    report_bad_picture,
    require_unique_ids,
)

SPLIT_OF_FOLDER: dict[str, str] = {}
for _split, _folders in SPLIT_FOLDERS.items():
    SPLIT_OF_FOLDER |= dict.fromkeys(_folders, _split)
CLASS = re.compile(r"n\d{8}")
"""Name of a class, such as n01440764."""


@dataclass(frozen=True, eq=False)
class RowGroups:
    """Row groups of parquet files, in the order of the pictures.

    Attributes:
        groups: File and number of each of G row groups.
        starts: Index [G] of the first picture in each row group.
    """

    groups: Sequence[tuple[Path, int]]
    starts: Int64

    def locate(self, index: int) -> tuple[Path, int, int]:
        """Find the file, the row group and the row in the group of a picture."""
        position = int(np.searchsorted(self.starts, index, "right")) - 1
        path, group = self.groups[position]
        return path, group, index - int(self.starts[position])


class Config(parts.Config):
    """ImageNet-1k as folders of classes, or as the hub's parquet files.

    The concept of a picture is its class (`n01440764`), or its own name if the class is
    not known.
    """

    root: str = ROOT_FIELD

    def build(self, paths: Paths) -> Dataset:
        """Find the splits that exist, and name all splits if none exists."""
        root = paths.dataset("imagenet", self.root)
        sources = _find_sources(root)
        found_splits = {split for split, _ in sources}
        splits = [split for split in SPLIT_FOLDERS if split in found_splits]
        return Dataset(
            "imagenet",
            tuple(splits or SPLIT_FOLDERS),
            partial(_list_images, root, sources),
        )


TINY = Config()


def _find_sources(root: Path) -> list[tuple[str, Path]]:
    """Find splits, each with a folder of pictures or a parquet file."""
    sources = set()
    for path, entry in walk(root, enters=lambda name: not CLASS.fullmatch(name)):
        folders = path.split("/")
        name = folders.pop()
        extension = os.path.splitext(name)[1].lower()
        if entry.is_dir():
            is_source = CLASS.fullmatch(name) is not None
        else:
            is_source = extension in PICTURES
            if extension == ".parquet":
                # Split in the path of a parquet file. The last match counts.
                matches = re.findall(
                    rf"(?<![a-z])({'|'.join(SPLIT_OF_FOLDER)})(?![a-z])", path.lower()
                )
                if matches:
                    sources.add((SPLIT_OF_FOLDER[matches[-1]], root / path))

        # pictures or classes belong to the first folder that names a split
        if is_source:
            for depth, folder in enumerate(folders, start=1):
                if folder in SPLIT_OF_FOLDER:
                    split_folder = root.joinpath(*folders[:depth])
                    sources.add((SPLIT_OF_FOLDER[folder], split_folder))
                    break
    return sorted(sources)


def _list_images(
    root: Path, sources: Sequence[tuple[str, Path]], split: str
) -> StimulusSet:
    """List the pictures of a split from a folder or from parquet files.

    Raises:
        MissingData: if there are no pictures, or if several folders, or a folder and
            parquet files, hold the split.
    """
    paths = [path for source_split, path in sources if source_split == split]
    folders = [path for path in paths if path.is_dir()]
    if folders and len(paths) > 1:
        raise MissingData(
            f"imagenet: {split} exists several times: {paths[0]} and {paths[-1]}",
            "move one elsewhere; or dataset.root=FOLDER",
        )
    images = None
    if folders:
        images = _list_folder(folders[0], split)
    elif paths:
        images = _list_parquet(paths, split)
    if not images:
        raise MissingData(
            f"imagenet: no {split} pictures in {root}: neither "
            f"{split}/n01440764/*.JPEG, nor {split}-*.parquet",
            fetch_line("imagenet"),
        )
    return images


def _list_folder(folder: Path, split: str) -> StimulusSet:
    """List the pictures in the folder of a split, and in its folders of classes."""
    files = list(find_pictures(folder.parent, folder.name))
    concepts = []
    for file in files:
        parent, name = file.split("/")[-2:]
        if parent == folder.name:
            stem = os.path.splitext(name)[0]
            _, concept = _parse_name(stem, label="", class_names=())
        else:
            concept = parent
        concepts.append(concept)
    return make_stimulus_set("imagenet", split, folder.parent, files, concepts)


def _list_parquet(paths: Sequence[Path], split: str) -> StimulusSet:
    """List the pictures in the parquet files of a split."""
    from timm.data import ImageNetInfo

    names, labels, row_groups = _read_parquet_names(paths)
    class_names = ImageNetInfo("imagenet-1k").label_names()
    image_ids = []
    concepts = []
    for name, label in zip(names, labels, strict=True):
        image_id, concept = _parse_name(name, label, class_names)
        image_ids.append(image_id)
        concepts.append(concept)
    require_unique_ids(
        image_ids, lambda index: f"{names[index]} in {row_groups.locate(index)[0]}"
    )
    packed_ids = Names.of(image_ids)
    return StimulusSet(
        "imagenet",
        split,
        packed_ids,
        Names.of(concepts),
        partial(_read_picture, packed_ids, row_groups),
    )


def _parse_name(name: str, label: str, class_names: Sequence[str]) -> tuple[str, str]:
    """Return the image id and the concept of a picture.

    Args:
        name: Name without extension. The hub writes the class last
            (ILSVRC2012_val_00000001_n01440764), the original files first.
        label: Number of the class, or "" or "-1" if not known.
        class_names: Classes in the order of the labels.
    """
    stem, _, last_word = name.rpartition("_")
    if stem and CLASS.fullmatch(last_word):
        return stem, last_word
    # Name of a picture in the original files, such as n01440764_10026.
    match = re.fullmatch(r"(?:.*/)?(n\d{8})_[^/]+", name)
    if match:
        return name, match[1]
    if label.isdecimal() and int(label) < len(class_names):
        return name, class_names[int(label)]
    return name, name.rsplit("/", 1)[-1]


def _read_parquet_names(
    paths: Sequence[Path],
) -> tuple[list[str], list[str], RowGroups]:
    """Read the names and labels of the pictures in parquet files.

    The name is the column `image_id`, else the path of the picture, else file and row.

    Returns:
        Names without extension, labels ("" if absent), and row groups.

    Raises:
        MissingExtra: if pyarrow is not installed.
        BrainhiveError: if a file is damaged or holds no pictures.
    """
    names: list[str] = []
    labels: list[str] = []
    groups = []
    lengths = [0]
    for path in paths:
        with report_damage(path, "download it again"), open_parquet(path) as file:
            picture_column = _find_picture_column(path, file)
            path_column = f"{picture_column}.path"
            columns = {"image_id", path_column, "label"} & _list_columns(file)
            table = file.read(columns=sorted(columns)).flatten()
            values = {name: table[name].to_pylist() for name in table.column_names}
            n_rows = file.metadata.num_rows
            for group in range(file.num_row_groups):
                groups.append((path, group))
                lengths.append(file.metadata.row_group(group).num_rows)

        no_values = [None] * n_rows
        file_names = values.get("image_id", values.get(path_column, no_values))
        for row, name in enumerate(file_names):
            stem, extension = os.path.splitext(name or f"{path.stem}/{row:06d}")
            is_picture = extension.lower() in PICTURES
            names.append(stem if is_picture else stem + extension)
        for label in values.get("label", no_values):
            labels.append("" if label is None else str(label))
    return names, labels, RowGroups(groups, np.cumsum(lengths[:-1]))


def _read_picture(image_ids: Names, row_groups: RowGroups, index: int) -> Image.Image:
    """Decode a picture of a parquet file."""
    path, group, row = row_groups.locate(index)
    name = f"{image_ids[index]} in {path}"
    with report_bad_picture(name):
        data = _read_row_group(path, group)[row].as_py()
        if data is None:
            raise ValueError("the file holds no bytes for it")
    return decode(BytesIO(data), name)


@lru_cache(1)  # the next picture is often in the same row group
def _read_row_group(path: Path, group: int) -> Any:
    """Read the encoded pictures of a row group."""
    with open_parquet(path) as file:
        column = f"{_find_picture_column(path, file)}.bytes"
        table = file.read_row_group(group, [column], use_threads=False)
        return table.flatten().column(0)


def _list_columns(file: Any) -> set[str]:
    """List the columns of a parquet file, such as "image.bytes"."""
    return {file.schema.column(index).path for index in range(len(file.schema))}


def _find_picture_column(path: Path, file: Any) -> str:
    """Find the column of pictures, a struct of `bytes` and `path`."""
    columns = _list_columns(file)
    for name in file.schema_arrow.names:
        if f"{name}.bytes" in columns:
            return str(name)
    raise BrainhiveError(
        f"{path} has no pictures: none of its columns "
        f"{', '.join(file.schema_arrow.names)} holds bytes",
        "remove it, or move it elsewhere",
    )
