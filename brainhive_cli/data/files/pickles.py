"""Reader of .pt, .npy, .npz and pickle files that does not run their code.

The format of a file is recognised by its first bytes, not by its name. A pickle may
only contain the names by which NumPy arrays, torch tensors and plain types are pickled.
Functions of this module stand for those names, because the functions of the libraries
accept more than the libraries write.
"""

import pickle
import re
import struct
import warnings
import zipfile
import zlib
from _codecs import encode
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from zipfile import ZipInfo

import numpy as np

from brainhive_cli.core.base import Array, BrainhiveError, UInt8, first_line
from brainhive_cli.core.files import list_zip_members, refuse_inflation, report_damage

if TYPE_CHECKING:
    from torch import Tensor

ENDINGS = (".pt", ".pth", ".npy", ".npz")
HEADERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""Readers of the header of an .npy, keyed by the version of the format. Only structured
arrays have version 3.
"""
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""Content of the first pickle in a torch file that is no zip archive
(torch.serialization.MAGIC_NUMBER).
"""
PICKLE = "data.pkl"
"""Name of the pickle in an archive of torch."""
DTYPES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
}
"""Dtypes of torch's storages, by the start of their class names."""
COUNT_BYTES = 8
"""Size of the number of values before each storage of an older torch file."""
LOCAL_HEADER_BYTES = 30
"""Size of the header of a zip member before its name and its extra field."""
LENGTHS_OFFSET = 26
"""Offset in that header of the lengths of the name and the extra field."""
SEARCHED_BYTES = 2**16
"""Size of the blocks in which the end of a line is searched."""
MIN_MAPPED_BYTES = 2**16
"""Smallest size of bytes that are mapped, not copied. pickle writes bytes of this size
outside of its frames.
"""
DTYPE = re.compile(r"b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)|[SU]\d+|O[48]?")
ORDERS = ("<", ">", "|", "=")
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
    level = [values]
    n_lists = n_items = n_letters = longest = 0
    while level:
        n_lists += len(level)
        next_level = list[Sequence[Any]]()
        for members in level:
            n_items += len(members)
            if n_lists > MAX_LISTS or n_items > MAX_ITEMS:
                raise ValueError("its lists repeat too much")
            for member in members:
                if isinstance(member, str):
                    n_letters += len(member)
                    longest = max(longest, len(member))
                elif isinstance(member, list | tuple):
                    next_level.append(member)
        level = next_level
    refuse_inflation(4 * longest * n_items, n_letters, "an array of its texts")


def _load(path: Path, verify: bool) -> Any:
    """Load a file of any format."""
    with path.open("rb") as file:
        magic = file.read(6)
    if magic[:2] == b"PK":
        return _load_zip(path, verify)
    if magic == b"\x93NUMPY":
        return _load_npy(path)
    return _load_pickle(path, Unpickler(np.memmap(path, np.uint8, "r")))


def _load_zip(path: Path, verify: bool) -> Any:
    """Load the content of an archive of torch, or the arrays of an .npz by name.

    Args:
        path: The archive.
        verify: If True, verify the checksums of the tensors of torch.
    """
    with zipfile.ZipFile(path) as archive:
        # all members of torch are in a single folder, which has any name
        is_torch = any(name.partition("/")[2] == PICKLE for name in archive.namelist())
        if is_torch:
            members = {}
            for member in list_zip_members(archive):
                members[member.filename.partition("/")[2]] = member
            # torch needs writable memory, here copied on write
            content = np.memmap(path, np.uint8, "c")
            map_member = partial(_map_member, content, members, verify)
            return _load_pickle(path, Unpickler(map_member(PICKLE), map_member))

        # arrays of an .npz may be compressed
        n_bytes = sum(member.file_size for member in archive.infolist())
        refuse_inflation(n_bytes, path.stat().st_size, "its arrays")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: _read_npz_array(arrays, name) for name in arrays.files}


def _load_npy(path: Path) -> Any:
    """Load an .npy: a mapped array, an array of objects, or the item of a 0-d array."""
    with path.open("rb") as file:
        _, _, dtype = HEADERS[np.lib.format.read_magic(file)](file)
        start = file.tell()
    if dtype.hasobject:
        content = Unpickler(np.memmap(path, np.uint8, "r", start)).load()
    else:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(content, np.ndarray) and content.shape == ():
        return content.item()
    return content


def _read_npz_array(arrays: Any, name: str) -> Array:
    """Read an array of an .npz.

    An array of objects becomes strings if each object is a string, or a MATLAB cell of
    one string.
    """
    try:
        values: Array = arrays[name]
    except ValueError:
        # NumPy refuses to read an array of objects, which is a pickle
        with arrays.zip.open(f"{name}.npy") as file:
            HEADERS[np.lib.format.read_magic(file)](file)
            values = Unpickler(np.frombuffer(file.read(), np.uint8)).load()
        cells = [np.asarray(item) for item in values.flat]
        if all(cell.dtype.kind == "U" and cell.size == 1 for cell in cells):
            return np.array([cell.item() for cell in cells])
    return values


