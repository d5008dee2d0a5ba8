"""Names of many pictures in one array, and the rows that names stand for."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.data.stores.matching import plain_id, shown


class Names(Sequence[str]):
    """Strings that never change, as fixed-width UTF-8: in memory as in a store.

    A list would be an object a name, whose reference count is written whenever the name is read: processes
    that share the list would each copy its pages while they go through it.

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
            raise BrainhiveError(f"{error.object!r} is not UTF-8", "rename the file") from error

    def __len__(self) -> int:
        """Count them."""
        return len(self.packed)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> str: ...

    @overload
    def __getitem__(self, index: slice | NDArray[np.int64]) -> Self: ...

    def __getitem__(self, index: int | np.integer[Any] | slice | NDArray[np.int64]) -> str | Self:
        """Unpack one, or choose some."""
        found = self.packed[index]
        return found.decode() if isinstance(found, bytes) else type(self)(found)

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
        """Digest the names in their order (16 hexadecimal digits), whatever the width of the array."""
        return hashlib.sha256(b"\0".join(self.packed.tolist())).hexdigest()[:16]

    def __repr__(self) -> str:
        """Show the first few."""
        return f"Names({list(self[:3])}{', …' if len(self) > 3 else ''})"


def match_ids(requested: Sequence[str], known: Sequence[str], where: str) -> NDArray[np.int64]:
    """Find the row of each image id; by file stem where one side has no more.

    Args:
        requested: Image ids, or file stems; of those that are not known, the ending of a picture file is left
            out: users' own signal stores name files.
        known: Image ids of the rows, or file stems.
        where: What the rows belong to, for the error.

    Raises:
        MissingData: if an id is not there, or its stem stands for several.
    """
    by_id = {image_id: row for row, image_id in enumerate(known)}
    rows = [by_id.get(image_id, -1) for image_id in requested]
    if -1 in rows:
        plain = [
            image_id if row >= 0 else plain_id(image_id)
            for image_id, row in zip(requested, rows, strict=True)
        ]
        rows = [by_id.get(image_id, -1) for image_id in plain]
        by_stem: dict[str, list[int]] = {}
        for row, image_id in enumerate(known):
            by_stem.setdefault(image_id.rsplit("/", 1)[-1], []).append(row)
        rows = [
            _by_stem(w, by_stem, known, where) if row < 0 else row for w, row in zip(plain, rows, strict=True)
        ]
    return np.asarray(rows, dtype=np.int64)


def _by_stem(image_id: str, by_stem: Mapping[str, list[int]], known: Sequence[str], where: str) -> int:
    rows = by_stem.get(image_id.rsplit("/", 1)[-1], [])
    if "/" in image_id:  # two full ids with one stem are two pictures
        rows = [row for row in rows if "/" not in known[row]]
    if not rows:
        raise MissingData(
            f"{where} has no picture {image_id!r}, of {shown(known)}",
            "name pictures by their paths below the image root, or their stems; if pictures were added "
            "since, embed the same data set and split again",
        )
    if len(rows) > 1:
        clashes = ", ".join(known[row] for row in rows[:5])
        raise MissingData(f"{where}: {image_id!r} could be any of {clashes}", "give full image ids")
    return rows[0]
