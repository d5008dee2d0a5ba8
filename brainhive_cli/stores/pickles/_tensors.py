"""The tensors of a torch archive: numbers in members of their own, mapped."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from brainhive_cli.stores.pickles._archive import Archive

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {
    **{"DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16"},
    **{"BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32"},
    **{"ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool"},
}


class Storages:
    """Where the tensors of an archive lie, and the names that a pickle makes them by.

    Args:
        path: The archive.
        folder: What its members' names begin with.
    """

    def __init__(self, path: Path, folder: str) -> None:
        self._path, self._folder = path, folder
        self.names: dict[str, Any] = {f"torch.{kind}": dtype for kind, dtype in DTYPES.items()}
        self.names["torch._utils._rebuild_tensor_v2"] = rebuild

    @cached_property
    def _archive(self) -> Archive:
        return Archive(self._path, "c")

    def open(self, what: str, dtype_name: str, key: str, location: str, count: int) -> "Tensor":
        """Map the `count` numbers of a storage as a flat tensor."""
        import torch

        if dtype_name not in DTYPES.values():
            raise UnpicklingError(f"no dtype of a tensor: {dtype_name}")
        dtype: torch.dtype = getattr(torch, dtype_name)
        content = self._archive.open(f"{self._folder}data/{key}").take(count * dtype.itemsize)
        return torch.frombuffer(content, dtype=dtype) if count else torch.empty(0, dtype=dtype)


def rebuild(flat: "Tensor", start: int, shape: Sequence[int], stride: Sequence[int], *_: Any) -> "Tensor":
    """Shape a tensor from a flat one; torch holds that it lies within."""
    return flat.as_strided(tuple(shape), tuple(stride), start)