def _load_pickle(path: Path, unpickler: "Unpickler") -> Any:
    """Load a pickle, with torch's safe loader if it has kinds of tensors unknown here.

    Raises:
        Refused: if neither can load it.
    """
    try:
        content = unpickler.load()
        if not isinstance(content, int) or content != TORCH_MAGIC:
            return content
        return _load_older_torch(np.memmap(path, np.uint8, "c"))
    except Refused as error:
        if not str(error).startswith("torch."):
            raise
        refusal = error

    import torch

    try:
        # torch warns of every protocol but 2
        with warnings.catch_warnings(action="ignore"):
            return torch.load(
                path,
                map_location="cpu",
                weights_only=True,
                mmap=zipfile.is_zipfile(path),
            )
    except pickle.UnpicklingError:
        raise refusal from None


def _load_older_torch(content: UInt8) -> Any:
    """Load a torch file that is no archive, as torch wrote it before version 1.6.

    Pickles of the magic number, the version, the machine, the content and the keys of
    its storages are followed by the storages in the order of their keys. A storage is
    the number of its values (int64), then the values.

    Args:
        content: Mapped bytes of the file, which are copied on write.

    Source: torch.serialization._legacy_save.
    """
    # sizes of storages are needed before their positions, so any bytes are mapped first
    first_pass = Unpickler(content, lambda name: content)
    for _ in range(5):
        keys = first_pass.load()
    storages = {}
    start = first_pass.position
    for key in keys:
        start += COUNT_BYTES
        stop = start + first_pass.bytes_of_storage[key]
        storages[f"data/{key}"] = content[start:stop]
        start = stop
    second_pass = Unpickler(content, storages.__getitem__)
    for _ in range(4):
        values = second_pass.load()
    return values


def _map_member(
    content: UInt8, members: Mapping[str, ZipInfo], verify: bool, name: str
) -> UInt8:
    """Return the mapped bytes of a member of a torch archive.

    Args:
        content: The mapped archive.
        members: Members of the archive, keyed by their names below its folder.
        verify: If True, verify the checksum. The pickle is always verified.
        name: Key of the member.

    Raises:
        ValueError: if it is compressed, outside of the file, or does not match its
            checksum.
    """
    member = members[name]
    # the extra field may have another length here than in the zip directory
    header_end = member.header_offset + LOCAL_HEADER_BYTES
    header = content[member.header_offset : header_end].tobytes()
    name_bytes, extra_bytes = struct.unpack_from("<HH", header, LENGTHS_OFFSET)
    start = header_end + name_bytes + extra_bytes
    data = content[start : start + member.file_size]
    if member.compress_type != zipfile.ZIP_STORED or len(data) < member.file_size:
        raise ValueError(f"{name} is compressed, or is not wholly inside the file")
    is_verified = (verify or name == PICKLE) and member.CRC
    if is_verified and zlib.crc32(data.data) != member.CRC:
        raise ValueError(f"{name} does not match its checksum")
    return data


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
    """Make the dtype of a code such as "f4"."""
    if not DTYPE.fullmatch(code):
        raise Refused(f"numpy.dtype {code!r}")
    return np.dtype(code)


def _set_byte_order(dtype: np.dtype[Any], state: tuple[Any, ...]) -> np.dtype[Any]:
    """Set the byte order of a dtype from the state that NumPy pickles.

    The state is version, order, subarray, names and fields.
    """
    order = state[1]
    is_plain = all(value is None for value in state[2:5])
    if order not in ORDERS or not is_plain:
        raise Refused("numpy.dtype of a structure")
    return dtype.newbyteorder(order)


def _make_array(
    content: bytes | UInt8,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    order: Any,
    axes: tuple[int, ...] | None = None,
) -> Array:
    """Make an array from bytes, as NumPy's `_frombuffer`."""
    # bytes must never become pointers
    if dtype.hasobject:
        raise Refused("numpy.dtype of objects over bytes")
    if isinstance(content, np.ndarray):
        flat: Array = content.view(dtype)
    else:
        flat = np.frombuffer(content, dtype)
    # an array with permuted axes is pickled in the order of the memory
    if order == "K" and axes is not None:
        return flat.reshape(shape).transpose(axes)
    return flat.reshape(shape, order=order)


def _make_scalar(dtype: np.dtype[Any], content: bytes | UInt8) -> Any:
    """Make a NumPy scalar from bytes."""
    return _make_array(content, dtype, (1,), "C")[0]


