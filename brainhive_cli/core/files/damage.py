"""Errors for damaged files, as distinct from errors of the machine.

Errors of the machine come from the disk, the permissions, the memory or the GPU.
"""

import csv
import errno
import gzip
import os
import pickle
import re
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from xml.parsers.expat import ExpatError

from brainhive_cli.core.base import (
    BrainhiveError,
    MissingData,
    first_line,
    system_error_number,
)
from brainhive_cli.core.files.files import UnfitFile, require_regular

DAMAGE_EXCEPTIONS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zlib.error,
    csv.Error,
    tarfile.TarError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    ExpatError,
)
"""Exceptions that h5py, zipfile, tarfile, pyarrow, PIL, NumPy, torch and our own checks
raise for damaged files.
"""


@contextmanager
def report_damage(
    path: Path,
    way_out: str,
    error: type[BrainhiveError] = MissingData,
    exceptions: tuple[type[Exception], ...] = DAMAGE_EXCEPTIONS,
) -> Iterator[None]:
    """Replace exceptions in a `with` block that reads a file by an error for users.

    Errors of the machine pass, and so do errors for users, except for `UnfitFile`.

    Args:
        path: File that the block reads.
        way_out: Advice on how to get an undamaged file.
        error: Class of the error that is raised for a damaged file.
        exceptions: Exceptions that count as damage. nibabel has exceptions of its own.

    Raises:
        BrainhiveError: if the file is damaged, or not regular. The class is `error`.
    """
    try:
        # reading a pipe or device could wait forever
        if os.path.lexists(path) and not path.is_dir():
            require_regular(path)
        yield
    except UnfitFile as reason:
        raise error(reason.message, way_out) from reason
    except exceptions as reason:
        if isinstance(reason, BrainhiveError) or is_machine_error(reason):
            raise
        format_problem, format_hint = _describe_format(path)
        if format_problem:
            raise error(f"{path} {format_problem}", format_hint) from reason
        problem = _describe_problem(reason)
        raise error(f"{path} is damaged or cut short: {problem}", way_out) from reason


def _describe_format(path: Path) -> tuple[str, str]:
    """Describe a whole file whose name states another format, with the way out.

    Returns:
        Empty texts for other files.
    """
    with suppress(OSError, EOFError, zlib.error):
        # First bytes of a .mat of version 5 to 7, which is no HDF5.
        matlab_start = b"MATLAB 5.0"
        with path.open("rb") as file:
            start = file.read(len(matlab_start))
        is_called_packed = path.name.lower().endswith((".gz", ".mgz", ".tgz"))
        if start == matlab_start:
            return "is a .mat of an older version", "save it in MATLAB with -v7.3"
        # First bytes of NIfTI in either byte order, NIfTI-2, MGH and FIF.
        unpacked_starts = (
            b"\x5c\x01\0\0",
            b"\0\0\x01\x5c",
            b"\x1c\x02\0\0",
            b"\0\0\0\x01",
            b"\0\0\0\x64",
        )
        if is_called_packed and start.startswith(unpacked_starts):
            return "is not packed by gzip", f"rename it to {path.stem}"
        # First bytes of a file that gzip packed.
        gzip_mark = b"\x1f\x8b"
        if start.startswith(gzip_mark):
            if not is_called_packed:
                return "is packed by gzip", f"rename it to {path.name}.gz"
            with gzip.open(path) as packed:
                if packed.read(len(gzip_mark)) == gzip_mark:
                    return "is packed by gzip twice", f"unpack it once: gunzip {path}"
    return "", ""


def _describe_problem(error: Exception) -> str:
    """Return the `strerror` of an exception, or else the cause in its first line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # h5py writes the cause in brackets: "Unable to open file (bad signature)"
    _, _, problem = first_line(error).rpartition("(")
    problem = problem.rstrip(")")
    # the text of a KeyError is only the missing key
    return f"it has no {problem}" if isinstance(error, KeyError) else problem


def refuse_inflation(memory_bytes: int, file_bytes: int, name: str) -> None:
    """Raise an error if a compressed array would be suspiciously large in memory.

    Args:
        memory_bytes: Size of the uncompressed array in memory.
        file_bytes: Size of the compressed array in the file.
        name: Name of the array, with which the error message begins.

    Raises:
        ValueError: if the array takes more than `max_unchecked_bytes` in memory, and
            more than 100 times its size in the file.
    """
    # Largest size in memory of an array whose ratio is not checked (256 MiB).
    max_unchecked_bytes = 2**28
    # Largest ratio between the size of an array in memory and its size in the file.
    # Measured values and weights never compress so well.
    if memory_bytes > max(max_unchecked_bytes, 100 * file_bytes):
        raise ValueError(
            f"{name} would take {memory_bytes:.3g} bytes in memory, but has only "
            f"{file_bytes:.3g} bytes in the file"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error says that the machine or the GPU lacks memory."""
    # Pattern of errors about a lack of memory. The first alternative matches errors of
    # torch on a GPU, Python and NumPy, the second torch on a CPU, and the third HDF5.
    out_of_memory = (
        r"^\w*MemoryError: |DefaultCPUAllocator: |\(memory allocation failed"
    )
    match = re.search(out_of_memory, f"{type(error).__name__}: {error}")
    return match is not None or system_error_number(error) == errno.ENOMEM


def is_machine_error(error: BaseException) -> bool:
    """Return True if the machine, not the file, caused an error of reading a file.

    If memory runs out in decompression, HDF5 reports a damaged chunk, which is missed.
    """
    if is_out_of_memory(error):
        return True
    # Pattern of GPU errors of torch 2.8 and later, and of earlier versions.
    if re.search(r"^AcceleratorError: |CUDA error", f"{type(error).__name__}: {error}"):
        return True
    # Error numbers of the operating system that the content or kind of a file causes.
    # The value None stands for an exception without an error number. All other error
    # numbers are errors of the machine.
    content_error_numbers = (
        None,
        errno.EFBIG,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EOVERFLOW,
    )
    return system_error_number(error) not in content_error_numbers
