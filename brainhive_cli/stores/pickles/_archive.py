"""A torch archive: a zip file whose members are mapped where they lie."""

import zipfile
from pathlib import Path
from typing import Literal

import numpy as np

from brainhive_cli.stores.pickles._stream import Stream

LOCAL_HEADER = 30
"""Bytes of a member's header before its name; at 26 and 28 stand the lengths of what follows."""


class Archive:
    """The members of a zip file.

    Args:
        path: The file.
        mode: How it is mapped: read-only, or (torch wants it) with changes that stay in memory.
    """

    def __init__(self, path: Path, mode: Literal["r", "c"] = "r") -> None:
        self.path, self._zip = path, zipfile.ZipFile(path)
        self._content = np.memmap(path, np.uint8, mode)

    @property
    def names(self) -> list[str]:
        """The members."""
        return self._zip.namelist()

    def open(self, name: str) -> Stream:
        """Open a member; one that is compressed is read."""
        member = self._zip.getinfo(name)
        if member.compress_type != zipfile.ZIP_STORED:
            return Stream(np.frombuffer(bytearray(self._zip.read(name)), np.uint8))
        start = member.header_offset
        head = self._content[start : start + LOCAL_HEADER].tobytes()
        start += LOCAL_HEADER + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        if start + member.file_size > len(self._content):
            raise EOFError(f"{name} ends beyond the file")
        return Stream(self._content[start : start + member.file_size])