def _set_array_state(state: tuple[Any, ...]) -> Array:
    """Make an array from the state that `ndarray.__reduce__` returns."""
    # newer pickles have a version before these four values
    shape, dtype, is_fortran, content = state[-4:]
    if isinstance(content, list):
        return np.fromiter(content, object, len(content)).reshape(shape)
    return _make_array(content, dtype, shape, "F" if is_fortran else "C")


def _make_bytes() -> bytes:
    """Make empty bytes, as protocols 0 to 2 write them."""
    return b""


def _make_unfinished_array(*_: Any) -> Array:
    """Make an array that `load_build` replaces when its state is read."""
    return np.empty(0)


PLAIN_NAMES: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": encode,  # makes bytes from text, in protocols 0 to 2
    "builtins.bytes": _make_bytes,
    "__builtin__.bytes": _make_bytes,
    "numpy.ndarray": None,  # is only an argument
    "numpy.dtype": _make_dtype,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
}
"""Values that stand for the names in a pickle."""
for _class_name, _dtype in DTYPES.items():
    PLAIN_NAMES[f"torch.{_class_name}Storage"] = _dtype
for _core in ("numpy.core", "numpy._core"):  # in NumPy 1 and 2
    PLAIN_NAMES[f"{_core}.multiarray._reconstruct"] = _make_unfinished_array
    PLAIN_NAMES[f"{_core}.multiarray.scalar"] = _make_scalar
    PLAIN_NAMES[f"{_core}.numeric._frombuffer"] = _make_array


class Unpickler(pickle._Unpickler):
    """Reader of pickles in mapped bytes, which does not copy large arrays.

    It extends the Python version of pickle's reader. The C version would copy them, and
    give any state to NumPy's dtypes.

    Args:
        content: Mapped bytes [n].
        map_member: Function that maps a member of the torch archive of the pickle, if
            it is in one.

    Attributes:
        position: Number of the bytes that were read.
        bytes_of_storage: Size in bytes of each storage of a tensor, by key.
    """

    stack: list[Any]
    memo: dict[int, Any]

    def __init__(
        self, content: UInt8, map_member: Callable[[str], UInt8] | None = None
    ) -> None:
        self._content = content
        # slices of a memoryview are faster than slices of a mapped array
        self._view = content.data
        self.position = 0
        self._map_member = map_member
        self.bytes_of_storage: dict[str, int] = {}
        # this object is the file that pickle reads, with arrays for large bytes
        super().__init__(self)  # type: ignore[arg-type]

    def read(self, count: int) -> bytes | UInt8:
        """Read `count` bytes, as an array if they are many.

        Raises:
            EOFError: if fewer bytes are left.
        """
        n_left = len(self._content) - self.position
        if count > n_left:
            raise EOFError(f"{count} bytes needed of {n_left}")
        start = self.position
        self.position += count
        if count >= MIN_MAPPED_BYTES:
            return self._content[start : self.position]
        return self._view[start : self.position].tobytes()

    def readline(self) -> bytes:
        """Read a line, with its end."""
        line = b""
        while not line.endswith(b"\n") and self.position < len(self._content):
            end = self.position + SEARCHED_BYTES
            block = self._content[self.position : end].tobytes()
            data = block[: block.find(b"\n") + 1] or block
            line += data
            self.position += len(data)
        return line

    def find_class(self, module: str, name: str) -> Any:
        """Return the value that stands for a name in the pickle.

        Raises:
            Refused: if plain data do not need the name.
        """
        full_name = f"{module}.{name}"
        if full_name not in PLAIN_NAMES:
            raise Refused(full_name)
        return PLAIN_NAMES[full_name]

    def persistent_load(self, pid: Any) -> "Tensor":
        """Map the numbers of a tensor, which are in another member, as a flat tensor.

        Args:
            pid: Text "storage", dtype, key of the member, device and number of values.
                In older files also the part of another storage, or None.
        """
        if self._map_member is None:
            raise Refused("torch.storage")
        import torch

        _, dtype_name, key, _, count, *view = pid
        if any(view):
            raise Refused("torch.storage that is a part of another")
        dtype = getattr(torch, dtype_name)
        self.bytes_of_storage[key] = count * dtype.itemsize
        # torch.frombuffer refuses an empty buffer
        if not count:
            return torch.empty(0, dtype=dtype)
        content = self._map_member(f"data/{key}")
        return torch.frombuffer(content, dtype=dtype, count=count)

    def load_build(self) -> None:
        """Set the state of an array or a dtype. Attributes of dicts are ignored."""
        state = self.stack.pop()
        unfinished = self.stack[-1]
        if isinstance(unfinished, np.ndarray):
            finished: Any = _set_array_state(state)
        elif isinstance(unfinished, np.dtype):
            finished = _set_byte_order(unfinished, state)
        elif type(unfinished) is OrderedDict:
            return
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
