"""Files of published data sets: found below a folder, and read."""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import Line, MissingData
from brainhive_cli.core.files import is_file, read_lines

T = TypeVar("T")

FOLDERS = ("", "*/", "*/*/", "*/*/*/")
"""Folders of files below that of a data set."""


def find_below(root: Path, name: str) -> Path | None:
    """Find a file or folder at most three folders below `root`; None where there is
    none.
    """
    # sorted, so that all machines find the same file
    return next(
        (path for folder in FOLDERS for path in sorted(root.glob(f"{folder}{name}"))),
        None,
    )


def fetch_line(dataset: str, root: str = "") -> str:
    """Write the line that fetches a data set, or shows where to get it, and on whose
    terms.

    Args:
        dataset: Its kind.
        root: Its folder, where that is not the default.
    """
    # no recipe is for fetch
    return Line("fetch", dataset, *([f"root={root}"] if root else [])).base_text


def find_file(root: Path, pattern: str, way_out: str) -> Path:
    """Find a file, at most three folders below `root`; MissingData where it is not
    there.
    """
    path = find_below(root, pattern)
    if path is None or not is_file(path):
        raise MissingData(f"no {pattern} in {root}", way_out)
    return path


def read_table(
    path: Path, way_out: str, read_row: Callable[[dict[str, str]], T]
) -> list[T]:
    """Read a table with a header line, of tabs (.tsv) or commas: what a function makes
    of each row.
    """
    # utf-8-sig: a byte order mark is no part of the first column's name
    with (
        report_damage(path, way_out),
        path.open(newline="", encoding="utf-8-sig") as file,
    ):
        return [
            *map(
                read_row,
                csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","),
            )
        ]


def cut_ending(name: str) -> str:
    """Cut the last suffix off the name of a picture's file, and no more: names may hold
    dots and blanks.
    """
    # a name without a dot is its own stem
    return name.rpartition(".")[0] or name


def read_splits(path: Path, source: str) -> dict[str, str]:
    """Read the split of each picture from a list of trials.

    The trials of any subject do: all saw the same. A table of THINGS-fMRI has columns
    of picture and split; in a list of BOLD5000 pictures that were shown more than once
    are the test.
    """
    if path.suffix == ".csv":
        return dict(
            read_table(
                path,
                source,
                lambda row: (cut_ending(row["stimulus"]), row["trial_type"]),
            )
        )
    counts = Counter(read_names(path))
    return {name: "test" if count > 1 else "train" for name, count in counts.items()}


def read_names(path: Path) -> list[str]:
    """Read the picture of each trial of a subject of BOLD5000, in the order of time."""
    # lists of release 1.0 mark repeated pictures, whose files are not called so
    lines = read_lines(path)
    return [
        cut_ending(name.strip().removeprefix("rep_")) for name in lines if name.strip()
    ]
