"""Errors for damaged files, as distinct from errors of the machine.

A file may be cut short, changed or malicious. The disk, the permissions, the memory or
the GPU may fail too, while a sound file is read.
"""

import csv
import errno
import os
import pickle
import re
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.parsers.expat import ExpatError

from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingData,
    first_line,
    system_error_number,
)
from brainhive_cli.core.files import UnfitFile, require_regular

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
MAX_INFLATION = 100
"""Largest ratio between the size of an array in memory and in its file. Measured values
and weights never compress so well.
"""
MAX_UNCHECKED_BYTES = 2**28
"""Largest size in memory for which this ratio is not checked (256 MiB)."""


@contextmanager
def report_damage(
    path: Path,
    way_out: str,
    error: type[BrainhiveError] = MissingData,
    exceptions: tuple[type[Exception], ...] = DAMAGE_EXCEPTIONS,
) -> Iterator[None]:
    """Turn all exceptions of a block that reads a file into a single kind of error.

    Errors of the machine are not changed. The block should only read the file.

    Args:
        path: The file.
        way_out: Hint of the error: how to get a sound file, in one line.
        error: Class of the error for a damaged file.
        raised: Exceptions that mean a damaged file. A library with exceptions of its
            own, such as nibabel, needs `(Exception,)`.

    Raises:
        BrainhiveError: if the file is damaged. The class is `error`.
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

        # the message has the error text of the system. Else it has the first line of
        # the exception, of which the last brackets hold the text of the inner library
        problem = getattr(reason, "strerror", None)
        if not problem:
            problem = first_line(reason).rsplit("(", 1)[-1].rstrip(")")
        # the text of a KeyError is only the key
        if isinstance(reason, KeyError):
            problem = f"it has no {problem}"
        raise error(f"{path} is damaged or cut short: {problem}", way_out) from reason


def refuse_inflation(size: int, stored: int, name: str) -> None:
    """Raise an error if an array is suspiciously larger in memory than in its file.

    The check comes before the allocation of the memory.

    Args:
        size: Size of the array in memory, in bytes.
        stored: Size of the array in the file, in bytes.
        name: Name of the array.

    Raises:
        ValueError: if the array is larger than `MAX_UNCHECKED_BYTES` and
            `MAX_INFLATION` times as large as in the file.
    """
    if size > max(MAX_UNCHECKED_BYTES, MAX_INFLATION * stored):
        raise ValueError(
            f"{name} would take {size:.3g} bytes in memory, but has only {stored:.3g} "
            "bytes in the file"
        )


CONTENT_ERROR_NUMBERS = (
    None,
    errno.EFBIG,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EOVERFLOW,
)
"""Error numbers of the system that are caused by the content or kind of a file. None
stands for an exception without an error number. All other numbers are errors of the
machine.
"""
OUT_OF_MEMORY = r"^\w*MemoryError: |DefaultCPUAllocator: |\(memory allocation failed"
"""Pattern for errors about memory. They come from torch on a GPU, Python, NumPy, torch
on a CPU, and HDF5.
"""
GPU_ERROR = r"^AcceleratorError: |CUDA error"
"""Pattern for GPU errors of torch, from version 2.8 on and before."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if the memory of the machine or the GPU was too small."""
    match = re.search(OUT_OF_MEMORY, f"{type(error).__name__}: {error}")
    return match is not None or system_error_number(error) == errno.ENOMEM


def is_machine_error(error: BaseException) -> bool:
    """Return True if an error while reading a file is about the machine.

    A lack of memory within a filter of HDF5 is not recognised, because HDF5 reports it
    like a damaged chunk.
    """
    if is_out_of_memory(error):
        return True
    if re.search(GPU_ERROR, f"{type(error).__name__}: {error}"):
        return True
    return system_error_number(error) not in CONTENT_ERROR_NUMBERS
