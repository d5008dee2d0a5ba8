"""Files of weights and checkpoints, ours and other projects', whatever they hold; files
of what a cell measured.
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
from brainhive_cli.core.damage import is_of_the_machine
from brainhive_cli.core.documents import DOWNLOAD_HINT
from brainhive_cli.core.errors import BrainhiveError, MissingData, raise_if_interrupted
from brainhive_cli.core.files import atomic_write, is_file
from brainhive_cli.core.launch import Launch, find_failed_import

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

OTHER_MODEL = "these weights are for another model, or of another size"
DIGEST = "digest"
"""The key, in the metadata of our safetensors, of a digest over names, dtypes, shapes
and bytes.
"""
OUR_DIGEST = re.compile("[0-9a-f]{32}")
"""Form of that digest; other values under this key are not ours."""
NUMPY_DTYPES = {
    *("F64", "F32", "F16", "I64", "I32", "I16", "I8"),
    *("U64", "U32", "U16", "U8", "BOOL"),
}
"""Dtypes of safetensors that NumPy has."""
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
"""First bytes of what torch.save writes, now and before version 1.6."""
WRAPPINGS = ("teacher", "model", "state_dict", "model_state_dict")
"""Keys below which training codes keep the weights: full DINO, SynCLR, DreamSim's
CLIPs, MindEye1.
"""
COMPILED, PARALLEL = re.compile(r"(?:^|(?<=\.))_orig_mod\."), "module."
"""What torch.compile puts before names of weights, anywhere in them, and DataParallel
before all of them.
"""
MAX_REASON_CHARACTERS = 200
"""Characters of a library's reason that a message shows: torch's may fill a page."""
ANEW = "delete it: the same command then trains anew"
"""Way out of an intact checkpoint of another training."""


def read(
    path: Path, hint: str = DOWNLOAD_HINT, error: type[BrainhiveError] = MissingData
) -> dict[str, Tensor]:
    """Read the tensors of a file: safetensors, or what torch.save wrote, without
    running code from it.

    Args:
        path: The file; its first bytes decide what it is.
        hint: What to do if it is damaged.
        error: What is raised if it is damaged.

    Returns:
        Its tensors by name, on the CPU; a checkpoint's parts that are no weights are
        left out.

    Raises:
        MissingData: if there is no such file.
        BrainhiveError: `error`, if it is cut short, changed since its digest was
            written, or no such file.
    """
    from safetensors.torch import load_file
    from torch import Tensor

    with reading(path, hint, error, files=(path,)):
        if not _is_torch(path):
            return _with_plain_names(load_file(path))

        # weights lie below one key or two in what training codes save
        content = _unwrapped(_load(path, "cpu"))
        return _with_plain_names(
            {
                str(name): value.detach()
                for name, value in content.items()
                if isinstance(value, Tensor)
            }
        )


def read_arrays(
    path: Path, hint: str = DOWNLOAD_HINT, error: type[BrainhiveError] = MissingData
) -> dict[str, Array]:
    """Read the arrays of a file of safetensors by name, without torch; raises as
    `read`.
    """
    with reading(path, hint, error, files=(path,)), safe_open(path, "np") as opened:
        names = opened.keys()
        return {name: opened.get_tensor(name) for name in names}


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Give names of weights without what torch.compile and DataParallel put before
    them, by the names.
    """
    plain = {name: COMPILED.sub("", name) for name in names}
    while plain and all(name.startswith(PARALLEL) for name in plain.values()):
        plain = {name: short.removeprefix(PARALLEL) for name, short in plain.items()}
    if len({*plain.values()}) < len(plain):
        raise ValueError("it has weights of one name with and without `_orig_mod.`")
    return plain


def _with_plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensors[full_name] for full_name, name in plain_names(tensors).items()
    }


