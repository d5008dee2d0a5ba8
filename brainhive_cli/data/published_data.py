"""Data sets as they are published: what is known before any file is here, and readers of files."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from brainhive_cli.core import documents
from brainhive_cli.core.arrays import Array
from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.files import is_file, read_regular
from brainhive_cli.core.lines import Line
from brainhive_cli.data.datasets import Published
from brainhive_cli.data.stores import pickles

T = TypeVar("T")

PUBLISHED = documents.read(Path(__file__).with_suffix(".yaml"), dict[str, Published])
"""By the name of the data set."""

FOLDERS = ("", "*/", "*/*/", "*/*/*/")
"""Folders of files below that of a data set."""
BOLD5000_LIST = "CSI%s_imgnames.txt"
"""The pictures of a subject of BOLD5000, one a trial. That of `[1-4]`, the first who is there, says which
are the test: 1 to 3 saw the same pictures, the fourth left early."""


def find_below(root: Path, name: str) -> Path | None:
    """Find a file or folder at most three folders below `root`; None where there is none."""
    return next((path for folder in FOLDERS for path in sorted(root.glob(f"{folder}{name}"))), None)


def fetch_line(dataset: str, root: str = "") -> str:
    """Write the line that fetches a data set, or shows where to get it, and on whose terms.

    Args:
        dataset: Its kind.
        root: Its folder, where that is not the default.
    """
    return Line("fetch", dataset, *([f"root={root}"] if root else [])).plain  # no recipe is for fetch


def find_file(root: Path, pattern: str, way_out: str) -> Path:
    """Find a file, at most three folders below `root`; MissingData where it is not there."""
    if (path := find_below(root, pattern)) is None or not is_file(path):
        raise MissingData(f"no {pattern} in {root}", way_out)
    return path


def read_table(path: Path, way_out: str, read_row: Callable[[dict[str, str]], T]) -> list[T]:
    """Read a table with a header line, of tabs (.tsv) or commas: what a function makes of each row."""
    with reading(path, way_out), path.open(newline="", encoding="utf-8-sig") as file:
        return [*map(read_row, csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))]


def cut_ending(name: str) -> str:
    """Cut the last suffix off the name of a picture's file, and no more: names may hold dots and blanks."""
    return name.rpartition(".")[0] or name


def read_bold5000_names(path: Path) -> list[str]:
    """Read the picture of each trial of a subject of BOLD5000, in the order of time."""
    # lists of release 1.0 mark repeated pictures, whose files are not called so
    lines = read_regular(path).decode("utf-8-sig").splitlines()
    return [cut_ending(name.strip().removeprefix("rep_")) for name in lines if name.strip()]


@dataclass(frozen=True)
class TensorRows:
    """The rows of a file of torch with one tensor [N, …] or array; it is open no longer than one is read."""

    path: Path

    def shape(self, axes: str, source: str) -> tuple[int, ...]:
        """Check what the file holds; no row is read.

        Args:
            axes: What its axes must be, as `N, F, H, W`, for the number and for the error.
            source: How to get the file.

        Raises:
            BrainhiveError: if it is damaged, or holds something else.
        """
        with reading(self.path, source):
            tensor = pickles.load(self.path, verify=False)
            shape, dtype = (
                tuple(getattr(tensor, "shape", ())),
                getattr(tensor, "dtype", type(tensor).__name__),
            )
            if len(shape) != axes.count(",") + 1 or pickles.array(tensor[:0]).dtype.kind not in "fiub":
                raise ValueError(f"it holds {dtype} {list(shape)}, not numbers [{axes}]")
        return shape

    def __getitem__(self, index: int) -> Array:
        """Read one row; one of `damage.RAISED`, or a BrainhiveError, when it cannot be."""
        return pickles.array(pickles.load(self.path, verify=False)[index])


def name_nsd_picture(row: int) -> str:
    """Name a picture of NSD, by its row of imgBrick counted from 0, as its files do, which count from 1."""
    return f"nsd{row + 1:05d}"
