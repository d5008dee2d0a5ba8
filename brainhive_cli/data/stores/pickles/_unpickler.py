"""An unpickler of plain types and NumPy arrays that can make nothing else.

No function or class of a library is ever called by a name in the file: the few names that NumPy's arrays are
made by stand for functions of this module, which accept what NumPy writes and no more.
"""

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from struct import unpack
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.data.stores.pickles._stream import Stream

LONG = 2**16
"""Bytes that are mapped rather than read; pickle itself keeps as many out of its frames."""
DTYPE = re.compile(r"b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)|[SU]\d+|O[48]?")
ORDERS = ("<", ">", "|", "=")
KEYS = (str, bytes, int, float, type(None), np.generic)
"""What keys of dicts and members of sets may be: hashing nested tuples can take for ever."""
NDARRAY = object()
"""Stands for NumPy's class, which is only ever an argument."""


class Refused(pickle.UnpicklingError):
    """Something that plain data do not need."""


class Tensors(Protocol):
    """Where the tensors of a file lie.

    Attributes:
        names: What stands for the names that a pickle makes them by.
        open: Gives what stands for a storage.
    """

    names: dict[str, Any]

    @property
    def open(self) -> Callable[..., Any]: ...


class _Array:
    """An array before its content is known."""

    def __init__(self, *_: Any) -> None:
        pass


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


def _no_bytes() -> bytes:
    return b""


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
    content: bytes | bytearray | NDArray[np.uint8],
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    order: Any,
    axes: tuple[int, ...] | None = None,
) -> NDArray[Any]:
    if dtype.hasobject:
        raise Refused("numpy.dtype of objects over bytes")
    flat: NDArray[Any] = (
        content.view(dtype) if isinstance(content, np.ndarray) else np.frombuffer(content, dtype)
    )
    if order == "K" and axes is not None:
        return flat.reshape(shape).transpose(axes)
    return flat.reshape(shape, order=order)


def _array(state: tuple[Any, ...]) -> NDArray[Any]:
    """Make an array of the state that `ndarray.__reduce__` gives."""
    shape, dtype, is_fortran, content = state[-4:]
    if not isinstance(content, list):
        return _frombuffer(content, dtype, shape, "F" if is_fortran else "C")
    flat = np.empty(len(content), object)
    for place, value in enumerate(content):
        flat[place] = value
    return flat.reshape(shape)


def _scalar(dtype: np.dtype[Any], content: bytes) -> Any:
    return _frombuffer(content, dtype, (1,), "C")[0]


PLAIN: dict[str, Any] = {
    "collections.OrderedDict": _ordered_dict,
    "_codecs.encode": _encode,
    "builtins.bytes": _no_bytes,
    "__builtin__.bytes": _no_bytes,
    "numpy.ndarray": NDARRAY,
    "numpy.dtype": _dtype,
}
for core in ("numpy.core", "numpy._core"):  # as NumPy 1 and 2 call it
    PLAIN[f"{core}.multiarray._reconstruct"] = _Array
    PLAIN[f"{core}.multiarray.scalar"] = _scalar
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

    def __init__(self, stream: Stream, storages: "Tensors | None" = None) -> None:
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
        if self._unframer.current_frame is None and count >= LONG:
            self.append(self._stream.take(count))
        else:
            self.append(kind(self.read(count)))

    def load_build(self) -> None:
        """Give an array or a dtype its state; attributes of dicts are passed over."""
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, _Array):
            self._replace(made, _array(state))
        elif isinstance(made, np.dtype):
            self._replace(made, _ordered(made, state))
        elif type(made) is not OrderedDict:
            raise Refused(f"state of {type(made).__name__}")

    def _replace(self, made: Any, whole: Any) -> None:
        """Replace an unfinished object by the finished one; it was memoized a few entries ago, if at all."""
        self.stack[-1] = whole
        for place in reversed(self.memo):
            if self.memo[place] is made:
                self.memo[place] = whole
                return

    def load_refused(self) -> None:
        """Refuse other ways to make objects."""
        raise Refused("an instance of a class")

    def check_keys(self, found: slice, then: Callable[["Unpickler"], None]) -> None:
        """Check keys on the stack before an opcode hashes them."""
        _checked(self.stack[found])
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
