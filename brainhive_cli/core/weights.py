"""Files of weights, of checkpoints and of the results of cells.

The files may come from this project or from others. No code in a file is run. A cell is
a part of a run that is computed separately, such as the model of one subject and seed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from safetensors import safe_open

from brainhive_cli.core import archives, console, documents, foreign_code
from brainhive_cli.core.arrays import Array
from brainhive_cli.core.damage import is_machine_error
from brainhive_cli.core.documents import DOWNLOAD_HINT
from brainhive_cli.core.errors import BrainhiveError, MissingData, raise_if_interrupted
from brainhive_cli.core.files import atomic_write, is_file
from brainhive_cli.core.launch import Launch, find_failed_import

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

OTHER_MODEL_HINT = "these weights are for another model, or of another size"
DIGEST_KEY = "digest"
"""Key in the metadata of a safetensors file, under which `save` stores a digest of the
names, dtypes, shapes and bytes of the tensors.
"""
DIGEST_FORMAT = re.compile("[0-9a-f]{32}")
"""Format of our digests. Other programs may store other values under the same key."""
NUMPY_DTYPES = {
    "F64",
    "F32",
    "F16",
    "I64",
    "I32",
    "I16",
    "I8",
    "U64",
    "U32",
    "U16",
    "U8",
    "BOOL",
}
"""Dtypes of safetensors that NumPy also has."""
ZIP_START, PICKLE_START = b"PK\x03\x04", b"\x80"
"""First bytes of a file that torch.save wrote: a zip, or a pickle before torch 1.6."""
WRAPPER_KEYS = ("teacher", "model", "state_dict", "model_state_dict")
"""Keys under which training programs store the weights. Examples are DINO, SynCLR,
DreamSim's CLIPs and MindEye1.
"""
COMPILE_PREFIX, PARALLEL_PREFIX = re.compile(r"(?:^|(?<=\.))_orig_mod\."), "module."
"""Prefixes that wrappers add to names of weights. torch.compile adds its prefix to any
part of a name, DataParallel to the start of all names.
"""
MAX_REASON_CHARACTERS = 200
"""Largest number of characters of a library's error that a message shows. Errors of
torch may fill a page.
"""
RETRAIN_HINT = "delete it: the same command then trains from the beginning"
"""Hint for an intact checkpoint of another training."""


def read(
    path: Path, hint: str = DOWNLOAD_HINT, error: type[BrainhiveError] = MissingData
) -> dict[str, Tensor]:
    """Read the tensors of a file that safetensors or torch.save wrote.

    The first bytes of the file decide its format. No code in the file is run.

    Args:
        path: File.
        hint: Advice for the user if the file is damaged.
        error: Class of the error if the file is damaged.

    Returns:
        Tensors on the CPU, keyed by name. Other values of a checkpoint are left out.

    Raises:
        MissingData: if the file does not exist.
        BrainhiveError: if the file is cut short, differs from its digest, or has
            another format. The class is `error`.
    """
    from safetensors.torch import load_file
    from torch import Tensor

    with reading(path, hint, error, files=(path,)):
        if not _is_torch(path):
            return _strip_wrappers(load_file(path))

        # training programs store the weights under one or two keys
        content = _unwrap(_load(path, "cpu"))
        tensors = {}
        for name, value in content.items():
            if isinstance(value, Tensor):
                tensors[str(name)] = value.detach()
        return _strip_wrappers(tensors)


def read_arrays(
    path: Path, hint: str = DOWNLOAD_HINT, error: type[BrainhiveError] = MissingData
) -> dict[str, Array]:
    """Read the arrays of a safetensors file without torch.

    Args:
        path: File.
        hint: Advice for the user if the file is damaged.
        error: Class of the error if the file is damaged.

    Returns:
        Arrays, keyed by name.

    Raises:
        MissingData: if the file does not exist.
        BrainhiveError: if the file is damaged. The class is `error`.
    """
    with reading(path, hint, error, files=(path,)), safe_open(path, "np") as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}


def strip_wrapper_names(names: Iterable[str]) -> dict[str, str]:
    """Strip the prefixes that torch.compile and DataParallel add to names of weights.

    Args:
        names: Names of the weights in a file.

    Returns:
        Stripped names, keyed by the names in the file.

    Raises:
        ValueError: if two weights get the same name.
    """
    stripped = {name: COMPILE_PREFIX.sub("", name) for name in names}
    while stripped and all(
        short_name.startswith(PARALLEL_PREFIX) for short_name in stripped.values()
    ):
        for name, short_name in stripped.items():
            stripped[name] = short_name.removeprefix(PARALLEL_PREFIX)
    if len(set(stripped.values())) < len(stripped):
        raise ValueError("it has two weights whose names differ only by `_orig_mod.`")
    return stripped


def _strip_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Key tensors by their names without the prefixes of wrappers."""
    names = strip_wrapper_names(tensors)
    return {short_name: tensors[name] for name, short_name in names.items()}


