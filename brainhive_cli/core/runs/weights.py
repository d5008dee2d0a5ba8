"""Files of weights, of checkpoints and of the results of cells.

The files may come from strangers, so no code in a file is run. A cell is a part of a
run, such as one subject's model.
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

from brainhive_cli.core.base import (
    Array,
    BrainhiveError,
    MissingData,
    console,
    raise_if_interrupted,
)
from brainhive_cli.core.files import (
    DOWNLOAD_HINT,
    archives,
    atomic_write,
    documents,
    foreign_code,
    is_file,
    is_machine_error,
)
from brainhive_cli.core.runs.launch import Launch, find_failed_import

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

OTHER_MODEL_HINT = "these weights are for another model, or of another size"
"""Hint for weights whose names or shapes do not fit a network."""
DIGEST_KEY = "digest"
"""Key in the metadata of a safetensors file. The value is a digest that `save` computes
from the names, dtypes, shapes and bytes of the tensors.
"""
ZIP_START, PICKLE_START = b"PK\x03\x04", b"\x80"
"""First bytes of a file that torch.save wrote: a zip, or a pickle before torch 1.6."""
RETRAIN_HINT = "delete it: the same command then trains from the beginning"
"""Hint for an undamaged checkpoint that belongs to another training."""


def read(
    path: Path, hint: str = DOWNLOAD_HINT, error: type[BrainhiveError] = MissingData
) -> dict[str, Tensor]:
    """Read the tensors of a file that safetensors or torch.save wrote.

    Args:
        path: File. Its first bytes decide its format.
        hint: Advice in the error message.
        error: Class of the error for a damaged file.

    Returns:
        Tensors on the CPU, by name without the prefixes of torch.compile and
        DataParallel. Values that are not tensors are left out.

    Raises:
        MissingData: if the file does not exist.
        BrainhiveError: if the file is damaged or of another format, of class `error`.
    """
    from safetensors.torch import load_file
    from torch import Tensor

    with reading(path, hint, error, files=(path,)):
        if not _is_torch(path):
            return _strip_wrappers(load_file(path))

        content = _unwrap(_load(path, "cpu"))
        tensors = {}
        for name, value in content.items():
            if isinstance(value, Tensor):
                tensors[str(name)] = value.detach()
        return _strip_wrappers(tensors)


def read_arrays(
    path: Path, hint: str = DOWNLOAD_HINT, error: type[BrainhiveError] = MissingData
) -> dict[str, Array]:
    """Read the arrays of a safetensors file as NumPy arrays, without torch.

    Args:
        path: File.
        hint: Advice in the error message.
        error: Class of the error for a damaged file.

    Returns:
        NumPy arrays, keyed by name.

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
    # Pattern of the prefix that torch.compile adds to the name of a weight, or to a
    # later component of the name.
    compile_prefix = r"(?:^|(?<=\.))_orig_mod\."
    # a network may have a layer `module`, so all names must begin with this prefix. A
    # model may be wrapped several times
    stripped = {name: re.sub(compile_prefix, "", name) for name in names}
    # Prefix that DataParallel adds to the names of all weights.
    parallel_prefix = "module."
    while stripped and all(
        short_name.startswith(parallel_prefix) for short_name in stripped.values()
    ):
        for name, short_name in stripped.items():
            stripped[name] = short_name.removeprefix(parallel_prefix)

    if len(set(stripped.values())) < len(stripped):
        raise ValueError("it has two weights whose names differ only by `_orig_mod.`")
    return stripped


def _strip_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors keyed by their names without the prefixes of wrappers."""
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
    """Read a checkpoint that a training of Brainhive has written with torch.save.

    Args:
        path: File of the checkpoint.
        device: Device to load the tensors on.

    Returns:
        Tensors and plain values, under the keys with which the training stored them.

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
    """The newest checkpoint of a training, and the previous checkpoint.

    Attributes:
        path: File of the newest checkpoint.
    """

    path: Path

    @property
    def previous(self) -> Path:
        """File of the previous checkpoint, which is read if the newest is damaged."""
        return self.path.with_name(f"{self.path.name}.previous")

    def save(self, content: Mapping[str, Any]) -> None:
        """Save the newest checkpoint, and keep the earlier file as `self.previous`.

        Args:
            content: Tensors and plain values of the training, keyed by name.

        Raises:
            OSError: if the disk is full. Both files then stay unchanged.
        """
        import torch

        checkpoint_bytes = serialise(partial(torch.save, dict(content)))
        with atomic_write(self.path) as temporary:
            temporary.write_bytes(checkpoint_bytes)
            # the first checkpoint of a training has no earlier file
            with suppress(FileNotFoundError):
                os.replace(self.path, self.previous)

    def load(
        self, launch: Launch, device: torch.device | str = "cpu"
    ) -> dict[str, Any] | None:
        """Read the newest undamaged checkpoint, in every process.

        Damaged files are renamed, and a warning names them.

        Args:
            launch: Processes that share the training.
            device: Device to load the tensors on.

        Returns:
            Tensors and plain values by name, or None without an undamaged checkpoint.
        """
        # the main process renames the damaged files before the others read
        return launch.run_main_first(partial(self._load, device))

    def _load(self, device: torch.device | str) -> dict[str, Any] | None:
        """Read the newest undamaged checkpoint, and rename damaged checkpoints."""
        for path in (self.path, self.previous):
            if not path.is_file():
                continue
            try:
                return read_checkpoint(path, device)
            except BrainhiveError as error:
                # a library may turn Ctrl-C into an error although the file is intact
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
    """Compare a file of weights with its digest, if it has a digest.

    Raises:
        MissingData: if the file does not exist, or is damaged.
    """
    with reading(path, files=(path,)):
        pass


