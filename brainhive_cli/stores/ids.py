"""Names of many pictures in one array."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError


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
