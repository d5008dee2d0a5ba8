"""Reader of .pt, .npy, .npz and pickle files that does not run their code.

The format of a file is recognised by its first bytes, not by its name. A pickle may
only contain the names by which NumPy arrays, torch tensors and plain types are pickled.
Functions of this module stand for those names, because the functions of the libraries
accept more than the libraries write.
"""

import os
import pickle
import re
import warnings
import zipfile
from _codecs import encode
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from brainhive_cli.core.base import Array, BrainhiveError, UInt8, first_line
from brainhive_cli.core.files import list_zip_members, refuse_inflation, report_damage

if TYPE_CHECKING:
    from torch import Tensor

ENDINGS = (".pt", ".pth", ".npy", ".npz")
PICKLE = "data.pkl"
"""Name of the pickle in an archive of torch."""
MAX_LISTS = 2**21
"""Largest number of nested lists, in which a repeated list counts each time."""
MAX_ITEMS = 2**26
"""Largest number of their items."""


class Refused(pickle.UnpicklingError):
    """A pickle has a name that plain data do not need."""


def load(path: Path, verify: bool = True, way_out: str = "fetch it again") -> Any:
    """Load tensors, arrays, plain types, and dicts and lists of them.

    Large arrays and tensors are memory-mapped, except arrays of an .npz.

    Args:
        path: A torch file (pickle protocols 2 to 5), an .npy, an .npz or a pickle.
        verify: If True, verify the checksums of tensors. Set it to False if a large
            file is opened often.
        way_out: Advice if the file is damaged.

    Raises:
        BrainhiveError: if the file is damaged, or has other Python objects, of which
            none is made.
    """
    with report_damage(path, way_out):
        try:
            return _load(path, verify)
        except Refused as error:
            # torch's safe loader knows more kinds of tensors
            if str(error).startswith("torch."):
                import torch

                # torch warns of every protocol but 2
                with (
                    suppress(pickle.UnpicklingError),
                    warnings.catch_warnings(action="ignore"),
                ):
                    return torch.load(
                        path,
                        map_location="cpu",
                        weights_only=True,
                        mmap=zipfile.is_zipfile(path),
                    )
            raise BrainhiveError(
                f"{path} has Python objects that could run code when they are read: "
                f"{first_line(error)}",
                "save it again as a dict of plain arrays and lists",
            ) from error


def to_array(value: Any) -> Array:
    """Convert a loaded value to an array.

    Args:
        value: An array, a dense tensor, or a nested list of numbers, strings or arrays.

    Raises:
        TypeError: if it is something else.
        ValueError: if the array would take far more memory than the value.
    """
    if isinstance(value, list | tuple):
        _require_size(value)
    if hasattr(value, "detach"):
        tensor = value.detach()
        # NumPy has no bfloat16
        is_bfloat16 = str(tensor.dtype) == "torch.bfloat16"
        return np.asarray(tensor.float() if is_bfloat16 else tensor)

    values: Array = np.asanyarray(value)
    if values.dtype.hasobject:
        for item in values.flat:
            if not isinstance(item, str | int | float | np.generic):
                raise TypeError("it has values that are neither numbers nor names")
    return values


def _require_size(values: Sequence[Any]) -> None:
    """Raise an error if an array of nested lists would fill the memory.

    A small pickle may repeat a list many times. Each text of an array takes as much
    memory as the longest.
    """
    pending = [values]
    n_lists = n_items = n_letters = longest = 0
    while pending:
        members = pending.pop()
        n_lists += 1
        n_items += len(members)
        if n_lists > MAX_LISTS or n_items > MAX_ITEMS:
            raise ValueError("its lists repeat too much")
        for member in members:
            if isinstance(member, str):
                n_letters += len(member)
                longest = max(longest, len(member))
            elif isinstance(member, list | tuple):
                pending.append(member)
    refuse_inflation(4 * longest * n_items, n_letters, "an array of its texts")


def _load(path: Path, verify: bool) -> Any:
    """Load a file of any format."""
    with path.open("rb") as file:
        magic = file.read(6)
    if magic[:2] == b"PK":
        return _load_zip(path, verify)
    if magic == b"\x93NUMPY":
        return _load_npy(path)
    content = Unpickler(MappedFile(path)).load()
    # Content of the first pickle in a torch file that is no
    # zip archive (torch.serialization.MAGIC_NUMBER).
    is_older_torch = isinstance(content, int) and content == 0x1950A86A20F9469CFC6C
    return _load_older_torch(path) if is_older_torch else content


