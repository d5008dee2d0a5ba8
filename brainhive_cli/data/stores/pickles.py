"""Other people's .pt, .npy and .npz files, read without running what is in them.

What a file is, its first bytes say: a bare pickle may be called .npy, and an archive of torch anything. No
function or class of a library is ever called by a name in a pickle: the few names that NumPy's arrays and
torch's tensors are made by stand for functions of this module, which accept what these libraries write and no
more. Long arrays and tensors are mapped where they lie in the file.
"""

import pickle
import re
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from math import prod
from pathlib import Path
from struct import unpack
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from brainhive_cli.core import foreign_code
from brainhive_cli.core.archives import zip_members
from brainhive_cli.core.arrays import Array, UInt8
from brainhive_cli.core.damage import reading, refuse_inflation
from brainhive_cli.core.errors import BrainhiveError, first_line
from brainhive_cli.data.stores.hdf5 import NUMBERS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ENDINGS = (".pt", ".pth", ".npy", ".npz")
NPY = ".npy"
HEADERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""What reads the header of an array, by the format's version; the third is of structures only."""
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""What a file of torch begins with that is no archive (torch.serialization.MAGIC_NUMBER)."""
DTYPES = {
    **{"DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16"},
    **{"BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32"},
    **{"ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool"},
}
"""Of torch's storages."""
LOCAL_HEADER = 30
"""Bytes of a zip member's header before its name; at 26 and 28 stand the lengths of what follows."""
COUNT_BYTES = 8
"""Of the length that stands before the numbers of a storage in a file of torch that is no archive."""
SEARCHED_BYTES = 2**16
"""Searched at a time for the end of a line."""
MIN_MAPPED_BYTES = 2**16
"""Bytes that are mapped rather than read; pickle itself keeps as many out of its frames."""
DTYPE = re.compile(r"b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)|[SU]\d+|O[48]?")
ORDERS = ("<", ">", "|", "=")
KEYS = (str, bytes, int, float, type(None), np.generic)
"""What keys of dicts and members of sets may be: hashing nested tuples can take for ever."""
NDARRAY = object()
"""Stands for NumPy's class, which is only ever an argument."""


class Refused(pickle.UnpicklingError):
    """Something that plain data do not need."""


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
    with reading(path, "fetch it again"):
        try:
            return _load(path, verify)
        except Refused as error:
            if trust:
                foreign_code.require("trust_pickle", f"trust_pickle, as {path} holds objects,")
                return _run(path)
            problem = f"{path} holds Python objects that could run code when read: {first_line(error)}"
            raise HoldsObjects(problem, "save it again as a dict of plain arrays and lists") from error


def numbers(content: bytes, name: str) -> Array:
    """Read an .npy that is in memory and holds numbers.

    Args:
        content: The whole of it.
        name: What it is called, for the error.

    Raises:
        ValueError: if it holds anything else, or more than its header claims; or one of `damage.RAISED`.
    """
    stream = Stream(np.frombuffer(content, np.uint8))
    array = _read_npy(stream)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in NUMBERS or stream.at < len(content):
        raise ValueError(f"{name} does not hold the numbers that its header claims")
    return array


def array(value: Any) -> Array:
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
        for item in row if isinstance(row, list | tuple) else [row]:
            if not isinstance(item, np.ndarray | np.generic | int | float | str):
                raise TypeError(f"a {type(item).__name__} is neither numbers nor names")
    return np.asanyarray(value)


def _load(path: Path, verify: bool) -> Any:
    with path.open("rb") as file:
        magic = file.read(6)

    # a zip: tensors of torch, or arrays of NumPy
    if magic[:2] == b"PK":
        archive = _Archive(path)
        if archive.pickled:
            folder = archive.pickled.removesuffix("data.pkl")
            storages = _Storages(lambda key: archive.member(f"{folder}data/{key}", verify))
            return _or_torch(path, Unpickler(Stream(archive.member(archive.pickled)), storages).load)
        arrays = [name for name in archive.names if name.endswith(NPY)]
        if not arrays:
            raise ValueError("it holds neither tensors nor arrays")
        return {name.removesuffix(NPY): _read_npy(Stream(archive.member(name))) for name in arrays}

    # one array, or a pickle
    if magic == b"\x93NUMPY":
        content = _read_npy(Stream(np.memmap(path, np.uint8, "r")))
        return content.item() if isinstance(content, np.ndarray) and content.shape == () else content
    return _or_torch(path, lambda: _load_pickle(path))


