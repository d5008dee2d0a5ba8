"""Other people's .pt, .npy and .npz files, read without running what is in them."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np

from brainhive_cli.errors import BrainhiveError, first_line

ENDINGS = (".pt", ".pth", ".npy", ".npz")
BROKEN = (EOFError, OSError, RuntimeError, ValueError, zipfile.BadZipFile)
BROKEN_PICKLE = (AttributeError, LookupError, TypeError)
"""What reading a file that is cut short or scrambled raises."""


def load(path: Path) -> Any:
    """Read tensors, arrays and plain types, whatever dicts and lists they stand in.

    Raises:
        BrainhiveError: if the file holds anything else, or cannot be read.
    """
    try:
        return _load_torch(path) if path.suffix in (".pt", ".pth") else _load_numpy(path)
    except pickle.UnpicklingError as error:
        raise BrainhiveError(
            f"{path} holds Python objects that could run code when read",
            "save it again as a dict of plain arrays and lists",
        ) from error
    except (*BROKEN, *BROKEN_PICKLE) as error:
        reason = first_line(error)
        raise BrainhiveError(f"{path} cannot be read, or is cut short: {reason}", "fetch it again") from error


def numpy_globals() -> list[Any]:
    """List what plain NumPy arrays are made of in a pickle, by the names of NumPy 2 and of NumPy 1."""
    makers: list[Any] = [np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]]
    older = [(maker, f"numpy.core.multiarray.{maker.__name__}") for maker in makers]
    return [np.ndarray, np.dtype, *makers, *older, *(getattr(np.dtypes, name) for name in np.dtypes.__all__)]


def _load_torch(path: Path) -> Any:
    import torch

    with torch.serialization.safe_globals(numpy_globals()):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _load_numpy(path: Path) -> Any:
    """Read arrays; an array of objects, which NumPy keeps as a pickle, holds plain types or is refused."""
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        with path.open("rb") as file:
            return _load_objects(file)
    return dict(content) if isinstance(content, np.lib.npyio.NpzFile) else content


def _load_objects(file: IO[bytes]) -> Any:
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f"format {version} of .npy")
    read_header[version](file)
    content = _Plain(file).load()
    return content.item() if isinstance(content, np.ndarray) and content.shape == () else content


class _Plain(pickle.Unpickler):
    """Unpickles NumPy arrays and plain types; everything else is refused before it is made."""

    def find_class(self, module: str, name: str) -> Any:
        for maker in (OrderedDict, *numpy_globals()):
            known = maker if isinstance(maker, tuple) else (maker, f"{maker.__module__}.{maker.__name__}")
            if known[1] == f"{module}.{name}":
                return known[0]
        raise pickle.UnpicklingError(f"{module}.{name}")