def _load_zip(path: Path, verify: bool) -> Any:
    """Load the content of an archive of torch, or the arrays of an .npz by name.

    Args:
        path: The archive.
        verify: If True, verify the checksums of the tensors of torch.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = list_zip_members(archive)
        # all members of torch are in a single folder, which has any name
        names = [member.filename.partition("/")[2] for member in members]
        if PICKLE in names:
            starts = {}
            # Size of the blocks in which checksums are verified.
            verified_bytes = 2**20
            for name, member in zip(names, members, strict=True):
                if member.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{name} is compressed")
                with archive.open(member) as content:
                    starts[name] = file.tell()
                    # zipfile verifies the checksum of a member that is read to its end
                    while (verify or name == PICKLE) and content.read(verified_bytes):
                        pass
            # torch needs writable memory, here copied on write
            mapped_file = MappedFile(path, "c")
            mapped_file.seek(starts[PICKLE])
            return Unpickler(mapped_file, starts).load()

        # arrays of an .npz may be compressed
        n_bytes = sum(member.file_size for member in members)
        refuse_inflation(n_bytes, path.stat().st_size, "its arrays")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: _read_npz_array(arrays, name) for name in arrays.files}


def _load_npy(path: Path) -> Any:
    """Load an .npy: a mapped array, an array of objects, or the item of a 0-d array."""
    file = MappedFile(path)
    if _has_objects(file):
        content = Unpickler(file).load()
    else:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(content, np.ndarray) and content.shape == ():
        return content.item()
    return content


def _has_objects(file: Any) -> bool:
    """Read the header of an .npy. Return True if a pickle of an array follows it."""
    # only structured arrays need the later versions
    if np.lib.format.read_magic(file) != (1, 0):
        return False
    _, _, dtype = np.lib.format.read_array_header_1_0(file)
    return bool(dtype.hasobject)


def _read_npz_array(arrays: Any, name: str) -> Array:
    """Read an array of an .npz.

    An array of objects becomes strings if each object is a string, or a MATLAB cell of
    one string.
    """
    with arrays.zip.open(f"{name}.npy") as file:
        is_pickled = _has_objects(file)
        values: Array = Unpickler(file).load() if is_pickled else arrays[name]
    if not is_pickled:
        return values
    cells = [np.asarray(item) for item in values.flat]
    if all(cell.dtype.kind == "U" and cell.size == 1 for cell in cells):
        return np.array([cell.item() for cell in cells])
    return values


def _load_older_torch(path: Path) -> Any:
    """Load a torch file that is no archive, as torch wrote it before version 1.6.

    Pickles of the magic number, the version, the machine, the content and the keys of
    its storages are followed by the storages in the order of their keys. A storage is
    the number of its values (int64), then the values.

    Source: torch.serialization._legacy_save.
    """
    file = MappedFile(path, "c")
    # sizes of storages are needed before their positions, so any bytes are mapped first
    first_pass = Unpickler(file, defaultdict(int))
    for _ in range(5):
        keys = first_pass.load()
    starts = {}
    stop = file.tell()
    # Size of the number of values before each storage of an older torch file.
    count_bytes = 8
    for key in keys:
        starts[f"data/{key}"] = stop + count_bytes
        stop += count_bytes + first_pass.storage_bytes[key]
    file.seek(0)
    second_pass = Unpickler(file, starts)
    for _ in range(4):
        content = second_pass.load()
    return content


def _rebuild_tensor(
    flat: "Tensor", start: int, shape: Sequence[int], stride: Sequence[int], *_: Any
) -> "Tensor":
    """Make a tensor from a flat tensor. torch raises an error beyond its end.

    Raises:
        ValueError: if it repeats numbers so often that a copy would fill the memory.
    """
    n_bytes = prod(shape) * flat.itemsize
    refuse_inflation(n_bytes, flat.nbytes, f"a tensor {list(shape)}")
    return flat.as_strided(tuple(shape), tuple(stride), start)


def _make_dtype(code: str, *_: Any) -> np.dtype[Any]:
    """Make the dtype of a code such as "f4". A state could make pointers of bytes."""
    if not re.fullmatch(
        r"b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)|[SU]\d+|O[48]?", code
    ):
        raise Refused(f"numpy.dtype {code!r}")
    return np.dtype(code)


def _make_array(
    content: bytes | UInt8,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    order: Any,
    axes: tuple[int, ...] | None = None,
) -> Array:
    """Make an array from bytes, as NumPy's `_frombuffer`.

    NumPy raises an error if the dtype is of objects, which are pointers.
    """
    if isinstance(content, np.ndarray):
        flat: Array = content.view(dtype)
    else:
        flat = np.frombuffer(content, dtype)
    # an array with permuted axes is pickled in the order of the memory
    if axes is not None:
        return flat.reshape(shape).transpose(axes)
    return flat.reshape(shape, order=order)


PLAIN_NAMES: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    # protocols 0 to 2 write bytes as text, and empty bytes as a call without arguments
    "_codecs.encode": encode,
    "builtins.bytes": lambda: b"",
    "__builtin__.bytes": lambda: b"",
    "numpy.ndarray": None,  # is only an argument
    "numpy.dtype": _make_dtype,
    # `load_build` replaces the array when its state is read
    "numpy.core.multiarray._reconstruct": lambda *_: np.empty(0),
    "numpy.core.multiarray.scalar": lambda dtype, content: _make_array(
        content, dtype, (1,), "C"
    )[0],
    "numpy.core.numeric._frombuffer": _make_array,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    # dtypes of storages
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
"""Values that stand for the names in a pickle, with the names of NumPy 1."""


class MappedFile:
    """File of which large parts are read as arrays that stay on disk.

    Args:
        path: The file.
        mode: "r", or "c" for arrays that are writable, and copied when written.

    Attributes:
        content: Bytes [n] of the file.
    """

    def __init__(self, path: Path, mode: Literal["r", "c"] = "r") -> None:
        self.content: UInt8 = np.memmap(path, np.uint8, mode)

    def __getattr__(self, name: str) -> Any:
        """Return a method of the mapping, such as `tell`."""
        return getattr(self.content.base, name)

    def read(self, count: int) -> bytes | UInt8:
        """Read `count` bytes, as an array if they are many."""
        # small reads of the mapping are faster than slices of the array
        # Smallest size of bytes that are mapped, not copied. pickle writes bytes of
        # this size outside of its frames.
        min_mapped_bytes = 2**16
        if count < min_mapped_bytes:
            return bytes(self.content.base.read(count))  # type: ignore[union-attr]
        start = self.tell()
        self.seek(count, os.SEEK_CUR)  # an error beyond the end
        return self.content[start : start + count]


class Unpickler(pickle._Unpickler):
    """Reader of pickles, which does not copy the large arrays of a mapped file.

    It extends the Python version of pickle's reader. The C version would copy them, and
    give any state to NumPy's dtypes.

    Args:
        file: The file, at the start of the pickle.
        starts: Position in a mapped file of each storage of tensors, as in "data/0".

    Attributes:
        storage_bytes: Size of each storage that was mapped, by its key.
    """

    stack: list[Any]
    memo: dict[int, Any]

    def __init__(self, file: Any, starts: Mapping[str, int] | None = None) -> None:
        self._file = file
        self._starts = starts
        self.storage_bytes: dict[str, int] = {}
        super().__init__(file)

    def find_class(self, module: str, name: str) -> Any:
        """Return the value that stands for a name in the pickle.

        Raises:
            Refused: if plain data do not need the name.
        """
        full_name = f"{module}.{name}"
        try:
            return PLAIN_NAMES[full_name.replace("numpy._core.", "numpy.core.")]
        except KeyError:
            raise Refused(full_name) from None

    def persistent_load(self, pid: Any) -> "Tensor":
        """Map a storage of numbers as a flat tensor.

        Args:
            pid: Text "storage", dtype, key, device and number of values. In older files
                also the part of another storage, or None.
        """
        import torch

        _, dtype_name, key, _, count, *view = pid
        if self._starts is None or any(view):
            raise Refused("torch.storage that is a part of another")
        dtype = getattr(torch, dtype_name)
        self.storage_bytes[key] = count * dtype.itemsize
        # torch.frombuffer refuses an empty buffer
        if not count:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(
            self._file.content,
            dtype=dtype,
            count=count,
            offset=self._starts[f"data/{key}"],
        )

    def load_build(self) -> None:
        """Set the state of an array or a dtype. Attributes of dicts are ignored."""
        state = self.stack.pop()
        unfinished = self.stack[-1]
        if type(unfinished) is OrderedDict:
            return
        finished: Any
        if isinstance(unfinished, np.dtype):
            _, order, *structure = state[:5]
            if any(value is not None for value in structure):
                raise Refused("numpy.dtype of a structure")
            finished = unfinished.newbyteorder(order)
        elif isinstance(unfinished, np.ndarray):
            # newer pickles have a version before these four values
            shape, dtype, is_fortran, content = state[-4:]
            if isinstance(content, list):
                flat = np.fromiter(content, object, len(content))
                finished = flat.reshape(shape)
            else:
                order = "F" if is_fortran else "C"
                finished = _make_array(content, dtype, shape, order)
        else:
            raise Refused(f"state of {type(unfinished).__name__}")

        # replace it in the memo, to which the pickle may refer later
        self.stack[-1] = finished
        for number in reversed(self.memo):
            if self.memo[number] is unfinished:
                self.memo[number] = finished
                return

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    dispatch[pickle.BUILD[0]] = load_build
    # read byte arrays as bytes, which are not copied
    dispatch[pickle.BYTEARRAY8[0]] = dispatch[pickle.BINBYTES8[0]]