def _read_npy(stream: "Stream") -> Any:
    """Map an array; one of objects, which NumPy keeps as a pickle, holds plain types or is refused."""
    version = np.lib.format.read_magic(stream)  # type: ignore[arg-type]
    shape, is_fortran, dtype = HEADERS[version](stream)
    if dtype.hasobject:
        return Unpickler(stream).load()
    content = stream.take(prod(shape) * dtype.itemsize)
    return content.view(dtype).reshape(shape, order="F" if is_fortran else "C")


def _load_pickle(path: Path) -> Any:
    """Read a bare pickle, or a file of torch that is no archive.

    That holds four pickles, the keys of the storages, then their numbers in turn. The content stands before
    the places of its storages are known, so it is read twice; meanwhile None stands for its tensors.
    """
    first = Unpickler(Stream(np.memmap(path, np.uint8, "r"))).load()
    if not isinstance(first, int) or first != TORCH_MAGIC:
        return first
    places: dict[str, UInt8] = {}
    stream = Stream(np.memmap(path, np.uint8, "c"))  # torch wants what it may change in memory
    storages = _Storages(places.get)
    for _ in ("magic", "protocol", "machine"):
        Unpickler(stream).load()
    start = stream.at
    Unpickler(stream, storages).load()
    for key in Unpickler(stream).load():
        count = int.from_bytes(stream.read(COUNT_BYTES), "little")
        places[key] = stream.take(count * storages.dtypes[key].itemsize)
    stream.at = start
    return Unpickler(stream, storages).load()


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


class Stream:
    """Bytes that are read like a file's, and never beyond their end.

    Args:
        content: [n] bytes, mapped or in memory.

    Attributes:
        at: How many of them were read.
    """

    def __init__(self, content: UInt8) -> None:
        self._content, self._bytes, self.at = content, content.data, 0

    def take(self, count: int) -> UInt8:
        """Go on by `count` bytes, and hand them out where they lie.

        Raises:
            EOFError: if there are not so many.
        """
        return self._content[self._next(count)]

    def read(self, count: int) -> bytes:
        """Read `count` bytes."""
        return self._bytes[self._next(count)].tobytes()

    def _next(self, count: int) -> slice:
        if not 0 <= count <= len(self._bytes) - self.at:
            raise EOFError(f"{count} bytes needed of {len(self._bytes) - self.at}")
        self.at += count
        return slice(self.at - count, self.at)

    def readline(self) -> bytes:
        """Read up to the end of the line, and with it."""
        line = b""
        while not line.endswith(b"\n") and self.at < len(self._bytes):
            chunk = self._bytes[self.at : self.at + SEARCHED_BYTES].tobytes()
            line += self.read(chunk.find(b"\n") + 1 or len(chunk))
        return line


class _Archive:
    """The members of a zip file, mapped where they lie.

    Attributes:
        names: Of its members.
        pickled: That of the pickle in an archive of torch; empty in others.
    """

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        members = zip_members(self._zip)
        self.names = [member.filename for member in members]
        pickled = (name for name in self.names if name.count("/") == 1 and name.endswith("/data.pkl"))
        self.pickled = next(pickled, "")
        self._content = np.memmap(path, np.uint8, "c" if self.pickled else "r")  # torch may write to its own
        refuse_inflation(sum(member.file_size for member in members), len(self._content), "its members")

    def member(self, name: str, verify: bool = True) -> UInt8:
        """Map a member, and verify its checksum (which torch does not); one that is compressed is read."""
        member = self._zip.getinfo(name)
        if member.compress_type != zipfile.ZIP_STORED:
            return np.frombuffer(bytearray(self._zip.read(name)), np.uint8)
        start = member.header_offset
        head = self._content[start : start + LOCAL_HEADER].tobytes()
        start += LOCAL_HEADER + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        if not 0 <= member.header_offset < start + member.file_size <= len(self._content):
            raise EOFError(f"{name} does not lie within the file")
        content = self._content[start : start + member.file_size]
        if verify and member.CRC and zlib.crc32(content.data) != member.CRC:
            raise ValueError(f"{name} does not match its checksum")
        return content


