"""Other people's .pt, .npy and .npz files, read without running what is in them.

A file is what its first bytes say: a bare pickle may be called .npy, and an archive of
torch anything. The names by which NumPy's arrays and torch's tensors are pickled are a
short list, and stand for functions of this module where those of the libraries would
accept more than the libraries write. Long arrays and tensors are mapped where they lie
in the file.
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

from brainhive_cli.core.archives import list_zip_members
from brainhive_cli.core.arrays import Array, UInt8
from brainhive_cli.core.damage import refuse_inflation, report_damage
from brainhive_cli.core.errors import BrainhiveError, first_line

if TYPE_CHECKING:
    from torch import Tensor

ENDINGS = (".pt", ".pth", ".npy", ".npz")
HEADERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""What reads the header of an array, by the format's version; the third is of
structures only.
"""
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle in a file of torch that is no archive
(torch.serialization.MAGIC_NUMBER).
"""
PICKLE = "data.pkl"
"""The pickle in an archive of torch."""
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
"""Of torch's storages."""
LOCAL_HEADER = 30
"""Bytes of a zip member's header before its name; at 26 and 28 stand the lengths of
what follows.
"""
SEARCHED_BYTES = 2**16
"""Searched at a time for the end of a line."""
MIN_MAPPED_BYTES = 2**16
"""Bytes that are mapped rather than read; pickle itself keeps as many out of its
frames.
"""
DTYPE = re.compile(r"b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)|[SU]\d+|O[48]?")
ORDERS = ("<", ">", "|", "=")
MAX_LISTS, MAX_ITEMS = 2**21, 2**26
"""Lists in a list, and their items: a list may hold itself, or another many times."""


class Refused(pickle.UnpicklingError):
    """A name in a pickle that plain data do not need."""


def load(path: Path, verify: bool = True, way_out: str = "fetch it again") -> Any:
    """Read tensors, arrays and plain types, whatever dicts and lists they stand in.

    Long arrays are mapped where they lie in the file, in their own dtype; nothing of
    them is read, but for the checksums that archives have. Arrays of an .npz, and
    tensors of an older file of torch, are read.

    Args:
        path: An archive of torch (pickle protocols 2 to 5), an older file of torch, an
            .npy, an .npz or a bare pickle, whatever its name.
        verify: Verify the checksums of tensors; not where a large file is opened again
            and again.
        way_out: What to do where it is damaged.

    Raises:
        BrainhiveError: if it cannot be read, or holds anything else, before any of that
            is made.
    """
    with report_damage(path, way_out):
        try:
            return _load(path, verify)
        except Refused as error:
            raise BrainhiveError(
                f"{path} holds Python objects that could run code when read: "
                f"{first_line(error)}",
                "save it again as a dict of plain arrays and lists",
            ) from error


def array(value: Any) -> Array:
    """Turn a value that `load` returned into an array.

    Args:
        value: An array, a dense tensor, or a list of numbers, of strings, of arrays, or
            of lists of these.

    Raises:
        TypeError: if it is something else.
        ValueError: if it would take far more memory than it has.
    """
    if isinstance(value, list | tuple):
        _require_size(value)
    if hasattr(value, "detach"):
        value = value.detach()  # of bfloat16, which NumPy does not have
        return np.asarray(
            value.float() if str(value.dtype) == "torch.bfloat16" else value
        )

    values: Array = np.asanyarray(value)
    plain = str | int | float | np.generic
    if values.dtype.hasobject and not all(
        isinstance(item, plain) for item in values.flat
    ):
        raise TypeError("it holds values that are neither numbers nor names")
    return values


def _require_size(values: Sequence[Any]) -> None:
    """Refuse lists that repeat others too often, or hold a text of which an array of
    them all would fill the memory.
    """
    level = [values]
    lists = items = letters = longest = 0
    while level:
        lists += len(level)
        below = list[Sequence[Any]]()
        for members in level:
            items += len(members)
            if lists > MAX_LISTS or items > MAX_ITEMS:
                raise ValueError("its lists repeat too much")
            for member in members:
                if isinstance(member, str):
                    letters += len(member)
                    longest = max(longest, len(member))
                elif isinstance(member, list | tuple):
                    below.append(member)
        level = below
    refuse_inflation(4 * longest * items, letters, "an array of its texts")


