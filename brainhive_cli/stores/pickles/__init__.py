"""Other people's .pt, .npy and .npz files, read without running what is in them.

What a file is, its first bytes say: a bare pickle may be called .npy, and an archive of torch anything.
"""

import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core.errors import BrainhiveError, first_line
from brainhive_cli.stores.pickles._archive import Archive, Storages
from brainhive_cli.stores.pickles._stream import Stream
from brainhive_cli.stores.pickles._unpickler import Refused, Unpickler

ENDINGS = (".pt", ".pth", ".npy", ".npz")
BROKEN = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RecursionError),
    *(RuntimeError, TypeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile),
)
"""What reading a file that is cut short or scrambled raises."""
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""What a file of torch begins with that is no archive (torch.serialization.MAGIC_NUMBER)."""


class HoldsObjects(BrainhiveError):
    """A file with Python objects that reading would have to make by running code."""


def load(path: Path, trust: bool = False) -> Any:
    """Read tensors, arrays and plain types, whatever dicts and lists they stand in.

    Long arrays are mapped where they lie in the file, in their own dtype; nothing of them is read.

    Args:
        path: An archive of torch (pickle protocols 2 to 5), an older file of torch, an .npy, an .npz or a
            bare pickle, whatever its name.
        trust: Read files with other objects, too: this can run code.

    Raises:
        HoldsObjects: if the file holds anything else, before any of it is made.
        BrainhiveError: if it cannot be read.
    """
    try:
        try:
            return _load(path)
        except Refused:
            if not trust:
                raise
            return _run(path)
    except Refused as error:
        raise HoldsObjects(
            f"{path} holds Python objects that could run code when read: {first_line(error)}",
            "save it again as a dict of plain arrays and lists",
        ) from error
    except BROKEN as error:
        reason = first_line(error)
        raise BrainhiveError(f"{path} cannot be read, or is cut short: {reason}", "fetch it again") from error


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        magic = file.read(6)
    if magic[:2] == b"PK":
        return _load_archive(path)
    if magic == b"\x93NUMPY":
        return _load_npy(path)
    return _load_pickle(path)


def _load_archive(path: Path) -> Any:
    archive = Archive(path)
    pickled = [name for name in archive.names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if not pickled:
        content = np.load(path, allow_pickle=False)
        return dict(content) if isinstance(content, np.lib.npyio.NpzFile) else content
    storages = Storages(path, pickled[0].removesuffix("data.pkl"))
    return _or_torch(path, lambda: Unpickler(archive.open(pickled[0]), storages).load())


def _load_npy(path: Path) -> Any:
    """Read an array; one of objects, which NumPy keeps as a pickle, holds plain types or is refused."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers or not readers[version](file)[2].hasobject:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        content = Unpickler(Stream.of_file(path, file.tell())).load()
    return content.item() if isinstance(content, np.ndarray) and content.shape == () else content


def _load_pickle(path: Path) -> Any:
    """Read a bare pickle, or the fourth of those that an older file of torch consists of."""
    stream = Stream.of_file(path)

    def content() -> Any:
        first = Unpickler(stream).load()
        if not isinstance(first, int) or first != TORCH_MAGIC:
            return first
        return [Unpickler(stream).load() for _ in ("protocol", "machine", "content")][-1]

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
