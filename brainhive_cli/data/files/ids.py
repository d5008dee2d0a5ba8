"""Names of pictures: many in one array, the rows they stand for, and what other
projects call them.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from pathlib import PurePosixPath
from typing import Any, Self, overload
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.errors import BrainhiveError, MissingData

NOT_IN_TABLES = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
"""Characters that no cell of a TSV can hold: tabs, ends of lines, and control
characters.
"""
WHOLE = re.compile(r"(-?\d+)\.0*")
"""Whole number as programs write it whose column has gaps, as 13.0."""
PICTURES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .avif .avifs .bmp .dib .gif .ico .jp2 .j2k "
    ".j2c .jpc .jpf .jpx .pbm .pgm .ppm .pnm .pfm .tif .tiff".split()
)
"""Endings of picture files: those that Pillow registers for the formats that are
read.
"""

SHOWN_MATCHES = 3
"""Pictures that a message lists of those that a name could mean."""


class Names(Sequence[str]):
    """Strings that never change, as fixed-width UTF-8: in memory as in a store.

    A list would be an object a name, whose reference count is written whenever the name
    is read: processes that share the list would each copy its pages while they go
    through it.

    Args:
        packed: [N] UTF-8.
    """

    def __init__(self, packed: NDArray[np.bytes_]) -> None:
        self.packed = packed

    @classmethod
    def of(cls, names: Iterable[str]) -> Self:
        """Pack strings.

        Raises:
            BrainhiveError: naming one that is no UTF-8, as a file's name may be.
        """
        if isinstance(names, cls):
            return names
        try:
            return cls(np.array(list(map(str.encode, names)), np.bytes_))
        except UnicodeEncodeError as error:
            raise BrainhiveError(
                f"{error.object!r} is not UTF-8", "rename the file"
            ) from error

    def __len__(self) -> int:
        """Count them."""
        return len(self.packed)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> str: ...

    @overload
    def __getitem__(self, index: slice | Int64) -> Self: ...

    def __getitem__(self, index: int | np.integer[Any] | slice | Int64) -> str | Self:
        """Unpack one, or choose some."""
        packed = self.packed[index]
        # an integer selects bytes, a slice or indices an array
        return packed.decode() if isinstance(packed, bytes) else type(self)(packed)

    def __iter__(self) -> Iterator[str]:
        """Unpack all."""
        return map(bytes.decode, self.packed.tolist())

    def __eq__(self, other: object) -> bool:
        """Compare with names, a list or a tuple: order counts."""
        if isinstance(other, list | tuple):
            return list(self) == list(other)
        return isinstance(other, Names) and np.array_equal(self.packed, other.packed)

    @property
    def digest(self) -> str:
        """Digest the names in their order (16 hexadecimal digits), whatever the width
        of the array.
        """
        # separated, so that [ab, c] and [a, bc] differ
        return hashlib.sha256(b"\0".join(self.packed.tolist())).hexdigest()[:16]


def composed(name: str) -> str:
    """Write a name in composed characters (NFC), in which names are compared: a Mac
    decomposes `é`.
    """
    return name if name.isascii() else normalize("NFC", name)


def plain_name(name: str) -> str:
    """Write the name of an event composed, and a whole number without a point."""
    return WHOLE.sub(r"\1", composed(name)) if WHOLE.fullmatch(name) else composed(name)


def read_category(name: str) -> str:
    """Write the name of a category as it is compared, be it a recipe's, a folder's or
    an event's.
    """
    return plain_name(plain_id(table_text(name)))


def match_ids(requested: Sequence[str], known: Sequence[str], where: str) -> Int64:
    """Find the row of each image id; of one that is not known, as `match_names` does.

    Args:
        requested: Image ids, or what users' own signal stores name: files, or their
            stems.
        known: Image ids of the rows, or file stems.
        where: What the rows belong to, for the error.

    Raises:
        MissingData: if an id is not there.
        BrainhiveError: if its end stands for several.
    """
    # full ids first
    row_of_id = {image_id: row for row, image_id in enumerate(known)}
    rows = np.array([row_of_id.get(image_id, -1) for image_id in requested], np.int64)
    if not (rows < 0).any():
        return rows

    # then ends of ids, each of one picture
    positions = np.flatnonzero(rows < 0).tolist()
    names = [requested[position] for position in positions]
    rows[positions], unknown = match_names(names, known)
    if unknown:
        raise MissingData(
            f"{where} has no picture {unknown[0]!r}, of {summarise_names(known)}",
            "name pictures by their paths below the image root, or their stems; if "
            "pictures were added since, embed the same data set and split again",
        )
    return rows


def match_names(
    names: Sequence[str], image_ids: Sequence[str], *, each_once: bool = False
) -> tuple[Int64, list[str]]:
    """Find the picture of each name: an image id, its end (the stem alone, say), or a
    path that ends in it.

    Args:
        names: What others call pictures.
        image_ids: Those of the data set.
        each_once: Refuse two names of one picture.

    Returns:
        [N] the row of its image id, -1 where the data set has no such picture; and the
        names without one.

    Raises:
        BrainhiveError: if a name could mean several pictures, or two names mean the
            same one.
    """
    # equal ids first
    known = list(map(composed, image_ids))
    requested = [composed(plain_id(name)) for name in names]
    rows_of_id = defaultdict(list)
    for row, image_id in enumerate(known):
        rows_of_id[image_id].append(row)

    # other names may be ends of ids, of which the first few are enough
    rows_of_end: dict[str, list[int]] = {
        name: [] for name in requested if name not in rows_of_id
    }
    for row, image_id in enumerate(known if rows_of_end else ()):
        for end in _path_ends(image_id):
            rows_found = rows_of_end.get(end)
            if rows_found is not None and len(rows_found) < SHOWN_MATCHES:
                rows_found.append(row)

    # or paths that end in an id
    rows = np.full(len(names), -1, np.int64)
    clashes = []
    for position, name in enumerate(requested):
        matches = rows_of_id.get(name, [])
        if not matches:
            longer = [rows_of_id.get(end, ()) for end in _path_ends(name)]
            matches = sorted(chain(rows_of_end[name], *longer))
        if len(matches) > 1:
            shown = [image_ids[row] for row in matches[:SHOWN_MATCHES]]
            clashes.append(f"{name} could be {' or '.join(shown)}")
        rows[position] = matches[0] if matches else -1
    # all clashes in one error
    if clashes:
        raise BrainhiveError(
            f"names mean several pictures, {summarise_names(clashes)}",
            "name them by their path below the image folder",
        )

    # a picture may have one name only
    pictures, counts = np.unique(rows[rows >= 0], return_counts=True)
    if each_once and (repeated := [image_ids[row] for row in pictures[counts > 1]]):
        raise BrainhiveError(
            f"pictures have several vectors, {summarise_names(repeated)}",
            "give one encoder's vectors only",
        )
    return rows, [name for name, row in zip(names, rows, strict=True) if row < 0]


def summarise_names(names: Sequence[str], of: int | None = None) -> str:
    """Count names and show the first few, in one line: `12 of 200: a, b, c …`."""
    count = f"{len(names)} of {of}" if of else str(len(names))
    # line ends and control characters are escaped: the summary is one line
    shown = (name if name.isprintable() else repr(name) for name in names[:3])
    return f"{count}: {', '.join(shown)}{' …' if len(names) > 3 else ''}"


def plain_id(name: str) -> str:
    """Write a name as image ids are written: POSIX, without the ending of a picture
    file.
    """
    # events may hold paths written on Windows
    path = PurePosixPath(name.strip().replace("\\", "/"))
    is_picture = path.suffix.lower() in PICTURES
    return (path.with_suffix("") if is_picture else path).as_posix()


def table_text(name: str) -> str:
    """Write a name as a cell of a TSV: without characters that it cannot hold, or a
    first quotation mark.
    """
    return re.sub('^"', "'", NOT_IN_TABLES.sub(" ", name).strip())


def _path_ends(path: str) -> Iterator[str]:
    """Yield what follows each slash of a path, the longest first."""
    start = path.find("/") + 1
    while start:
        yield path[start:]
        start = path.find("/", start) + 1


def spans(numbers: Sequence[int]) -> str:
    """Write whole numbers as `1–3, 5`."""
    # in a run of successive numbers, number less index is constant
    runs = [
        [number for _, number in run]
        for _, run in groupby(
            enumerate(sorted({*numbers})), lambda pair: pair[1] - pair[0]
        )
    ]
    return ", ".join(
        str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs
    )