def _load(path: Path, verify: bool) -> Any:
    with path.open("rb") as file:
        magic = file.read(6)

    # a zip: tensors of torch, or arrays of NumPy
    if magic[:2] == b"PK":
        with zipfile.ZipFile(path) as file:
            if any(name.partition("/")[2] == PICKLE for name in file.namelist()):
                members = {
                    member.filename.partition("/")[2]: member
                    for member in list_zip_members(file)
                }
                # torch wants what it may write to
                map_member = partial(
                    _map_member, np.memmap(path, np.uint8, "c"), members, verify
                )
                return _read_torch(path, Unpickler(map_member(PICKLE), map_member))
            # arrays of an .npz may be compressed, and are read into memory
            refuse_inflation(
                sum(member.file_size for member in file.infolist()),
                path.stat().st_size,
                "its arrays",
            )
        with np.load(path, allow_pickle=False) as arrays:
            return {name: _read_member(arrays, name) for name in arrays.files}

    # an array of numbers or names, or one of objects, which NumPy keeps as a pickle
    if magic == b"\x93NUMPY":
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

    # a bare pickle, or the first of an older file of torch
    return _read_torch(path, Unpickler(np.memmap(path, np.uint8, "r")))


def _read_member(arrays: Any, name: str) -> Array:
    """Read an array of an .npz; names in an array of objects, or in MATLAB's cells, as
    strings.
    """
    try:
        values: Array = arrays[name]
    except ValueError:
        # an array of objects is a pickle, which NumPy refuses to read
        with arrays.zip.open(f"{name}.npy") as file:
            HEADERS[np.lib.format.read_magic(file)](file)
            values = Unpickler(np.frombuffer(file.read(), np.uint8)).load()
        cells = [*map(np.asarray, values.flat)]
        if all(cell.dtype.kind == "U" and cell.size == 1 for cell in cells):
            values = np.array([cell.item() for cell in cells])
    return values


def _read_torch(path: Path, unpickler: "Unpickler") -> Any:
    """Read a pickle; by torch's own safe loader one with kinds of tensors that only it
    knows.
    """
    try:
        content = unpickler.load()
        if not isinstance(content, int) or content != TORCH_MAGIC:
            return content
        raise Refused("torch.storage")  # of an older file
    except Refused as error:
        if not str(error).startswith("torch."):
            raise
        refused = error

    import torch

    try:
        # weights_only: torch runs no code either
        # it doubts all protocols but the second
        with warnings.catch_warnings(action="ignore"):
            return torch.load(
                path,
                map_location="cpu",
                weights_only=True,
                mmap=zipfile.is_zipfile(path),
            )
    except pickle.UnpicklingError:
        raise refused from None


def _map_member(
    content: UInt8, members: Mapping[str, ZipInfo], verify: bool, name: str
) -> UInt8:
    """Map a member of an archive of torch where it lies, by its name below the
    archive's one folder.

    Args:
        content: The archive, mapped.
        members: Its members by name.
        verify: Whether the checksums of all are verified, which torch does not; the
            pickle's always is.
        name: Of the member.

    Raises:
        ValueError: if it is compressed, does not lie within the file, or does not match
            its checksum.
    """
    member = members[name]
    # the extra field of a local header may be longer or shorter than the zip
    # directory's
    header = content[member.header_offset :][:LOCAL_HEADER].tobytes()
    start = (
        member.header_offset + LOCAL_HEADER + sum(struct.unpack_from("<HH", header, 26))
    )
    part = content[start : start + member.file_size]
    if member.compress_type != zipfile.ZIP_STORED or len(part) < member.file_size:
        raise ValueError(f"{name} is compressed, or does not lie within the file")
    if (
        (verify or name == PICKLE)
        and member.CRC
        and zlib.crc32(part.data) != member.CRC
    ):
        raise ValueError(f"{name} does not match its checksum")
    return part


def _rebuild_tensor(
    flat: "Tensor", start: int, shape: Sequence[int], stride: Sequence[int], *_: Any
) -> "Tensor":
    """Shape a tensor from a flat one; torch holds that it lies within.

    Raises:
        ValueError: if it repeats its numbers so often that a copy would fill the
            memory.
    """
    refuse_inflation(
        prod(shape) * flat.itemsize, flat.nbytes, f"a tensor {list(shape)}"
    )
    return flat.as_strided(tuple(shape), tuple(stride), start)


def _dtype(code: str, *_: Any) -> np.dtype[Any]:
    if not DTYPE.fullmatch(code):
        raise Refused(f"numpy.dtype {code!r}")
    return np.dtype(code)


def _ordered(dtype: np.dtype[Any], state: tuple[Any, ...]) -> np.dtype[Any]:
    """Set the order of bytes, which is all that the state of a plain dtype says."""
    # NumPy's state: version, order, subarray, names and fields, …
    _, order, *structure = state[:5]
    if order not in ORDERS or any(part is not None for part in structure):
        raise Refused("numpy.dtype of a structure")
    return dtype.newbyteorder(order)