class _Storages:
    """The storages of a file of torch, as flat tensors, and the names that a pickle makes tensors by.

    Args:
        find: Gives the bytes of a storage by its key; None where its place is not known yet.

    Attributes:
        names: What stands for the names.
        dtypes: Of the storages that were named, by their keys.
    """

    def __init__(self, find: Callable[[str], UInt8 | None]) -> None:
        self._find = find
        self.names: dict[str, Any] = {f"torch.{kind}": dtype for kind, dtype in DTYPES.items()}
        self.names["torch._utils._rebuild_tensor_v2"] = _rebuild
        self.dtypes: dict[str, torch.dtype] = {}

    def open(
        self, what: str, dtype_name: str, key: str, location: str, count: int, view: Any = None
    ) -> "Tensor | None":
        """Map the `count` numbers of a storage as a flat tensor."""
        import torch

        if dtype_name not in DTYPES.values() or not isinstance(key, str) or view is not None:
            raise pickle.UnpicklingError(f"no plain storage: {dtype_name}, {view}")
        self.dtypes[key] = dtype = getattr(torch, dtype_name)
        if (content := self._find(key)) is None:
            return None
        numbers = Stream(content).take(count * dtype.itemsize)
        return torch.frombuffer(numbers, dtype=dtype) if count else torch.empty(0, dtype=dtype)


def _rebuild(
    flat: "Tensor | None", start: int, shape: Sequence[int], stride: Sequence[int], *_: Any
) -> "Tensor | None":
    """Shape a tensor from a flat one; torch holds that it lies within.

    Raises:
        ValueError: if it repeats its numbers so often that a copy would fill the memory.
    """
    if flat is None:
        return None
    refuse_inflation(prod(shape) * flat.itemsize, flat.nbytes, f"a tensor {list(shape)}")
    return flat.as_strided(tuple(shape), tuple(stride), start)


