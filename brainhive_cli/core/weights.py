"""Files of weights, ours and other projects': every one is read here, whatever it holds."""

import argparse
import errno
import json
import math
import os
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from brainhive_cli.core import companions
from brainhive_cli.core.documents import DOWNLOAD
from brainhive_cli.core.errors import BrainhiveError, MissingData

OTHER_MODEL = "these weights are for another model, or of another size"
DIGEST = "digest"
"""The key, in the metadata of our safetensors, of a digest over names, dtypes, shapes and bytes."""
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
"""First bytes of what torch.save writes, now and before version 1.6."""
WRAPPINGS = ("teacher", "model", "state_dict", "model_state_dict")
"""Keys below which training codes keep the weights: full DINO, SynCLR, DreamSim's CLIPs, MindEye1."""
OF_THE_FILE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EINVAL)
"""Errors of the system that come from what a file holds or names, not from disk or permissions."""
WIDEST, DEEPEST = 1 << 20, 1000
"""The largest width or count, and the most layers, that the config of a model may state."""
FACTORS = ("scaling_factor", "num_train_timesteps")
"""Keys of autoencoders and schedulers by whose value is divided."""
LAYERS = re.compile(r"layers|depth|num_blocks")
"""What the keys of numbers of layers have in their names."""
SIZES = re.compile(r"size|dim|num_|channels|groups|layers|depth|heads")
"""What the keys of other counts have; elsewhere -1 may stand for none."""
LARGEST_REPEATED = 1 << 30
"""Bytes of a tensor that may repeat the numbers it is stored by, as expanded ones do."""
OS_ERROR = r"\(os error (\d+)\)|unable to (?:mmap|open|stat) .*\((\d+)\)"
"""How safetensors, which is written in Rust, and torch report an error of the system."""
SHOWN = 200
"""Characters of a library's reason that a message shows: torch's may fill a page."""


def read(path: Path, hint: str = DOWNLOAD, error: type[BrainhiveError] = MissingData) -> dict[str, Tensor]:
    """Read the tensors of a file: safetensors, or what torch.save wrote, without running code from it.

    Args:
        path: The file; its first bytes decide what it is.
        hint: What to do if it is damaged.
        error: What is raised if it is damaged.

    Returns:
        Its dense tensors by name, on the CPU; a checkpoint's parts that are no weights are left out.

    Raises:
        MissingData: if there is no such file.
        BrainhiveError: `error`, if it is cut short, changed since its digest was written, or no such file.
    """
    with reading(path, hint, error, files=(path,)):
        if not _is_torch(path):
            return load_file(path)
        found = _load(path, "cpu")
        for wrapping in WRAPPINGS:
            if not isinstance(found, dict):
                raise TypeError(f"it holds a {type(found).__name__}, not tensors by name")
            found = found.get(wrapping, found)
        return {str(name): value.detach() for name, value in found.items() if _is_dense(value, path)}


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read the tensors and plain values of a training, as torch.save wrote them, onto a device.

    Raises:
        MissingData: if there is no such file.
        BrainhiveError: if it is damaged.
    """
    with reading(path, "training goes on from the one before, or anew", BrainhiveError, files=(path,)):
        found: dict[str, Any] = _load(path, device)
        if not isinstance(found, dict):
            raise TypeError(f"it holds a {type(found).__name__}")
        return found


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file with a digest of what it holds, which `read` verifies.

    Any reader of safetensors reads it. The same tensors give the same bytes.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(state, path, {"format": "pt", **(metadata or {}), DIGEST: _digest(sorted(state.items()))})
    with path.open("r+b") as stream:  # the library writes metadata in any order
        (size,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        stream.seek(8)
        stream.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size))


def fill(
    module: nn.Module,
    state: Mapping[str, Tensor],
    where: Path | str,
    hint: str = OTHER_MODEL,
    error: type[BrainhiveError] = BrainhiveError,
) -> None:
    """Put weights into a module; one on the meta device takes them as they are, dtype and all.

    Raises:
        BrainhiveError: `error`, if a weight is missing, surplus, of another shape, or not of real numbers
            where these are needed; it names the first.
    """
    needed = module.state_dict()
    for key in sorted(needed.keys() | state.keys()):
        found, own = (tuple(each[key].shape) if key in each else "none" for each in (state, needed))
        if found != own:
            raise error(f"{where}: {key} has shape {found}, {own} is needed", hint)
        if state[key].is_floating_point() != needed[key].is_floating_point():
            kinds = f"is of {state[key].dtype}, {needed[key].dtype} is needed"
            raise error(f"{where}: {key} {kinds}", hint)
    module.load_state_dict(state, assign=any(each.is_meta for each in module.parameters()))


@contextmanager
def reading(
    where: Path | str,
    hint: str = DOWNLOAD,
    error: type[BrainhiveError] = MissingData,
    files: Iterable[Path] = (),
    problem: str = "is damaged or half-downloaded",
) -> Iterator[None]:
    """Turn what a library raises about weights and their config into one line; Ctrl-C remains Ctrl-C.

    Args:
        where: What is read, for the message.
        hint: What to do if it is damaged.
        error: What is raised if it is damaged.
        files: Files of weights to verify before: digests, and what torch's archives keep of their records.
        problem: What is wrong with it, in words.
    """
    try:
        for path in files:
            _verify(path, hint)
        yield
    except Exception as reason:
        if isinstance(reason, BrainhiveError) or _is_of_the_system(reason) or companions.behind(reason):
            raise
        _raise_interrupt(reason)
        raise error(f"{where} {problem}: {_why(reason)}", hint) from reason


def check_sizes(
    config: Any, where: Path | str, hint: str = DOWNLOAD, error: type[BrainhiveError] = MissingData
) -> None:
    """Refuse numbers in a model's config that no network has, before a library makes one of that size.

    Raises:
        BrainhiveError: `error`, with the key.
    """
    todo = [("", config)]
    for key, value in todo:
        if key.split(".")[-1] in FACTORS and not (value and type(value) in (int, float)):
            raise error(f"{where}: {key} is {value!r}, and must be a number other than 0", hint)
        if isinstance(value, dict):
            todo += [(f"{key}.{name}".lstrip("."), each) for name, each in value.items()]
        elif isinstance(value, list | tuple):
            todo += [(key, each) for each in value]
        elif isinstance(value, int) and abs(value) > (most := DEEPEST if LAYERS.search(key) else WIDEST):
            raise error(f"{where}: {key} is {value}, and at most {most} is possible", hint)
        elif isinstance(value, int) and value < 0 and SIZES.search(key):
            raise error(f"{where}: {key} is {value}, and no size is negative", hint)
        elif isinstance(value, float) and not math.isfinite(value):
            raise error(f"{where}: {key} is {value}, which is no number", hint)


def _verify(path: Path, hint: str) -> None:
    if not path.is_file():
        raise MissingData(f"there is no file {path}", hint)
    if _is_torch(path):
        if zipfile.is_zipfile(path):
            _verify_records(path)
        return
    with safe_open(path, "pt") as opened:
        written = (opened.metadata() or {}).get(DIGEST)
        names = sorted(opened.keys())
        if written is not None and written != _digest((name, opened.get_tensor(name)) for name in names):
            raise ValueError("its digest is not the one written with it")


def _digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Digest names, dtypes, shapes and bytes of tensors on the CPU (xxh3, 32 hexadecimal digits)."""
    digest = xxhash.xxh3_128()
    for name, value in tensors:
        digest.update(f"{name} {value.dtype} {[*value.shape]}\n".encode())
        if value.numel():
            digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_torch(path: Path) -> bool:
    """Tell what torch wrote from safetensors, whose first 8 bytes are a length and may be a pickle's too."""
    with path.open("rb") as stream:
        start = stream.read(9)
    return start.startswith((ZIP, PICKLE)) and start[8:] != b"{"