def _frombuffer(
    content: bytes | UInt8,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    order: Any,
    axes: tuple[int, ...] | None = None,
) -> Array:
    if dtype.hasobject:  # bytes are never taken for pointers
        raise Refused("numpy.dtype of objects over bytes")
    flat: Array = (
        content.view(dtype)
        if isinstance(content, np.ndarray)
        else np.frombuffer(content, dtype)
    )
    # an array with permuted axes, pickled as it lies in memory
    if order == "K" and axes is not None:
        return flat.reshape(shape).transpose(axes)
    return flat.reshape(shape, order=order)


def _array(state: tuple[Any, ...]) -> Array:
    """Make an array of the state that `ndarray.__reduce__` gives."""
    # a version stands before these four in newer pickles
    shape, dtype, is_fortran, content = state[-4:]
    if isinstance(content, list):
        return np.fromiter(content, object, len(content)).reshape(shape)
    return _frombuffer(content, dtype, shape, "F" if is_fortran else "C")


PLAIN: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": encode,  # of bytes, which protocols 0 to 2 write as text
    **dict.fromkeys(("builtins.bytes", "__builtin__.bytes"), lambda: b""),
    "numpy.ndarray": None,  # which is only ever an argument
    "numpy.dtype": _dtype,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    **{f"torch.{kind}Storage": dtype for kind, dtype in DTYPES.items()},
}
for core in ("numpy.core", "numpy._core"):  # as NumPy 1 and 2 call it
    # until its state is known
    PLAIN[f"{core}.multiarray._reconstruct"] = lambda *_: np.empty(0)
    PLAIN[f"{core}.multiarray.scalar"] = lambda dtype, content: _frombuffer(
        content, dtype, (1,), "C"
    )[0]
    PLAIN[f"{core}.numeric._frombuffer"] = _frombuffer


class Unpickler(pickle._Unpickler):
    """Reads one pickle from mapped bytes, of which long parts are not copied.

    The C class of the standard library would copy them, and give NumPy's dtypes any
    state.

    Args:
        content: [n] bytes, mapped.
        map_member: Maps a member of the archive of torch that the pickle stands in;
            None where it is in none.
    """

    stack: list[Any]
    memo: dict[int, Any]

    def __init__(
        self, content: UInt8, map_member: Callable[[str], UInt8] | None = None
    ) -> None:
        self._content = content
        self._start = 0
        self._map_member = map_member
        # this object is its own file; long bytes are arrays, which pickle takes too
        super().__init__(self)  # type: ignore[arg-type]

    def read(self, count: int) -> bytes | UInt8:
        """Read `count` bytes.

        Raises:
            EOFError: if there are not so many.
        """
        if count > len(self._content) - self._start:
            raise EOFError(
                f"{count} bytes needed of {len(self._content) - self._start}"
            )
        part = self._content[self._start : self._start + count]
        self._start += count
        return part if count >= MIN_MAPPED_BYTES else part.tobytes()

    def readline(self) -> bytes:
        """Read up to the end of the line, and with it."""
        line = b""
        while not line.endswith(b"\n") and self._start < len(self._content):
            following = self._content[
                self._start : self._start + SEARCHED_BYTES
            ].tobytes()
            part = following[: following.find(b"\n") + 1] or following
            line += part
            self._start += len(part)
        return line

    def find_class(self, module: str, name: str) -> Any:
        """Give what stands for a name.

        Raises:
            Refused: if plain data do not need it.
        """
        full_name = f"{module}.{name}"
        if full_name not in PLAIN:
            raise Refused(full_name)
        return PLAIN[full_name]

    def persistent_load(self, pid: Any) -> "Tensor":
        """Map a tensor's numbers, which lie outside of the pickle, as a flat tensor."""
        if self._map_member is None:
            raise Refused("torch.storage")
        import torch

        # its kind, what is stored, its member, its device, and how many
        _, dtype, key, _, count = pid
        kind = getattr(torch, dtype)
        # torch.frombuffer refuses an empty buffer
        if not count:
            return torch.empty(0, dtype=kind)
        return torch.frombuffer(
            self._map_member(f"data/{key}"), dtype=kind, count=count
        )

    def load_build(self) -> None:
        """Give an array or a dtype its state; attributes of dicts are passed over."""
        state = self.stack.pop()
        unfinished = self.stack[-1]
        if isinstance(unfinished, np.ndarray):
            finished: Any = _array(state)
        elif isinstance(unfinished, np.dtype):
            finished = _ordered(unfinished, state)
        elif type(unfinished) is OrderedDict:
            return
        else:
            raise Refused(f"state of {type(unfinished).__name__}")

        # the pickle may refer to it later, by its number
        self.stack[-1] = finished
        for number in reversed(self.memo):
            if self.memo[number] is unfinished:
                self.memo[number] = finished
                return

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: load_build,
        pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[
            pickle.BINBYTES8[0]
        ],  # as bytes, which are not copied
    }