class _Array:
    """An array before its content is known."""

    def __init__(self, *_: Any) -> None: ...


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Make the bytes that protocols 0 to 2 write as text."""
    if encoding != "latin1":
        raise Refused(f"_codecs.encode to {encoding}")
    return text.encode("latin1")


def _checked(keys: Iterable[Any]) -> None:
    for key in keys:
        if not all(isinstance(part, KEYS) for part in (key if isinstance(key, tuple) else (key,))):
            raise Refused(f"a {type(key).__name__} as a key")


def _ordered_dict(pairs: Sequence[Sequence[Any]] = ()) -> OrderedDict[Any, Any]:
    _checked(pair[0] for pair in pairs)
    return OrderedDict(pairs)  # type: ignore[arg-type]


def _dtype(code: str, *_: Any) -> np.dtype[Any]:
    if not DTYPE.fullmatch(code):
        raise Refused(f"numpy.dtype {code!r}")
    return np.dtype(code)


def _ordered(dtype: np.dtype[Any], state: tuple[Any, ...]) -> np.dtype[Any]:
    """Set the order of bytes, which is all that the state of a plain dtype says."""
    _, order, *structure = state[:5]
    if order not in ORDERS or any(part is not None for part in structure):
        raise Refused("numpy.dtype of a structure")
    return dtype.newbyteorder(order)


def _frombuffer(
    content: bytes | bytearray | UInt8,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    order: Any,
    axes: tuple[int, ...] | None = None,
) -> Array:
    if dtype.hasobject:
        raise Refused("numpy.dtype of objects over bytes")
    flat: Array = content.view(dtype) if isinstance(content, np.ndarray) else np.frombuffer(content, dtype)
    if order == "K" and axes is not None:
        return flat.reshape(shape).transpose(axes)
    return flat.reshape(shape, order=order)


def _array(state: tuple[Any, ...]) -> Array:
    """Make an array of the state that `ndarray.__reduce__` gives."""
    shape, dtype, is_fortran, content = state[-4:]
    if not isinstance(content, list):
        return _frombuffer(content, dtype, shape, "F" if is_fortran else "C")
    return np.fromiter(content, object, len(content)).reshape(shape)


PLAIN: dict[str, Any] = {
    "collections.OrderedDict": _ordered_dict,
    "_codecs.encode": _encode,
    **dict.fromkeys(("builtins.bytes", "__builtin__.bytes"), lambda: b""),
    "numpy.ndarray": NDARRAY,
    "numpy.dtype": _dtype,
}
for core in ("numpy.core", "numpy._core"):  # as NumPy 1 and 2 call it
    PLAIN[f"{core}.multiarray._reconstruct"] = _Array
    PLAIN[f"{core}.multiarray.scalar"] = lambda dtype, content: _frombuffer(content, dtype, (1,), "C")[0]
    PLAIN[f"{core}.numeric._frombuffer"] = _frombuffer


HASHED = {
    **{"SETITEM": slice(-2, -1), "SETITEMS": slice(None, None, 2), "DICT": slice(None, None, 2)},
    **{"ADDITEMS": slice(None), "FROZENSET": slice(None)},
}
"""Opcodes that hash, and which entries of the stack (above the last mark) they do it with."""


class Unpickler(pickle._Unpickler):
    """Reads one pickle from a stream, and leaves the stream behind it.

    Args:
        stream: The bytes.
        storages: Where the tensors of a file of torch lie, and what they are made by; None where there are
            none.
    """

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch}
    stack: list[Any]
    memo: dict[int, Any]
    read: Callable[[int], bytes]
    append: Callable[[Any], None]
    _unframer: Any

    def __init__(self, stream: Stream, storages: "_Storages | None" = None) -> None:
        super().__init__(stream)
        self._stream, self._storages = stream, storages
        self._known = PLAIN if storages is None else {**PLAIN, **storages.names}

    def find_class(self, module: str, name: str) -> Any:
        """Give what stands for a name.

        Raises:
            Refused: if plain data do not need it.
        """
        full_name = f"{module}.{name}"
        if full_name not in self._known:
            raise Refused(full_name)
        return self._known[full_name]

    def persistent_load(self, pid: Any) -> Any:
        """Map a tensor's numbers, which lie outside of the pickle."""
        if self._storages is None:
            raise Refused("torch.storage")
        return self._storages.open(*pid)

    def load_long_bytes(self, size: str, kind: type[bytes] | type[bytearray]) -> None:
        """Take bytes; long ones stay where they are."""
        (count,) = unpack(size, self.read(8 if size == "<Q" else 4))
        if self._unframer.current_frame is None and count >= MIN_MAPPED_BYTES:
            self.append(self._stream.take(count))
        else:
            self.append(kind(self.read(count)))

    def load_build(self) -> None:
        """Give an array or a dtype its state; attributes of dicts are passed over."""
        state, unfinished = self.stack.pop(), self.stack[-1]
        if isinstance(unfinished, _Array):
            self._replace(unfinished, _array(state))
        elif isinstance(unfinished, np.dtype):
            self._replace(unfinished, _ordered(unfinished, state))
        elif type(unfinished) is not OrderedDict:
            raise Refused(f"state of {type(unfinished).__name__}")

    def _replace(self, unfinished: Any, whole: Any) -> None:
        """Replace an unfinished object by the finished one; it was memoized a few entries ago, if at all."""
        self.stack[-1] = whole
        for place in reversed(self.memo):
            if self.memo[place] is unfinished:
                self.memo[place] = whole
                return

    def load_refused(self) -> None:
        """Refuse other ways to make objects."""
        raise Refused("an instance of a class")

    def check_keys(self, keys: slice, then: Callable[["Unpickler"], None]) -> None:
        """Check keys on the stack before an opcode hashes them."""
        _checked(self.stack[keys])
        then(self)

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.BINBYTES[0]] = lambda self: self.load_long_bytes("<I", bytes)
    dispatch[pickle.BINBYTES8[0]] = lambda self: self.load_long_bytes("<Q", bytes)
    dispatch[pickle.BYTEARRAY8[0]] = lambda self: self.load_long_bytes("<Q", bytearray)
    for _opcode, _keys in HASHED.items():
        _load = dispatch[getattr(pickle, _opcode)[0]]
        dispatch[getattr(pickle, _opcode)[0]] = lambda self, k=_keys, then=_load: self.check_keys(k, then)
    for _opcode in "INST OBJ NEWOBJ NEWOBJ_EX EXT1 EXT2 EXT4 NEXT_BUFFER READONLY_BUFFER".split():
        dispatch[getattr(pickle, _opcode)[0]] = load_refused
