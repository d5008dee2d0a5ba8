"""Files of weights, of checkpoints and of the results of cells.

The files may come from this project or from others. No code in a file is run. A cell is
a part of a run that is computed separately, such as the model of one subject and one
seed. Weights are stored in two formats, safetensors and the pickles of torch.save.
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
"""Hint for weights whose names or shapes do not fit a network."""
DIGEST_KEY = "digest"
"""Key in the metadata of a safetensors file. The value is a digest that `save` computes
from the names, dtypes, shapes and bytes of the tensors.
"""
DIGEST_FORMAT = re.compile("[0-9a-f]{32}")
"""Pattern of our digests. Other programs may store other values under the same key."""
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
COMPILE_PREFIX = re.compile(r"(?:^|(?<=\.))_orig_mod\.")
"""Pattern of the prefix that torch.compile adds to the name of a weight, or to a later
component of the name.
"""
PARALLEL_PREFIX = "module."
"""Prefix that DataParallel adds to the names of all weights."""
MAX_REASON_CHARACTERS = 200
"""Number of characters to which the error of a library is cut in a message. Errors of
torch may fill a page.
"""
RETRAIN_HINT = "delete it: the same command then trains from the beginning"
"""Hint for an undamaged checkpoint that belongs to another training."""


def read(
    path: Path, hint: str = DOWNLOAD_HINT, error: type[BrainhiveError] = MissingData
) -> dict[str, Tensor]:
    """Read the tensors of a file that safetensors or torch.save wrote.

    The first bytes of the file decide its format. No code in the file is run.

    Args:
        path: File.
        hint: Advice for the user if the file is missing or damaged.
        error: Class of the error if the file is damaged.

    Returns:
        Tensors on the CPU, keyed by name. The prefixes that torch.compile and
        DataParallel add to names are removed. Values that are not tensors, such as the
        epoch in a checkpoint, are left out.

    Raises:
        MissingData: if the file does not exist.
        BrainhiveError: if the file is cut short, differs from its digest, or has
            another format. The class is `error`.
    """
    from safetensors.torch import load_file
    from torch import Tensor

    # `reading` compares the file with its digest, and turns errors of libraries into
    # the class `error`
    with reading(path, hint, error, files=(path,)):
        if not _is_torch(path):
            return _strip_wrappers(load_file(path))

        # Training programs may store the dictionary of weights under a key such as
        # `state_dict`, next to other values. `_unwrap` returns this dictionary.
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
        hint: Advice for the user if the file is missing or damaged.
        error: Class of the error if the file is damaged.

    Returns:
        NumPy arrays, keyed by name.

    Raises:
        MissingData: if the file does not exist.
        BrainhiveError: if the file is damaged. The class of the error is `error`.
    """
    # `reading` compares the file with its digest, and turns errors of libraries into
    # the class `error`
    with reading(path, hint, error, files=(path,)), safe_open(path, "np") as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}


def strip_wrapper_names(names: Iterable[str]) -> dict[str, str]:
    """Strip the prefixes that torch.compile and DataParallel add to names of weights.

    torch.compile adds `_orig_mod.`, and DataParallel adds `module.` to all names.

    Args:
        names: Names of the weights in a file.

    Returns:
        Stripped names, keyed by the names in the file.

    Raises:
        ValueError: if two weights get the same name.
    """
    # Remove `module.` only if all names begin with it, because a network may have a
    # layer of this name. Repeat this for a model that was wrapped several times.
    stripped = {name: COMPILE_PREFIX.sub("", name) for name in names}
    while stripped and all(
        short_name.startswith(PARALLEL_PREFIX) for short_name in stripped.values()
    ):
        for name, short_name in stripped.items():
            stripped[name] = short_name.removeprefix(PARALLEL_PREFIX)

    # two names may have differed only by a prefix
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
    # `reading` verifies the checksums of the file, and turns errors of libraries, and
    # the TypeError below, into a BrainhiveError
    with reading(path, hint, BrainhiveError, files=(path,)):
        content = _load(path, device)
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}")
        return content