def _verify_records(path: Path) -> None:
    """Compare the records of an archive with their CRC32, which torch itself does not."""
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise ValueError("torch writes no compressed records")
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise ValueError("its records are larger than the file")
        if changed := archive.testzip():
            raise ValueError(f"the record {changed} was changed")


def _load(path: Path, device: torch.device | str) -> Any:
    """Load an archive mapped, so that no tensor reaches beyond the file; older files cannot be."""
    is_allowed = torch.serialization.safe_globals([argparse.Namespace])  # DINO's keeps its command line
    with is_allowed, warnings.catch_warnings(action="ignore"):
        return torch.load(path, weights_only=True, map_location=device, mmap=zipfile.is_zipfile(path))


def _is_dense(value: Any, path: Path) -> bool:
    if not isinstance(value, Tensor):
        return False
    is_plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    most = max(path.stat().st_size, LARGEST_REPEATED)
    if not is_plain or value.numel() * value.element_size() > most:
        raise ValueError(f"a tensor of shape {[*value.shape]} is not stored whole")
    return True


def _is_of_the_system(error: Exception) -> bool:
    """Whether it is about disk, permissions or memory, unless more of it was wanted than there can be."""
    of_the_gpu = getattr(torch, "AcceleratorError", torch.OutOfMemoryError)  # since version 2.8
    if isinstance(error, torch.OutOfMemoryError | of_the_gpu | MemoryError):
        return True
    if wanted := re.search(r"tried to allocate (\d+) bytes", str(error)):
        return int(wanted[1]) < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = re.search(OS_ERROR, str(error))
    number = int(found[1] or found[2]) if found else error.errno if isinstance(error, OSError) else None
    if isinstance(error, RuntimeError) and "CUDA error" in str(error):  # before version 2.8
        return True
    return number is not None and number not in OF_THE_FILE


def _raise_interrupt(error: BaseException) -> None:
    """Raise the Ctrl-C that a library has made an error of its own from, if there is one."""
    if "KeyboardInterrupt" in str(error):  # of what Python calls from Rust only the text is left
        raise KeyboardInterrupt from error
    cause = error.__cause__ or error.__context__
    if isinstance(cause, KeyboardInterrupt | SystemExit):
        raise cause
    if cause is not None:
        _raise_interrupt(cause)


def _why(error: Exception) -> str:
    text = " ".join(str(error).split()).rpartition("WeightsUnpickler error: ")[2]
    if named := re.search(r"GLOBAL (\S+) was not", text):
        return f"it holds more than tensors, {named[1]}, and no code of a file is run"
    return (text if len(text) <= SHOWN else f"{text[:SHOWN]}…") or type(error).__name__
