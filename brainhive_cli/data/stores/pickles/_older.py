"""A file of torch that is no archive: four pickles, the names of the storages, then their numbers in turn."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.data.stores.pickles._archive import DTYPES, flat, rebuild
from brainhive_cli.data.stores.pickles._stream import Stream
from brainhive_cli.data.stores.pickles._unpickler import Unpickler

COUNT = 8
"""Bytes of the length that stands before the numbers of a storage."""


def load(path: Path) -> Any:
    """Read the content of such a file; the numbers of its tensors are mapped where they lie.

    The content stands before the places of its storages are known, so it is read twice.
    """
    stream, storages = Stream.of_file(path, "c"), _Storages()
    for _ in ("magic", "protocol", "machine"):
        Unpickler(stream).load()
    start = stream.at
    Unpickler(stream, storages).load()
    for key in Unpickler(stream).load():
        storages.place(key, stream)
    stream.at = start
    return Unpickler(stream, storages).load()


class _Storages:
    """The storages that a pickle names; None stands for their tensors until `place` has found them."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {f"torch.{kind}": dtype for kind, dtype in DTYPES.items()}
        self.names["torch._utils._rebuild_tensor_v2"] = lambda made, *how: made and rebuild(made[0], *how)
        self._dtypes: dict[str, str] = {}
        self._content: dict[str, NDArray[np.uint8]] = {}

    def open(self, what: str, dtype_name: str, key: str, location: str, count: int, view: Any = None) -> Any:
        """Map a storage as a flat tensor, the one entry of a tuple."""
        if dtype_name not in DTYPES.values() or view is not None:
            raise UnpicklingError(f"no plain storage: {dtype_name}, {view}")
        self._dtypes[key] = dtype_name
        return (flat(Stream(self._content[key]), dtype_name, count),) if self._content else None

    def place(self, key: str, stream: Stream) -> None:
        """Take the next storage from the file: its length, then its numbers."""
        import torch

        count, dtype = int.from_bytes(stream.read(COUNT), "little"), getattr(torch, self._dtypes[key])
        self._content[key] = stream.take(count * dtype.itemsize)