@dataclass(frozen=True)
class Checkpoint:
    """The newest checkpoint of a training, and the previous checkpoint.

    If the newest file is damaged, training continues from the previous file.

    Attributes:
        path: File of the newest checkpoint.
    """

    path: Path

    @property
    def previous(self) -> Path:
        """File of the previous checkpoint, in the same folder as the newest."""
        return self.path.with_name(f"{self.path.name}.previous")

    def save(self, content: Mapping[str, Any]) -> None:
        """Save a checkpoint of a training to the file `self.path`.

        An earlier checkpoint in `self.path` is first renamed to `self.previous`.

        Args:
            content: Tensors and plain values of the training, keyed by name.

        Raises:
            OSError: if the disk is full. In this case, both files stay unchanged.
        """
        import torch

        # Torch writes the checkpoint to memory. The bytes are then written to a
        # temporary file, which replaces `self.path` at the end of the block.
        checkpoint_bytes = serialise(partial(torch.save, dict(content)))
        with atomic_write(self.path) as temporary:
            temporary.write_bytes(checkpoint_bytes)
            # the first checkpoint of a training has no earlier file
            with suppress(FileNotFoundError):
                os.replace(self.path, self.previous)

    def load(
        self, launch: Launch, device: torch.device | str = "cpu"
    ) -> dict[str, Any] | None:
        """Read the newest checkpoint that is not damaged, in every process.

        A damaged checkpoint is renamed, and a warning names the new file.

        Args:
            launch: Description of this process and of the other processes that share
                the training.
            device: Device to load the tensors on.

        Returns:
            Tensors and plain values, as they were passed to `save`. None if there is no
            undamaged checkpoint.
        """
        # `run_main_first` calls the function in the main process, and then in the other
        # processes. The damaged files are renamed by then.
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
    """Compare the content of a file of weights with its digest.

    The tensors are loaded one at a time, so that the file need not fit into memory.

    Raises:
        MissingData: if the file does not exist, or is damaged.
    """
    with reading(path, files=(path,)):
        pass


def serialise(save: Callable[[io.BytesIO], object]) -> memoryview:
    """Return the bytes that a function of torch would write to a file.

    The caller then writes the bytes itself, because torch ends the process with SIGABRT
    if it writes to a full disk.

    Args:
        save: Function that writes to an open file, such as `torch.save` with the object
            to save.
    """
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getbuffer()


def save(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a safetensors file, with a digest that `read` compares.

    Any reader of safetensors can read the file. The same tensors and metadata always
    give the same bytes.

    Args:
        path: File.
        tensors: Tensors, keyed by name.
        metadata: Texts that are stored in the header of the file, keyed by name.
    """
    from safetensors.torch import save_file

    # add the digest of the tensors to the metadata
    state = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    all_metadata = {"format": "pt"}
    all_metadata.update(metadata or {})
    all_metadata[DIGEST_KEY] = _digest(state, state.__getitem__)

    # The library gives only the owner permission to read the file. An empty file is
    # therefore made first, and its usual permissions are set again afterwards.
    path.touch()
    mode = path.stat().st_mode
    save_file(state, path, all_metadata)
    path.chmod(mode)

    # The library writes metadata in random order, so the header is written again with
    # sorted metadata. A safetensors file begins with the length of the header in 8
    # bytes. The JSON text of the header is padded with spaces to this length.
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
        Texts, keyed by name. The result is empty if torch.save wrote the file.

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
        Names of these weights, in the order of `network_weights`. Empty if the file has
        all weights of the network.
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

    If a parameter of the module is on the meta device, the tensors of `state` become
    the weights of the module, with their dtype. Otherwise, the numbers are copied into
    the module's own tensors.

    Args:
        module: Module.
        state: Weights to load, keyed by name.
        origin: File or description of the weights, for the error.
        hint: Advice for the user if the weights do not fit.
        error: Class of the error.

    Raises:
        BrainhiveError: if the weights do not fit the module. The class of the error is
            `error`. It names the first weight, in alphabetical order, for which
            - `state` or the module has no tensor
            - the tensor of `state` and the tensor of the module differ in shape
            - only one of these two tensors is floating-point
    """
    # compare the weights in the order of their names
    module_weights = module.state_dict()
    for name in sorted(module_weights.keys() | state.keys()):
        shape: object = "none"
        if name in state:
            shape = tuple(state[name].shape)
        module_shape: object = "none"
        if name in module_weights:
            module_shape = tuple(module_weights[name].shape)
        if shape != module_shape:
            # the message also says how many weights of the module `state` contains
            unmatched = find_unmatched(module_weights, state)
            match = describe_match(unmatched, len(module_weights))
            message = f"{origin}: {name} has shape {shape}, {module_shape} is needed"
            raise error(f"{message}; {match}", hint)
        dtype = state[name].dtype
        module_dtype = module_weights[name].dtype
        if dtype.is_floating_point != module_dtype.is_floating_point:
            message = f"{origin}: {name} is of {dtype}, {module_dtype} is needed"
            raise error(message, hint)

    # tensors of the meta device have no numbers, so they must be replaced
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

    An error is not changed if it comes from the disk, from a library that cannot be
    imported, or from a user's code.

    Args:
        origin: File of the weights, or a description of them, for the error.
        hint: Advice for the user if the file is damaged.
        error: Class of the error if the file is damaged.
        files: Files of weights whose content is compared with their digests before the
            block.
        problem: Description of the damage.

    Raises:
        MissingData: if one of `files` does not exist.
        BrainhiveError: if the file is damaged. The class of the error is `error`.
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

        # shorten the reason to a line
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
            f"{origin} {problem}: {text or type(reason).__name__}", hint
        ) from reason


