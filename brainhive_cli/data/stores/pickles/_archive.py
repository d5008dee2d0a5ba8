"""A torch archive: a zip file whose members, and the tensors in them, are mapped where they lie."""

import zipfile
import zlib
from collections.abc import Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from brainhive_cli.core import zip_members
from brainhive_cli.data.stores.damage import refuse_inflation
from brainhive_cli.data.stores.pickles._stream import Stream

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {
    **{"DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16"},
    **{"BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32"},
    **{"ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool"},
}
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
        size = sum(member.file_size for member in zip_members.members(self._zip))
        refuse_inflation(size, len(self._content), "its members")

    @property
    def names(self) -> list[str]:
        """The members."""
        return self._zip.namelist()

    def open(self, name: str, verify: bool = True) -> Stream:
        """Open a member, and verify its checksum (which torch does not); one that is compressed is read."""
        member = self._zip.getinfo(name)
        if member.compress_type != zipfile.ZIP_STORED:
            return Stream(np.frombuffer(bytearray(self._zip.read(name)), np.uint8))
        start = member.header_offset
        head = self._content[start : start + LOCAL_HEADER].tobytes()
        start += LOCAL_HEADER + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        if not 0 <= member.header_offset < start + member.file_size <= len(self._content):
            raise EOFError(f"{name} does not lie within the file")
        content = self._content[start : start + member.file_size]
        if verify and member.CRC and zlib.crc32(content.data) != member.CRC:
            raise ValueError(f"{name} does not match its checksum")
        return Stream(content)


class Storages:
    """Where the tensors of an archive lie, and the names that a pickle makes them by.

    Args:
        path: The archive.
        folder: What its members' names begin with.
        verify: Whether to read the numbers once, for their checksum.
    """

    def __init__(self, path: Path, folder: str, verify: bool) -> None:
        self._path, self._folder, self._verify = path, folder, verify
        self.names: dict[str, Any] = {f"torch.{kind}": dtype for kind, dtype in DTYPES.items()}
        self.names["torch._utils._rebuild_tensor_v2"] = rebuild

    @cached_property
    def _archive(self) -> Archive:
        return Archive(self._path, "c")

    def open(self, what: str, dtype_name: str, key: str, location: str, count: int) -> "Tensor":
        """Map the `count` numbers of a storage as a flat tensor."""
        return flat(self._archive.open(f"{self._folder}data/{key}", self._verify), dtype_name, count)


def flat(content: Stream, dtype_name: str, count: int) -> "Tensor":
    """Take the `count` numbers of a storage as a flat tensor."""
    import torch

    if dtype_name not in DTYPES.values():
        raise UnpicklingError(f"no dtype of a tensor: {dtype_name}")
    dtype: torch.dtype = getattr(torch, dtype_name)
    taken = content.take(count * dtype.itemsize)
    return torch.frombuffer(taken, dtype=dtype) if count else torch.empty(0, dtype=dtype)


def rebuild(flat: "Tensor", start: int, shape: Sequence[int], stride: Sequence[int], *_: Any) -> "Tensor":
    """Shape a tensor from a flat one; torch holds that it lies within.

    Raises:
        ValueError: if it repeats its numbers so often that a copy would fill the memory.
    """
    refuse_inflation(prod(shape) * flat.itemsize, flat.nbytes, f"a tensor {list(shape)}")
    return flat.as_strided(tuple(shape), tuple(stride), start)