def serialise(save: Callable[[io.BytesIO], object]) -> memoryview:
    """Return the bytes that a function of torch would write to a file.

    Torch itself ends the process with SIGABRT when it writes to a full disk.

    Args:
        save: Function that takes an open file and writes to it, such as `torch.save`.
    """
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getbuffer()


def save(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors and their digest to a safetensors file.

    The same tensors and metadata always give the same bytes.

    Args:
        path: File.
        tensors: Tensors, keyed by name.
        metadata: Texts for the header of the file, keyed by name.
    """
    from safetensors.torch import save_file

    state = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    all_metadata = {"format": "pt"}
    all_metadata.update(metadata or {})
    all_metadata[DIGEST_KEY] = _digest(state, state.__getitem__)

    # safetensors lets only the owner read the file, so take the mode of an empty file
    path.touch()
    mode = path.stat().st_mode
    save_file(state, path, all_metadata)
    path.chmod(mode)

    # Sort the metadata, which safetensors writes in random order. The header is a
    # length in 8 bytes, and JSON that is padded with spaces.
    with path.open("r+b") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(size))
        header["__metadata__"] = dict(sorted(all_metadata.items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
        stream.seek(8)
        stream.write(text.encode().ljust(size))


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata in the header of a safetensors file.

    Returns:
        Texts, keyed by name. Empty if torch.save wrote the file.

    Raises:
        BrainhiveError: if the file is damaged.
    """
    if _is_torch(path):
        return {}
    with reading(path, error=BrainhiveError), safe_open(path, "np") as file:
        return file.metadata() or {}


def read_digest(path: Path) -> str:
    """Read the digest that `save` wrote, or "" if another program wrote the file."""
    return read_metadata(path).get(DIGEST_KEY, "")


def find_unmatched(
    network_weights: Mapping[str, Tensor], file_weights: Mapping[str, Tensor]
) -> list[str]:
    """List the weights of a network that a file lacks or has in another shape.

    Args:
        network_weights: Weights of the network, keyed by name.
        file_weights: Weights of the file, keyed by name.

    Returns:
        Names of these weights, in the order of `network_weights`.
    """
    unmatched = []
    for name, weight in network_weights.items():
        if name not in file_weights or file_weights[name].shape != weight.shape:
            unmatched.append(name)
    return unmatched


def describe_match(unmatched: Iterable[str], count: int) -> str:
    """Describe how many weights of a network a file has, for errors.

    Args:
        unmatched: Names of the weights that the file lacks, or has in another shape.
        count: Number of weights of the network.

    Returns:
        A text such as "3 of 12 weights match by name and size; first missing a.bias".
    """
    names = sorted(unmatched)
    example = f"; first missing {names[0]}" if names else ""
    return f"{count - len(names)} of {count} weights match by name and size{example}"


def fill(
    module: nn.Module,
    state: Mapping[str, Tensor],
    origin: Path | str,
    hint: str = OTHER_MODEL_HINT,
    error: type[BrainhiveError] = BrainhiveError,
) -> None:
    """Load weights into a module after comparing their names, shapes and dtypes.

    If a parameter is on the meta device, the tensors of `state` become the weights,
    with their dtype. Otherwise, their numbers are copied.

    Args:
        module: Module.
        state: Weights to load, keyed by name.
        origin: File or description of the weights, for the error.
        hint: Advice in the error message.
        error: Class of the error.

    Raises:
        BrainhiveError: if a weight is missing or unknown, has another shape, or only
            one of both tensors is floating-point. The class is `error`.
    """
    module_weights = module.state_dict()
    for name in sorted(module_weights.keys() | state.keys()):
        shape = tuple(state[name].shape) if name in state else "none"
        module_shape = (
            tuple(module_weights[name].shape) if name in module_weights else "none"
        )
        if shape != module_shape:
            unmatched = find_unmatched(module_weights, state)
            match = describe_match(unmatched, len(module_weights))
            message = f"{origin}: {name} has shape {shape}, {module_shape} is needed"
            raise error(f"{message}; {match}", hint)
        dtype = state[name].dtype
        module_dtype = module_weights[name].dtype
        if dtype.is_floating_point != module_dtype.is_floating_point:
            message = f"{origin}: {name} is of {dtype}, {module_dtype} is needed"
            raise error(message, hint)

    # tensors of the meta device have no numbers to copy into
    is_meta = any(parameter.is_meta for parameter in module.parameters())
    module.load_state_dict(state, assign=is_meta)


@contextmanager
def reading(
    origin: Path | str,
    hint: str = DOWNLOAD_HINT,
    error: type[BrainhiveError] = MissingData,
    files: Iterable[Path] = (),
    problem: str = "is damaged or half-downloaded",
) -> Iterator[None]:
    """Turn errors of libraries inside a `with` block into a short error about a file.

    Errors of the machine, failed imports and errors in a user's code pass unchanged.

    Args:
        origin: File or description of the weights, for the error.
        hint: Advice in the error message.
        error: Class of the error for a damaged file.
        files: Files of weights that are first compared with their digests.
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
        if (
            is_machine_error(reason)
            or find_failed_import(reason)
            or foreign_code.describe_user_error(reason)
        ):
            raise
        raise error(f"{origin} {problem}: {_describe_error(reason)}", hint) from reason


def _describe_error(error: Exception) -> str:
    """Describe an error of a library in a line of limited length."""
    line = " ".join(str(error).split())
    # torch writes advice in front of the reason
    reason = line.split("WeightsUnpickler error: ")[-1]
    refused_object = re.search(r"GLOBAL (\S+) was not", reason)
    if refused_object:
        return (
            f"it contains {refused_object[1]}, but only tensors and plain values "
            "are read, because code in a file is not run"
        )
    # Number of characters to which the error of a library is cut in a message. Errors
    # of torch may fill a page.
    max_reason_characters = 200
    if len(reason) > max_reason_characters:
        return f"{reason[:max_reason_characters]}…"
    return reason or type(error).__name__


def _unwrap(content: Any) -> Any:
    """Return the dictionary of weights in a checkpoint of a training program.

    Args:
        content: The dictionary, perhaps in other dictionaries.
    """
    # Keys under which training programs store the weights. Examples are DINO, SynCLR,
    # DreamSim's CLIPs and MindEye1.
    for key in ("teacher", "model", "state_dict", "model_state_dict"):
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}, not tensors by name")
        if key in content:
            content = content[key]
    return content


def _verify(path: Path, hint: str) -> None:
    """Raise an error if a file is missing, or differs from its checksums or digest."""
    if not is_file(path):
        raise MissingData(f"there is no file {path}", hint)
    if _is_torch(path):
        if not zipfile.is_zipfile(path):
            return

        # torch calls a member a record, and does not compare its checksum
        with zipfile.ZipFile(path) as archive:
            archives.list_zip_members(archive)
            changed_record = archive.testzip()
            if changed_record:
                raise ValueError(f"the record {changed_record} was changed")
        return

    with safe_open(path, _choose_framework(path)) as file:
        stored_digest = (file.metadata() or {}).get(DIGEST_KEY, "")
        # Pattern of our digests. Other programs may store other values under
        # the same key.
        if not re.fullmatch("[0-9a-f]{32}", stored_digest):
            return
        if stored_digest != _digest(file.keys(), file.get_tensor):
            raise ValueError("its content differs from its digest")


def _choose_framework(path: Path) -> str:
    """Return "np" if NumPy has all dtypes of a safetensors file, otherwise "pt"."""
    with safe_open(path, "np") as file:
        names = file.keys()
        dtypes = {file.get_slice(name).get_dtype() for name in names}
    # Dtypes of safetensors that NumPy also has.
    numpy_dtypes = {
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
    return "np" if dtypes <= numpy_dtypes else "pt"


def _digest(names: Iterable[str], get_tensor: Callable[[str], Any]) -> str:
    """Compute a digest of the names, dtypes, shapes and bytes of tensors.

    Args:
        get_tensor: Function that takes a name, and returns an array or a CPU tensor.

    Returns:
        128-bit xxh3 digest of 32 hexadecimal digits.
    """
    digest = xxhash.xxh3_128()
    for name in sorted(names):
        value = get_tensor(name)
        is_array = isinstance(value, np.ndarray)
        # an array and a tensor of the same numbers have the same digest
        dtype = f"torch.{value.dtype}" if is_array else value.dtype
        digest.update(f"{name} {dtype} {list(value.shape)}\n".encode())
        if 0 in value.shape:
            continue

        # NumPy has no bfloat16, so a tensor is viewed as bytes
        flat = value.reshape(-1)
        if not is_array:
            import torch

            flat = flat.view(torch.uint8).numpy()
        digest.update(flat.view(np.uint8).data)
    return digest.hexdigest()


def _is_torch(path: Path) -> bool:
    """Return True if torch.save wrote a file, False if it should be safetensors."""
    with path.open("rb") as stream:
        start = stream.read(9)
    # 8 bytes with the length of the header may look like a pickle, but a brace follows
    return start.startswith((ZIP_START, PICKLE_START)) and start[8:] != b"{"


def _load(path: Path, device: torch.device | str) -> Any:
    """Load a file that torch.save wrote, without running code from the file."""
    import torch

    # Class and functions that checkpoints may name. DINO stores a Namespace of its
    # command line. The state of a OneCycleLR before torch 2.1, as in MindEye1's
    # checkpoints, names functions, which are replaced by `_ignore_call`.
    safe_globals: Any = [
        argparse.Namespace,
        (_ignore_call, "builtins.getattr"),
        (_ignore_call, "__builtin__.getattr"),
        (_ignore_call, "torch.optim.lr_scheduler.OneCycleLR"),
    ]
    allowed_globals = torch.serialization.safe_globals(safe_globals)
    with allowed_globals, warnings.catch_warnings(action="ignore"):
        # only zips, as of torch 1.6 and later, can be mapped into memory
        return torch.load(
            path, weights_only=True, map_location=device, mmap=zipfile.is_zipfile(path)
        )


def _ignore_call(*arguments: Any) -> None:
    """Do nothing, in place of a function that a checkpoint names."""


def save_cell(path: Path, content: Any) -> None:
    """Write the result of a cell, such as a model's evaluation, to a safetensors file.

    Arrays become tensors. The other values become JSON in the metadata of the file.

    Args:
        path: File.
        content: Nested dataclasses, mappings, lists, tuples, arrays and plain values.
    """
    import torch

    # arrays that `encode` finds, by their numbers "0", "1" and so on
    arrays: dict[str, Tensor] = {}

    def encode(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            # torch warns about read-only arrays, and refuses negative strides
            name = str(len(arrays))
            arrays[name] = torch.from_numpy(np.array(value))
            return {"array": name}
        if is_dataclass(value):
            encoded_fields = {
                item.name: encode(getattr(value, item.name)) for item in fields(value)
            }
            return {"type": type(value).__name__, "fields": encoded_fields}
        if isinstance(value, Mapping):
            # the keys may be numbers, but those of a JSON object are texts
            pairs = [[encode(key), encode(item)] for key, item in value.items()]
            return {"items": pairs}
        if isinstance(value, list | tuple):
            # JSON has no tuples
            return {type(value).__name__: [encode(item) for item in value]}
        return value.item() if isinstance(value, np.generic) else value

    text = json.dumps(encode(content))  # fills `arrays`
    save(path, arrays, {"measured": text})


def load_cells(folder: Path, files: Mapping[str, str], *types: type) -> dict[str, Any]:
    """Read the results of cells by name, as `load_cell` does.

    Args:
        folder: Folder of the run.
        files: Path of the file of each cell below the folder, by name.
        types: Classes of the dataclasses in the results.
    """
    return {name: load_cell(folder / file, *types) for name, file in files.items()}


def load_cell(path: Path, *types: type) -> Any:
    """Read the result of a cell from a file that `save_cell` wrote.

    Args:
        path: File.
        types: Classes of the dataclasses in the result.

    Returns:
        The result as it was saved, with dicts in place of other mappings, and numbers
        of Python in place of scalars of NumPy.

    Raises:
        MissingData: if the file does not exist.
        BrainhiveError: if the file is damaged.
    """
    # a file from a stranger cannot choose classes other than these
    classes = {dataclass_type.__name__: dataclass_type for dataclass_type in types}

    def decode(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if "array" in value:
            return arrays[value["array"]].numpy()
        if "type" in value:
            arguments = {name: decode(item) for name, item in value["fields"].items()}
            return classes[value["type"]](**arguments)
        if "items" in value:
            return {decode(key): decode(item) for key, item in value["items"]}
        if "tuple" in value:
            return tuple(map(decode, value["tuple"]))
        return [decode(item) for item in value["list"]]

    with reading(path, documents.DAMAGED_HINT, BrainhiveError):
        arrays = read(path)
        text = read_metadata(path)["measured"]
        return decode(documents.parse(text, str(path)))