def _unwrap(content: Any) -> Any:
    """Return the dictionary of weights in a checkpoint of a training program.

    Args:
        content: The dictionary itself, or a dictionary that contains it under a key of
            `WRAPPER_KEYS`, possibly nested.

    Raises:
        TypeError: if the content is not a dictionary.
    """
    for key in WRAPPER_KEYS:
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}, not tensors by name")
        content = content.get(key, content)
    return content


def _verify(path: Path, hint: str) -> None:
    """Raise an error if a file of weights does not exist, or was changed.

    A file of torch.save that is a zip is compared with the checksums in the zip. A
    safetensors file that Brainhive wrote is compared with the digest in its metadata.
    Other files contain no digest, so only their existence is tested.

    Args:
        path: File.
        hint: Advice for the user if the file does not exist.

    Raises:
        MissingData: if the file does not exist.
        ValueError: if the content differs from its checksum or digest.
    """
    if not is_file(path):
        raise MissingData(f"there is no file {path}", hint)
    if _is_torch(path):
        if not zipfile.is_zipfile(path):
            return

        # The zip contains a file for each tensor, which torch calls a record. Torch
        # does not compare the checksums when it reads them.
        with zipfile.ZipFile(path) as archive:
            archives.list_zip_members(archive)
            changed_record = archive.testzip()
            if changed_record:
                raise ValueError(f"the record {changed_record} was changed")
        return

    # compare the digest if the metadata of the safetensors file contains it
    with safe_open(path, _choose_framework(path)) as file:
        stored_digest = (file.metadata() or {}).get(DIGEST_KEY, "")
        if not DIGEST_FORMAT.fullmatch(stored_digest):
            return
        if stored_digest != _digest(file.keys(), file.get_tensor):
            raise ValueError("its content differs from its digest")


def _choose_framework(path: Path) -> str:
    """Choose the library whose arrays hold the tensors of a safetensors file.

    Returns:
        "np" (NumPy, which is imported already) if NumPy has the dtypes of all tensors,
        otherwise "pt" (torch).
    """
    with safe_open(path, "np") as file:
        names = file.keys()
        dtypes = {file.get_slice(name).get_dtype() for name in names}
    return "np" if dtypes <= NUMPY_DTYPES else "pt"


def _digest(names: Iterable[str], get_tensor: Callable[[str], Any]) -> str:
    """Compute a digest of the names, dtypes, shapes and bytes of tensors.

    The order of the names does not matter. The tensors are requested one after the
    other, so a caller can read them from a file without loading all of them at once.

    Args:
        names: Names of the tensors.
        get_tensor: Function that takes a name, and returns its NumPy array or its
            tensor of torch on the CPU.

    Returns:
        128-bit xxh3 digest of 32 hexadecimal digits.
    """
    digest = xxhash.xxh3_128()
    for name in sorted(names):
        value = get_tensor(name)
        is_array = isinstance(value, np.ndarray)
        # the array and the tensor of the same numbers have the same digest
        dtype = f"torch.{value.dtype}" if is_array else value.dtype
        digest.update(f"{name} {dtype} {list(value.shape)}\n".encode())
        if 0 in value.shape:
            continue

        # Add the bytes of the numbers. NumPy lacks some dtypes of torch, such as
        # bfloat16, so a tensor is first viewed as bytes.
        flat = value.reshape(-1)
        if not is_array:
            import torch

            flat = flat.view(torch.uint8).numpy()
        digest.update(flat.view(np.uint8).data)
    return digest.hexdigest()