def list_names(path: Path) -> list[str]:
    """List the names of the weights in a file, and read none of them."""
    if _is_torch(path):
        return [*map(str, _unwrapped(_load(path, "meta")))]
    with safe_open(path, "np") as opened:
        return [*opened.keys()]


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read the tensors and plain values of a training, as torch.save wrote them, onto a
    device.

    Raises:
        MissingData: if there is no such file.
        BrainhiveError: if it is damaged.
    """
    with reading(
        path,
        "training goes on from the one before, or anew",
        BrainhiveError,
        files=(path,),
    ):
        content = _load(path, device)
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}")
        return content


@dataclass(frozen=True)
class Checkpoint:
    """The file that the newest checkpoint of a training has; the one before lies next
    to it.
    """

    path: Path

    @property
    def previous(self) -> Path:
        """The checkpoint before the newest."""
        return self.path.with_name(f"{self.path.name}.previous")

    def save(self, content: Mapping[str, Any]) -> None:
        """Save tensors and plain values, and keep the last checkpoint as the previous
        one.

        Raises:
            OSError: if the disk is full; the checkpoints are then as they were.
        """
        import torch

        # in memory first: a disk that is full leaves both checkpoints as they were
        written = serialise(partial(torch.save, dict(content)))
        with atomic_write(self.path) as part:
            part.write_bytes(written)
            with suppress(FileNotFoundError):  # there is none yet
                os.replace(self.path, self.previous)

    def load(
        self, launch: Launch, device: torch.device | str = "cpu"
    ) -> dict[str, Any] | None:
        """Read the newest checkpoint that is whole, in each of these processes; None
        without one.

        The main process sets each that is damaged aside, with a warning.
        """
        # the main process sets damaged files aside for all
        return launch.run_main_first(partial(self._load, device))

    def _load(self, device: torch.device | str) -> dict[str, Any] | None:
        for path in filter(Path.is_file, (self.path, self.previous)):
            try:
                return read_checkpoint(path, device)
            except BrainhiveError as error:
                # a library may have made another error of it: nothing is damaged
                raise_if_interrupted()
                aside = path.with_name(f"{path.name}.damaged")
                os.replace(path, aside)
                console.warn(f"{error.in_one_line}; it is kept as {aside.name}")
        return None

    def remove(self) -> None:
        """Remove what a finished training no longer needs."""
        for path in (self.path, self.previous):
            path.unlink(missing_ok=True)


def verify(path: Path) -> None:
    """Compare a file with its digests, as `read` does, and keep no more than a block of
    it in memory.

    Raises:
        MissingData: if there is no such file, or it is damaged.
    """
    with reading(path, files=(path,)):
        pass


def serialise(save: Callable[[io.BytesIO], object]) -> memoryview:
    """Return what a function of torch writes into a file.

    Torch's own writer ends the process with SIGABRT where a disk is full.
    """
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getbuffer()


def save(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file with a digest of what it holds, which `read` verifies.

    Any reader of safetensors reads it. The same tensors give the same bytes.
    """
    from safetensors.torch import save_file

    state = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    about = {
        "format": "pt",
        **(metadata or {}),
        DIGEST: _digest(state, state.__getitem__),
    }
    path.touch()
    # by the umask; the library's own file, which takes its place, is private
    mode = path.stat().st_mode
    save_file(state, path, about)
    path.chmod(mode)

    # the header is written again, in the same length: the library writes metadata in
    # any order
    with path.open("r+b") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        header = {
            **json.loads(stream.read(size)),
            "__metadata__": dict(sorted(about.items())),
        }
        stream.seek(8)
        stream.write(
            json.dumps(header, separators=(",", ":"), ensure_ascii=False)
            .encode()
            .ljust(size)
        )


