"""Pictures in the hub's parquet files, which hold their bytes."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.archives import open_parquet
from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data import datasets
from brainhive_cli.data.datasets._pictures import Listing


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


def listed(files: Sequence[Path]) -> Listing:
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
        with reading(path, "download it again"), open_parquet(path) as file:
            columns = {file.schema.column(n).path for n in range(len(file.schema))}
            column = _picture_column(file, columns, path)
            groups += [(number, n, file.metadata.row_group(n).num_rows) for n in range(file.num_row_groups)]
            called, labelled = _names_and_labels(file, columns, column)
        names += [_stem(name or f"{path.stem}/{row:06d}") for row, name in enumerate(called)]
        labels += labelled
    where = np.array(groups, np.int64).reshape(-1, 3)
    start = np.cumsum(where[:, 2]) - where[:, 2]
    return Listing(names, labels, Rows(tuple(files), column, where[:, 0], where[:, 1], start))


def _stem(name: str) -> str:
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in datasets.PICTURES else name


def _picture_column(file: Any, columns: set[str], path: Path) -> str:
    found = [name for name in file.schema_arrow.names if f"{name}.bytes" in columns]
    if not found:
        names = ", ".join(file.schema_arrow.names)
        raise BrainhiveError(
            f"{path} has no pictures: none of its columns {names} holds bytes",
            "remove it, or move it elsewhere",
        )
    return str(found[0])


def _names_and_labels(file: Any, columns: set[str], column: str) -> tuple[list[str], list[str]]:
    known = [name for name in ("image_id", f"{column}.path", "label") if name in columns]
    read = file.read(columns=known).flatten()
    nothing = [None] * file.metadata.num_rows
    found = {name: read[name].to_pylist() for name in read.column_names}
    called = found.get("image_id", found.get(f"{column}.path", nothing))
    return called, ["" if label is None else sys.intern(str(label)) for label in found.get("label", nothing)]
