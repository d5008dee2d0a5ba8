"""Files of published data sets: search, tables and lists of trials."""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from brainhive_cli.core.base import Line, MissingData
from brainhive_cli.core.files import is_file, read_lines, report_damage

T = TypeVar("T")

FOLDERS = ("", "*/", "*/*/", "*/*/*/")
"""Patterns of the folders that are searched below a data set's folder."""


def find_below(root: Path, name: str) -> Path | None:
    """Find a file or folder at most three folders below `root`.

    Args:
        root: Folder of the data set.
        name: Name or pattern.

    Returns:
        The first path in the highest folder, or None if nothing matches.
    """
    for folder in FOLDERS:
        # sort, so that every machine finds the same path
        paths = sorted(root.glob(f"{folder}{name}"))
        if paths:
            return paths[0]
    return None


def find_file(root: Path, pattern: str, way_out: str) -> Path:
    """Find a file at most three folders below `root`.

    Args:
        root: Folder of the data set.
        pattern: Name or pattern of the file.
        way_out: Advice for the error.

    Raises:
        MissingData: if there is no such file.
    """
    path = find_below(root, pattern)
    if path is None or not is_file(path):
        raise MissingData(f"no {pattern} in {root}", way_out)
    return path


def fetch_line(dataset: str, root: str = "") -> str:
    """Return the command that downloads a data set, or says where to get it.

    Args:
        dataset: Kind of the data set.
        root: Its folder, if that is not the default.
    """
    overrides = [f"root={root}"] if root else []
    # the user's arguments are for another command
    return Line("fetch", dataset, *overrides).base_text


def read_table(
    path: Path, way_out: str, read_row: Callable[[dict[str, str]], T]
) -> list[T]:
    """Read a table with a header line, separated by tabs (.tsv) or commas.

    Args:
        path: The table.
        way_out: Advice if it is damaged.
        read_row: Function that converts a row, keyed by column.
    """
    delimiter = "\t" if path.suffix == ".tsv" else ","
    # utf-8-sig removes a byte order mark from the name of the first column
    with (
        report_damage(path, way_out),
        path.open(newline="", encoding="utf-8-sig") as file,
    ):
        return [read_row(row) for row in csv.DictReader(file, delimiter=delimiter)]


def cut_ending(name: str) -> str:
    """Remove the last extension from the name of a picture file, if it has one."""
    return name.rpartition(".")[0] or name


def read_splits(path: Path, source: str) -> dict[str, str]:
    """Read the split of each picture from the trials of any subject.

    A table of THINGS-fMRI (.csv) has columns of picture and split. In a list of
    BOLD5000, pictures that were shown more than once are the test pictures.

    Args:
        path: List of trials.
        source: Advice if it is damaged.
    """
    if path.suffix != ".csv":
        counts = Counter(read_names(path))
        return {
            name: "test" if count > 1 else "train" for name, count in counts.items()
        }
    rows = read_table(
        path, source, lambda row: (cut_ending(row["stimulus"]), row["trial_type"])
    )
    return dict(rows)


def read_names(path: Path) -> list[str]:
    """Read the picture of each trial, in time order, from a list of BOLD5000."""
    names = []
    for line in read_lines(path):
        name = line.strip()
        if name:
            # Prefix of repeated pictures in the trial lists of BOLD5000, release 1.0.
            # The picture files lack it.
            names.append(cut_ending(name.removeprefix("rep_")))
    return names
