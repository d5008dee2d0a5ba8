"""Other people's .pt, .npy and .npz files, read without running what is in them.

What a file is, its first bytes say: a bare pickle may be called .npy, and an archive of torch anything.
"""

import pickle
import warnings
import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core import foreign_code
from brainhive_cli.core.errors import BrainhiveError, first_line
from brainhive_cli.data.stores.damage import described
from brainhive_cli.data.stores.mapping import NUMBERS
from brainhive_cli.data.stores.pickles import _older
from brainhive_cli.data.stores.pickles._archive import Archive, Storages
from brainhive_cli.data.stores.pickles._stream import Stream
from brainhive_cli.data.stores.pickles._unpickler import Refused, Unpickler

ENDINGS = (".pt", ".pth", ".npy", ".npz")
NPY = ".npy"
HEADERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""What reads the header of an array, by the format's version; the third is of structures only."""
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""What a file of torch begins with that is no archive (torch.serialization.MAGIC_NUMBER)."""


class HoldsObjects(BrainhiveError):
    """A file with Python objects that reading would have to make by running code."""


def load(path: Path, trust: bool = False, verify: bool = True) -> Any:
    """Read tensors, arrays and plain types, whatever dicts and lists they stand in.

    Long arrays are mapped where they lie in the file, in their own dtype; nothing of them is read, but for
    the checksums that archives have.

    Args:
        path: An archive of torch (pickle protocols 2 to 5), an older file of torch, an .npy, an .npz or a
            bare pickle, whatever its name.
        trust: Read files with other objects, too: this can run code.
        verify: Verify the checksums of tensors; not where a large file is opened again and again.

    Raises:
        HoldsObjects: if the file holds anything else, before any of it is made.
        BrainhiveError: if it cannot be read.
    """
    with described(path, "fetch it again"):
        try:
            return _load(path, verify)
        except Refused as error:
            if trust:
                foreign_code.require("trust_pickle", f"trust_pickle, as {path} holds objects,")
                return _run(path)
            raise HoldsObjects(
                f"{path} holds Python objects that could run code when read: {first_line(error)}",
                "save it again as a dict of plain arrays and lists",
            ) from error


def numbers(content: bytes, name: str) -> NDArray[Any]:
    """Read an .npy that is in memory and holds numbers.

    Args:
        content: The whole of it.
        name: What it is called, for the error.

    Raises:
        ValueError: if it holds anything else, or more than its header claims; or one of `damage.RAISED`.
    """
    stream = Stream(np.frombuffer(content, np.uint8))
    found = _array(stream)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in NUMBERS or not stream.is_at_end:
        raise ValueError(f"{name} does not hold the numbers that its header claims")
    return found


def array(value: Any) -> NDArray[Any]:
    """Turn what `load` found into an array.

    Args:
        value: An array, a dense tensor, or a list of numbers, of strings, of arrays, or of lists of these.

    Raises:
        TypeError: if it is something else: deeper lists can take for ever.
    """
    if hasattr(value, "detach"):
        value = value.detach()  # of bfloat16, which NumPy does not have
        return np.asarray(value.float() if str(value.dtype) == "torch.bfloat16" else value)
    is_list = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype.hasobject)
    for row in value if is_list else [value]:
        for each in row if isinstance(row, list | tuple) else [row]:
            if not isinstance(each, np.ndarray | np.generic | int | float | str):
                raise TypeError(f"a {type(each).__name__} is neither numbers nor names")
    return np.asanyarray(value)


def _load(path: Path, verify: bool) -> Any:
    with path.open("rb") as file:
        magic = file.read(6)
    if magic[:2] == b"PK":
        return _load_archive(path, verify)
    if magic == b"\x93NUMPY":
        content = _array(Stream.of_file(path))
        return content.item() if isinstance(content, np.ndarray) and content.shape == () else content
    return _load_pickle(path)


def _load_archive(path: Path, verify: bool) -> Any:
    archive = Archive(path)
    pickled = [name for name in archive.names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if not pickled:
        arrays = [name for name in archive.names if name.endswith(NPY)]
        if not arrays:
            raise ValueError("it holds neither tensors nor arrays")
        return {name.removesuffix(NPY): _array(archive.open(name)) for name in arrays}
    storages = Storages(path, pickled[0].removesuffix("data.pkl"), verify)
    return _or_torch(path, lambda: Unpickler(archive.open(pickled[0]), storages).load())


def _array(stream: Stream) -> Any:
    """Map an array; one of objects, which NumPy keeps as a pickle, holds plain types or is refused."""
    version = np.lib.format.read_magic(stream)  # type: ignore[arg-type]
    shape, is_fortran, dtype = HEADERS[version](stream)
    if dtype.hasobject:
        return Unpickler(stream).load()
    content = stream.take(prod(shape) * dtype.itemsize)
    return content.view(dtype).reshape(shape, order="F" if is_fortran else "C")


def _load_pickle(path: Path) -> Any:
    """Read a bare pickle, or an older file of torch."""

    def content() -> Any:
        first = Unpickler(Stream.of_file(path)).load()
        return _older.load(path) if isinstance(first, int) and first == TORCH_MAGIC else first

    return _or_torch(path, content)


def _or_torch(path: Path, read: Callable[[], Any]) -> Any:
    """Read in our way; by torch's own safe loader what holds kinds of tensors that only it knows."""
    try:
        return read()
    except Refused as error:
        if not str(error).startswith("torch."):
            raise
        import torch

        try:
            with warnings.catch_warnings(action="ignore"):  # it doubts all protocols but the second
                return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError:
            raise error from None


def _run(path: Path) -> Any:
    """Read a file by running what is in it."""
    import torch

    is_archive = zipfile.is_zipfile(path)
    if is_archive or path.suffix in (".pt", ".pth"):
        return torch.load(path, map_location="cpu", weights_only=False, mmap=is_archive)
    return np.load(path, allow_pickle=True)