def list_names(path: Path) -> list[str]:
    """List the names of the weights in a file, without reading the weights."""
    if _is_torch(path):
        content = _unwrap(_load(path, "meta"))
        return [str(name) for name in content]
    with safe_open(path, "np") as file:
        return list(file.keys())


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read the tensors and plain values of a training, which torch.save wrote.

    Args:
        path: Checkpoint.
        device: Device of the tensors.

    Raises:
        MissingData: if the file does not exist.
        BrainhiveError: if the file is damaged.
    """
    hint = "training continues from the checkpoint before, or from the beginning"
    with reading(path, hint, BrainhiveError, files=(path,)):
        content = _load(path, device)
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}")
        return content


@dataclass(frozen=True)
class Checkpoint:
    """The newest checkpoint of a training, and the checkpoint before it.

    Attributes:
        path: File of the newest checkpoint.
    """

    path: Path

    @property
    def previous(self) -> Path:
        """File of the checkpoint before the newest, in the same folder."""
        return self.path.with_name(f"{self.path.name}.previous")

    def save(self, content: Mapping[str, Any]) -> None:
        """Save a new checkpoint, and keep the newest checkpoint as the previous one.

        Args:
            content: Tensors and plain values of the training.

        Raises:
            OSError: if the disk is full. Both checkpoints are then as before.
        """
        import torch

        # torch writes to memory first, so that a full disk changes no file
        checkpoint_bytes = serialise(partial(torch.save, dict(content)))
        with atomic_write(self.path) as temporary:
            temporary.write_bytes(checkpoint_bytes)
            with suppress(FileNotFoundError):  # this is the first checkpoint
                os.replace(self.path, self.previous)

    def load(
        self, launch: Launch, device: torch.device | str = "cpu"
    ) -> dict[str, Any] | None:
        """Read the newest checkpoint that is not damaged, in every process.

        Damaged checkpoints are renamed, with a warning.

        Args:
            launch: Processes that share the training.
            device: Device of the tensors.

        Returns:
            Content of the checkpoint, or None if there is no intact checkpoint.
        """
        # the main process renames damaged files before the others look
        return launch.run_main_first(partial(self._load, device))

    def _load(self, device: torch.device | str) -> dict[str, Any] | None:
        """Read the newest checkpoint that is not damaged, and rename damaged ones."""
        for path in (self.path, self.previous):
            if not path.is_file():
                continue
            try:
                return read_checkpoint(path, device)
            except BrainhiveError as error:
                # a library may turn Ctrl-C into an error, without any damage
                raise_if_interrupted()
                damaged_path = path.with_name(f"{path.name}.damaged")
                os.replace(path, damaged_path)
                console.warn(f"{error.in_one_line}; it is kept as {damaged_path.name}")
        return None

    def remove(self) -> None:
        """Remove both checkpoints, which a finished training no longer needs."""
        for path in (self.path, self.previous):
            path.unlink(missing_ok=True)


def verify(path: Path) -> None:
    """Verify the digests of a file without loading all tensors at the same time.

    Raises:
        MissingData: if the file does not exist, or is damaged.
    """
    with reading(path, files=(path,)):
        pass


def serialise(save: Callable[[io.BytesIO], object]) -> memoryview:
    """Return the bytes that a function of torch would write to a file.

    If a disk is full, torch's own writer ends the process with SIGABRT.

    Args:
        save: Function that writes to an open file.
    """
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getbuffer()


def save(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file with a digest, which `read` verifies.

    Any reader of safetensors can read the file. The same tensors give the same bytes.

    Args:
        path: File.
        tensors: Tensors, keyed by name.
        metadata: Further metadata.
    """
    from safetensors.torch import save_file

    state = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    all_metadata = {"format": "pt"}
    all_metadata.update(metadata or {})
    all_metadata[DIGEST_KEY] = _digest(state, state.__getitem__)

    # the library makes the file private, so the usual permissions are set afterwards
    path.touch()
    mode = path.stat().st_mode
    save_file(state, path, all_metadata)
    path.chmod(mode)

    # the library writes metadata in random order, so the header is written again with
    # sorted metadata and the same length
    with path.open("r+b") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(size))
        header["__metadata__"] = dict(sorted(all_metadata.items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
        stream.seek(8)
        stream.write(text.encode().ljust(size))


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file.

    Returns:
        Metadata. Empty if torch.save wrote the file.

    Raises:
        BrainhiveError: if the file is damaged.
    """
    if _is_torch(path):
        return {}
    with reading(path, error=BrainhiveError), safe_open(path, "np") as file:
        return file.metadata() or {}


def read_digest(path: Path) -> str:
    """Read the digest that `save` wrote, empty if another program wrote the file."""
    return read_metadata(path).get(DIGEST_KEY, "")


def find_unmatched(
    needed: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> list[str]:
    """List the weights of a network that a file does not have in the same shape.

    Args:
        needed: Weights of the network, keyed by name.
        state: Weights of the file, keyed by name.

    Returns:
        Names of the weights that are missing or have another shape.
    """
    unmatched = []
    for name in needed:
        if name not in state or state[name].shape != needed[name].shape:
            unmatched.append(name)
    return unmatched


def describe_match(unmatched: Iterable[str], count: int) -> str:
    """Describe how many weights of a network a file has, for errors.

    Args:
        unmatched: Names of the weights that are missing or have another shape.
        count: Number of weights of the network.
    """
    names = sorted(unmatched)
    first = f"; first missing {names[0]}" if names else ""
    return f"{count - len(names)} of {count} weights match by name and size{first}"


def fill(
    module: nn.Module,
    state: Mapping[str, Tensor],
    where: Path | str,
    hint: str = OTHER_MODEL_HINT,
    error: type[BrainhiveError] = BrainhiveError,
) -> None:
    """Load weights into a module after comparing names, shapes and kinds of numbers.

    A module on the meta device takes over the tensors, with their dtype.

    Args:
        module: Module.
        state: Weights, keyed by name.
        where: File or description of the weights, for the error.
        hint: Advice for the user if the weights do not fit.
        error: Class of the error.

    Raises:
        BrainhiveError: if a weight is missing, surplus, of another shape, or complex or
            integer instead of floating-point. The class is `error`. The error names the
            first such weight, and the number of weights that match.
    """
    needed = module.state_dict()
    for name in sorted(needed.keys() | state.keys()):
        shape = tuple(state[name].shape) if name in state else "none"
        needed_shape = tuple(needed[name].shape) if name in needed else "none"
        if shape != needed_shape:
            match = describe_match(find_unmatched(needed, state), len(needed))
            raise error(
                f"{where}: {name} has shape {shape}, {needed_shape} is needed; {match}",
                hint,
            )
        if state[name].is_floating_point() != needed[name].is_floating_point():
            raise error(
                f"{where}: {name} is of {state[name].dtype}, {needed[name].dtype} is "
                "needed",
                hint,
            )
    is_meta = any(parameter.is_meta for parameter in module.parameters())
    module.load_state_dict(state, assign=is_meta)


@contextmanager
def reading(
    where: Path | str,
    hint: str = DOWNLOAD_HINT,
    error: type[BrainhiveError] = MissingData,
    files: Iterable[Path] = (),
    problem: str = "is damaged or half-downloaded",
) -> Iterator[None]:
    """Turn errors of libraries inside a `with` block into a short error about a file.

    Errors of the disk, of a library that cannot be imported and of a user's code are
    not changed.

    Args:
        where: File or description of the weights, for the error.
        hint: Advice for the user if the file is damaged.
        error: Class of the error if the file is damaged.
        files: Files of weights whose digests are verified before the block.
        problem: Description of the damage.

    Raises:
        MissingData: if one of `files` does not exist.
        BrainhiveError: if the file is damaged. The class is `error`.
    """
    try:
        for path in files:
            _verify(path, hint)
        yield
    except BrainhiveError:
        raise
    except Exception as reason:
        # the file is intact if the machine, a library or a user's code failed
        if (
            is_machine_error(reason)
            or find_failed_import(reason)
            or foreign_code.describe_user_error(reason)
        ):
            raise

        # the reason in one line
        text = " ".join(str(reason).split()).rpartition("WeightsUnpickler error: ")[2]
        refused_object = re.search(r"GLOBAL (\S+) was not", text)
        if refused_object:
            text = (
                f"it contains {refused_object[1]}, but only tensors and plain values "
                "are read, because code in a file is not run"
            )
        elif len(text) > MAX_REASON_CHARACTERS:
            text = f"{text[:MAX_REASON_CHARACTERS]}…"
        raise error(
            f"{where} {problem}: {text or type(reason).__name__}", hint
        ) from reason


def _unwrap(content: Any) -> Any:
    """Return the weights in the content of a checkpoint of a training program."""
    for key in WRAPPER_KEYS:
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}, not tensors by name")
        content = content.get(key, content)
    return content


def _verify(path: Path, hint: str) -> None:
    """Raise an error if a file of weights does not exist, or differs from its digest.

    Args:
        path: File.
        hint: Advice for the user if the file does not exist.

    Raises:
        MissingData: if the file does not exist.
        ValueError: if the file differs from its digest.
    """
    if not is_file(path):
        raise MissingData(f"there is no file {path}", hint)
    if _is_torch(path):
        if not zipfile.is_zipfile(path):
            return

        # every record of an archive has a CRC32, which torch does not compare
        with zipfile.ZipFile(path) as archive:
            archives.list_zip_members(archive)
            changed_record = archive.testzip()
            if changed_record:
                raise ValueError(f"the record {changed_record} was changed")
        return

    # our own safetensors files have a digest
    with safe_open(path, _choose_framework(path)) as file:
        stored_digest = (file.metadata() or {}).get(DIGEST_KEY, "")
        if not DIGEST_FORMAT.fullmatch(stored_digest):
            return
        if stored_digest != _digest(file.keys(), file.get_tensor):
            raise ValueError("its content differs from its digest")


def _choose_framework(path: Path) -> str:
    """Choose the library that reads a safetensors file.

    Returns:
        "np" if NumPy has the dtypes of all tensors, because NumPy is loaded already.
        "pt" (torch) otherwise.
    """
    with safe_open(path, "np") as file:
        names = file.keys()
        dtypes = {file.get_slice(name).get_dtype() for name in names}
    return "np" if dtypes <= NUMPY_DTYPES else "pt"


def _digest(names: Iterable[str], get_tensor: Callable[[str], Any]) -> str:
    """Compute the digest of names, dtypes, shapes and bytes of tensors.

    The tensors are read one after another, so that only one is in memory.

    Args:
        names: Names of the tensors.
        get_tensor: Function that returns the array or tensor of a name.

    Returns:
        xxh3 digest of 32 hexadecimal digits.
    """
    digest = xxhash.xxh3_128()
    for name in sorted(names):
        value = get_tensor(name)
        is_array = isinstance(value, np.ndarray)
        dtype = f"torch.{value.dtype}" if is_array else value.dtype
        digest.update(f"{name} {dtype} {list(value.shape)}\n".encode())
        if 0 in value.shape:
            continue
        flat = value.reshape(-1)
        if not is_array:
            import torch

            flat = flat.view(torch.uint8).numpy()
        digest.update(flat.view(np.uint8).data)
    return digest.hexdigest()


def _is_torch(path: Path) -> bool:
    """Return True if torch.save wrote a file. Otherwise it should be safetensors.

    A safetensors file begins with 8 bytes of a length, which may look like a pickle,
    and then a brace.
    """
    with path.open("rb") as stream:
        start = stream.read(9)
    return start.startswith((ZIP_START, PICKLE_START)) and start[8:] != b"{"


def _load(path: Path, device: torch.device | str) -> Any:
    """Load a file that torch.save wrote, without running code from it.

    An archive is mapped into memory, so that no tensor can reach beyond the file. Files
    from before torch 1.6 cannot be mapped.

    Args:
        path: File.
        device: Device of the tensors.
    """
    import torch

    # the checkpoints of DINO hold its command line
    safe_classes = [argparse.Namespace, *_SCHEDULE_STUBS]
    is_allowed = torch.serialization.safe_globals(safe_classes)
    with is_allowed, warnings.catch_warnings(action="ignore"):
        return torch.load(
            path, weights_only=True, map_location=device, mmap=zipfile.is_zipfile(path)
        )


def _ignore_call(*arguments: Any) -> None:
    """Do nothing, in place of a function that a checkpoint names."""


_SCHEDULE_STUBS: Any = [
    (_ignore_call, "builtins.getattr"),
    (_ignore_call, "__builtin__.getattr"),
    (_ignore_call, "torch.optim.lr_scheduler.OneCycleLR"),
]
"""Replacements of the names in the state of a OneCycleLR. Checkpoints from before torch
2.1 hold such a state, for example the checkpoints of MindEye1.
"""


def save_cell(path: Path, content: Any) -> None:
    """Write the result of a cell to one file.

    Arrays are stored as tensors. Everything else is stored as JSON in the header, which
    refers to the tensors.

    Args:
        path: File.
        content: Dataclasses, mappings, lists, tuples, arrays and plain values.
    """
    import torch

    # an array is named by its number, in the order in which `encode` meets the arrays
    arrays: dict[str, Tensor] = {}

    def encode(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            # torch warns about read-only arrays and refuses negative strides, so the
            # array is copied
            name = str(len(arrays))
            arrays[name] = torch.from_numpy(np.array(value))
            return {"array": name}
        if is_dataclass(value):
            encoded_fields = {}
            for item in fields(value):
                encoded_fields[item.name] = encode(getattr(value, item.name))
            return {"type": type(value).__name__, "fields": encoded_fields}
        if isinstance(value, Mapping):
            # keys may be numbers, which JSON objects do not allow
            pairs = [[encode(key), encode(item)] for key, item in value.items()]
            return {"items": pairs}
        if isinstance(value, list | tuple):
            # JSON has no tuples, so the type is stored with the items
            return {type(value).__name__: [encode(item) for item in value]}
        return value.item() if isinstance(value, np.generic) else value

    text = json.dumps(encode(content))  # fills `arrays`
    save(path, arrays, {"measured": text})


def load_cell(path: Path, *types: type) -> Any:
    """Read the result of a cell, which `save_cell` wrote.

    Args:
        path: File.
        types: Classes of the dataclasses that the file holds.

    Raises:
        MissingData: if the file does not exist.
        BrainhiveError: if the file is damaged.
    """
    # only classes that the caller lists are created
    classes = {dataclass_type.__name__: dataclass_type for dataclass_type in types}

    def decode(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if "array" in value:
            return arrays[value["array"]].numpy()
        if "type" in value:
            arguments = {}
            for name, item in value["fields"].items():
                arguments[name] = decode(item)
            return classes[value["type"]](**arguments)
        if "items" in value:
            return {decode(key): decode(item) for key, item in value["items"]}
        if "tuple" in value:
            return tuple(map(decode, value["tuple"]))
        return [decode(item) for item in value["list"]]

    # a file whose content cannot be decoded is reported as damaged
    with reading(path, documents.DAMAGED_HINT, BrainhiveError):
        arrays = read(path)
        text = read_metadata(path)["measured"]
        return decode(documents.parse(text, str(path)))