def _is_torch(path: Path) -> bool:
    """Return True if torch.save wrote a file, False if it should be safetensors.

    A safetensors file begins with the length of its header in 8 bytes, which may look
    like a pickle, and a brace follows.
    """
    with path.open("rb") as stream:
        start = stream.read(9)
    return start.startswith((ZIP_START, PICKLE_START)) and start[8:] != b"{"


def _load(path: Path, device: torch.device | str) -> Any:
    """Load a file that torch.save wrote, without running code from the file.

    A zip file is mapped into memory, so that no tensor can reach beyond the end of the
    file. The files of torch before 1.6 are not zips, and cannot be mapped.

    Args:
        path: File.
        device: Device to load the tensors on.

    Returns:
        The object that was saved, usually a dictionary.
    """
    import torch

    # Besides tensors, allow a Namespace, in which checkpoints of DINO store the command
    # line of the training. Functions that older learning-rate schedules name are
    # replaced by `_SCHEDULE_STUBS`, which do nothing.
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
"""Harmless replacements for the functions that the state of a OneCycleLR names. This
learning-rate schedule is part of checkpoints from before torch 2.1, such as MindEye1's.
"""


def save_cell(path: Path, content: Any) -> None:
    """Write the result of a cell (such as a trained model's evaluation) to one file.

    The file is a safetensors file. Its tensors are the arrays of the result. The
    metadata in its header contain the other values as JSON, with the name of a tensor
    in place of each array. `load_cell` reads the file.

    Args:
        path: File.
        content: Result, made of dataclasses, mappings, lists, tuples, arrays and plain
            values, in any nesting.
    """
    import torch

    # arrays by name: "0" is the first array that `encode` visits, "1" the second
    arrays: dict[str, Tensor] = {}

    def encode(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            # Copy the array, because torch warns about read-only arrays, and refuses
            # arrays with negative strides.
            name = str(len(arrays))
            arrays[name] = torch.from_numpy(np.array(value))
            return {"array": name}
        if is_dataclass(value):
            encoded_fields = {}
            for item in fields(value):
                encoded_fields[item.name] = encode(getattr(value, item.name))
            return {"type": type(value).__name__, "fields": encoded_fields}
        if isinstance(value, Mapping):
            # store pairs, because the keys may be numbers, and JSON objects allow only
            # texts as keys
            pairs = [[encode(key), encode(item)] for key, item in value.items()]
            return {"items": pairs}
        if isinstance(value, list | tuple):
            # JSON has no tuples, so the type is stored with the items
            return {type(value).__name__: [encode(item) for item in value]}
        return value.item() if isinstance(value, np.generic) else value

    text = json.dumps(encode(content))  # fills `arrays`
    save(path, arrays, {"measured": text})


def load_cell(path: Path, *types: type) -> Any:
    """Read the result of a cell from a file that `save_cell` wrote.

    A cell is one part of a run, such as the evaluation of one trained model.

    Args:
        path: File.
        types: Classes of the dataclasses in the result.

    Returns:
        The result, with the types that were saved, except that each mapping is a `dict`
        and each scalar of NumPy is a number of Python.

    Raises:
        MissingData: if the file does not exist.
        BrainhiveError: if the file is damaged.
    """
    # The file contains only names of classes. Objects are made only from the classes in
    # `types`, so that a file from another person cannot choose other classes.
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

    # `reading` reports a file as damaged if its content cannot be decoded
    with reading(path, documents.DAMAGED_HINT, BrainhiveError):
        arrays = read(path)
        text = read_metadata(path)["measured"]
        return decode(documents.parse(text, str(path)))
