"""What other projects call pictures, matched with the image ids of a data set."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""Endings of picture files."""


@dataclass(frozen=True)
class Match:
    """Which picture each name means.

    Attributes:
        rows: [N] the row of its image id; -1 where the data set has no such picture.
        unknown: The names without one.
    """

    rows: NDArray[np.int64]
    unknown: list[str]


def match(names: Sequence[str], image_ids: Sequence[str], *, each_once: bool = True) -> Match:
    """Find the picture of each name: an image id, its end (the stem alone, say), or a path that ends in it.

    Args:
        names: What others call pictures.
        image_ids: Those of the data set.
        each_once: Refuse two names of one picture.

    Raises:
        BrainhiveError: if a name could mean several pictures, or two names mean the same one.
    """
    by_stem = defaultdict(list)
    for row, image_id in enumerate(image_ids):
        by_stem[image_id.rpartition("/")[2]].append(row)
    rows, clashes = np.full(len(names), -1, np.int64), []
    for place, name in enumerate(map(plain_id, names)):
        found = [row for row in by_stem.get(name.rpartition("/")[2], ()) if _is_end(name, image_ids[row])]
        if len(found) > 1:
            found = [row for row in found if image_ids[row] == name] or found
        if len(found) > 1:
            clashes.append(f"{name} could be {' or '.join(image_ids[row] for row in found[:3])}")
        rows[place] = found[0] if found else -1
    _refuse(clashes, "names mean several pictures", "name them by their path below the image folder")
    if each_once:
        _refuse_twice(names, rows, image_ids)
    return Match(rows, [name for name, row in zip(names, rows, strict=True) if row < 0])


def shown(names: Sequence[str], of: int | None = None) -> str:
    """Count names and show the first few, in one line: `12 of 200: a, b, c …`."""
    count = f"{len(names)} of {of}" if of else str(len(names))
    some = (name if name.isprintable() else repr(name) for name in names[:3])
    return f"{count}: {', '.join(some)}{' …' if len(names) > 3 else ''}"


def plain_id(name: str) -> str:
    """Write a name as image ids are written: POSIX, without the ending of a picture file."""
    path = PurePosixPath(name.strip().replace("\\", "/"))
    is_picture = path.suffix.lower() in PICTURES
    return (path.with_suffix("") if is_picture else path).as_posix()


def _is_end(name: str, image_id: str) -> bool:
    return name == image_id or name.endswith(f"/{image_id}") or image_id.endswith(f"/{name}")


def _refuse_twice(names: Sequence[str], rows: NDArray[np.int64], image_ids: Sequence[str]) -> None:
    known = rows[rows >= 0]
    taken, counts = np.unique(known, return_counts=True)
    again = [image_ids[row] for row in taken[counts > 1]]
    _refuse(again, "pictures have several vectors", "give one encoder's vectors only")


def _refuse(what: Sequence[str], problem: str, hint: str) -> None:
    if what:
        raise BrainhiveError(f"{problem}, {shown(what)}", hint)