def metadata_of(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file; none of a file that is no safetensors.

    Raises:
        BrainhiveError: if it is damaged.
    """
    if _is_torch(path):
        return {}
    with reading(path, error=BrainhiveError), safe_open(path, "np") as opened:
        return opened.metadata() or {}


def digest_of(path: Path) -> str:
    """Read the digest that `save` wrote with the tensors; empty where another program
    wrote the file.
    """
    return metadata_of(path).get(DIGEST, "")


def find_unmatched(
    needed: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> list[str]:
    """Name the weights of a network that a file does not have by name and size."""
    return [
        name
        for name in needed
        if name not in state or state[name].shape != needed[name].shape
    ]


def describe_match(unmatched: Iterable[str], count: int) -> str:
    """Say how many of a network's weights a file has, for errors.

    Args:
        unmatched: Weights that it lacks, or has of another size.
        count: Weights of the network.
    """
    absent = sorted(unmatched)
    first = f"; first missing {absent[0]}" if absent else ""
    return f"{count - len(absent)} of {count} weights match by name and size{first}"


def fill(
    module: nn.Module,
    state: Mapping[str, Tensor],
    where: Path | str,
    hint: str = OTHER_MODEL,
    error: type[BrainhiveError] = BrainhiveError,
) -> None:
    """Put weights into a module; one on the meta device takes them as they are, dtype
    and all.

    Raises:
        BrainhiveError: `error`, if a weight is missing, surplus, of another shape, or
            not of real numbers where these are needed; it names the first, and says how
            many match.
    """
    # names, shapes and kinds of numbers agree before anything is loaded
    needed = module.state_dict()
    for key in sorted(needed.keys() | state.keys()):
        shape, expected = (
            tuple(held[key].shape) if key in held else "none"
            for held in (state, needed)
        )
        if shape != expected:
            match = describe_match(find_unmatched(needed, state), len(needed))
            raise error(
                f"{where}: {key} has shape {shape}, {expected} is needed; {match}", hint
            )
        if state[key].is_floating_point() != needed[key].is_floating_point():
            kinds = f"is of {state[key].dtype}, {needed[key].dtype} is needed"
            raise error(f"{where}: {key} {kinds}", hint)
    module.load_state_dict(
        state, assign=any(parameter.is_meta for parameter in module.parameters())
    )


@contextmanager
def reading(
    where: Path | str,
    hint: str = DOWNLOAD_HINT,
    error: type[BrainhiveError] = MissingData,
    files: Iterable[Path] = (),
    problem: str = "is damaged or half-downloaded",
) -> Iterator[None]:
    """Turn what a library raises about weights and their config into one line.

    Args:
        where: What is read, for the message.
        hint: What to do if it is damaged.
        error: What is raised if it is damaged.
        files: Files of weights to verify before: digests, and what torch's archives
            keep of their records.
        problem: What is wrong with it, in words.
    """
    try:
        for path in files:
            _verify(path, hint)
        yield
    except BrainhiveError:
        raise
    except Exception as reason:
        # which may be the machine's, a broken library's, or code's of the user
        # errors of the disk, of a library or of code of the user are theirs
        if (
            is_of_the_machine(reason)
            or find_failed_import(reason)
            or foreign_code.describe_user_error(reason)
        ):
            raise

        # the reason in one line; torch's may fill a page
        text = " ".join(str(reason).split()).rpartition("WeightsUnpickler error: ")[2]
        if match := re.search(r"GLOBAL (\S+) was not", text):
            text = (
                f"it holds more than tensors, {match[1]}, and no code of a file is run"
            )
        elif len(text) > MAX_REASON_CHARACTERS:
            text = f"{text[:MAX_REASON_CHARACTERS]}…"
        raise error(
            f"{where} {problem}: {text or type(reason).__name__}", hint
        ) from reason


def _unwrapped(content: Any) -> Any:
    """Take the weights out of what a training code saves."""
    for wrapping in WRAPPINGS:
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}, not tensors by name")
        content = content.get(wrapping, content)
    return content


def _verify(path: Path, hint: str) -> None:
    if not is_file(path):
        raise MissingData(f"there is no file {path}", hint)
    if _is_torch(path):
        if not zipfile.is_zipfile(path):
            return

        # records of an archive have a CRC32, which torch itself does not compare
        with zipfile.ZipFile(path) as archive:
            archives.list_zip_members(archive)
            if changed := archive.testzip():
                raise ValueError(f"the record {changed} was changed")
        return

    # safetensors of ours carry a digest
    with safe_open(path, _framework_of(path)) as opened:
        written = (opened.metadata() or {}).get(DIGEST, "")
        if OUR_DIGEST.fullmatch(written) and written != _digest(
            opened.keys(), opened.get_tensor
        ):
            raise ValueError("its digest is not the one written with it")


def _framework_of(path: Path) -> str:
    """Name what reads a file: NumPy, which is loaded already, where it has the dtypes
    of all tensors.
    """
    with safe_open(path, "np") as opened:
        names = opened.keys()
        dtypes = {opened.get_slice(name).get_dtype() for name in names}
    return "np" if dtypes <= NUMPY_DTYPES else "pt"


def _digest(names: Iterable[str], get_tensor: Callable[[str], Any]) -> str:
    """Digest names, dtypes, shapes and bytes of tensors, one after another (xxh3, 32
    hexadecimal digits).
    """
    digest = xxhash.xxh3_128()
    for name in sorted(names):
        value = get_tensor(name)
        is_array = isinstance(value, np.ndarray)
        dtype = f"torch.{value.dtype}" if is_array else value.dtype
        digest.update(f"{name} {dtype} {[*value.shape]}\n".encode())
        if 0 in value.shape:
            continue
        flat = value.reshape(-1)
        if not is_array:
            import torch

            flat = flat.view(torch.uint8).numpy()
        digest.update(flat.view(np.uint8).data)
    return digest.hexdigest()


def _is_torch(path: Path) -> bool:
    """Tell what torch wrote from safetensors, whose first 8 bytes are a length and may
    be a pickle's too.
    """
    with path.open("rb") as stream:
        start = stream.read(9)
    return start.startswith((ZIP, PICKLE)) and start[8:] != b"{"


def _load(path: Path, device: torch.device | str) -> Any:
    """Load an archive mapped, so that no tensor reaches beyond the file; older files
    cannot be.
    """
    import torch

    # DINO's checkpoints hold its command line
    allowed = [argparse.Namespace, *_SCHEDULE]
    is_allowed = torch.serialization.safe_globals(allowed)
    with is_allowed, warnings.catch_warnings(action="ignore"):
        return torch.load(
            path, weights_only=True, map_location=device, mmap=zipfile.is_zipfile(path)
        )


_SCHEDULE: Any = [
    (lambda *_: None, name)
    for name in (
        "builtins.getattr",
        "__builtin__.getattr",
        "torch.optim.lr_scheduler.OneCycleLR",
    )
]
"""Name in the state of a OneCycleLR in checkpoints before torch 2.1, as MindEye1's;
nothing is called.
"""


def save_cell(path: Path, content: Any) -> None:
    """Write dataclasses, mappings, lists and plain values to one file.

    Arrays become tensors, and what refers to them JSON in the header.
    """
    import torch

    # arrays by number, in the order in which `encode` meets them
    arrays: dict[str, Tensor] = {}

    def encode(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            # copied: torch warns of read-only arrays and refuses negative strides
            arrays[name := str(len(arrays))] = torch.from_numpy(np.array(value))
            return {"array": name}
        if is_dataclass(value):
            about = {
                item.name: encode(getattr(value, item.name)) for item in fields(value)
            }
            return {"type": type(value).__name__, "fields": about}
        if isinstance(value, Mapping):  # keys may be numbers
            return {
                "items": [[encode(key), encode(item)] for key, item in value.items()]
            }
        # JSON has no tuples, so the type is written beside the items
        if isinstance(value, list | tuple):
            return {type(value).__name__: [encode(item) for item in value]}
        return value.item() if isinstance(value, np.generic) else value

    about = json.dumps(encode(content))  # which names the arrays
    save(path, arrays, {"measured": about})


def load_cell(path: Path, *types: type) -> Any:
    """Read back what `save` wrote; `types` are the dataclasses that it holds.

    Raises:
        BrainhiveError: if the file is damaged.
    """
    # a file names classes, of which only those of the caller are built
    type_of = {each.__name__: each for each in types}

    def decode(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if "array" in value:
            return arrays[value["array"]].numpy()
        if "type" in value:
            return type_of[value["type"]](
                **{name: decode(item) for name, item in value["fields"].items()}
            )
        if "items" in value:
            return {decode(key): decode(item) for key, item in value["items"]}
        if "tuple" in value:
            return tuple(map(decode, value["tuple"]))
        return [decode(item) for item in value["list"]]

    # content that does not decode is reported as damage of the file
    with reading(path, documents.DAMAGED_HINT, BrainhiveError):
        arrays = read(path)
        return decode(documents.parse(metadata_of(path)["measured"], str(path)))
