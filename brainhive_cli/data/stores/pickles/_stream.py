"""The bytes of a pickle, mapped: read in order, long ones skipped and handed out where they lie."""

from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

LINE = 2**16
"""Bytes that are searched at a time for the end of a line."""


class Stream:
    """Bytes that are read like a file's, and never beyond their end.

    Args:
        content: [n] bytes, mapped or in memory.

    Attributes:
        at: How many of them were read.
    """

    def __init__(self, content: NDArray[np.uint8]) -> None:
        self._content, self._bytes, self.at = content, content.data, 0

    @classmethod
    def of_file(cls, path: Path, mode: Literal["r", "c"] = "r") -> Self:
        """Map a file: read-only, or (torch wants it) with changes that stay in memory."""
        return cls(np.memmap(path, np.uint8, mode))

    def take(self, count: int) -> NDArray[np.uint8]:
        """Go on by `count` bytes, and hand them out where they lie.

        Raises:
            EOFError: if there are not so many.
        """
        return self._content[self._next(count)]

    @property
    def is_at_end(self) -> bool:
        """Whether nothing is left."""
        return self.at == len(self._bytes)

    def read(self, count: int) -> bytes:
        """Read `count` bytes."""
        return self._bytes[self._next(count)].tobytes()

    def _next(self, count: int) -> slice:
        if not 0 <= count <= len(self._bytes) - self.at:
            raise EOFError(f"{count} bytes needed of {len(self._bytes) - self.at}")
        self.at += count
        return slice(self.at - count, self.at)

    def readline(self) -> bytes:
        """Read up to the end of the line, and with it."""
        line = b""
        while not line.endswith(b"\n") and self.at < len(self._bytes):
            chunk = self._bytes[self.at : self.at + LINE].tobytes()
            line += self.read(chunk.find(b"\n") + 1 or len(chunk))
        return line
