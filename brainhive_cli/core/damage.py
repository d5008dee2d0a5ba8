"""Errors of reading files that may be cut short, scrambled or hostile, in one line.

Errors of the machine (disk, permissions, memory, GPU) are distinct from those of what a
file holds.
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

RAISED = (
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
"""Exceptions of h5py, zipfile, tarfile, pyarrow, PIL, NumPy, torch and our own checks
for such files.
"""
MAX_INFLATION, NEVER_INFLATED_BYTES = 100, 2**28
"""Arrays that take more than so many times the bytes of their file, and more than 256
MiB, are refused: no measured or learned numbers compress so well.
"""


@contextmanager
def reading(
    path: Path,
    way_out: str,
    error: type[BrainhiveError] = MissingData,
    raised: tuple[type[Exception], ...] = RAISED,
) -> Iterator[None]:
    """Turn whatever reading a file raises, until the block ends, into one error; the
    block should do no more.

    Args:
        path: The file.
        way_out: One line on how to get a sound one.
        error: What is raised instead.
        raised: What the reader raises; `(Exception,)` of a library with exceptions of
            its own, as nibabel.
    """
    try:
        # a pipe or device would be waited on for ever
        if os.path.lexists(path) and not path.is_dir():
            require_regular(path)
        yield
    except UnfitFile as reason:
        raise error(reason.message, way_out) from reason
    except raised as reason:
        if isinstance(reason, BrainhiveError) or is_of_the_machine(reason):
            raise

        # the reason in one line: what the system, or the innermost library, says
        problem = getattr(reason, "strerror", None) or first_line(reason).rsplit(
            "(", 1
        )[-1].rstrip(")")
        # a KeyError says no more than the key
        problem = f"it has no {problem}" if isinstance(reason, KeyError) else problem
        raise error(f"{path} is damaged or cut short: {problem}", way_out) from reason


def refuse_inflation(size: int, stored: int, name: str) -> None:
    """Refuse what would take far more memory than it has bytes in a file, before
    anything is allocated.

    Args:
        size: Bytes that it would take.
        stored: Bytes of the file, or of the part of it that it is read from.
        name: What it is called.

    Raises:
        ValueError: if it would.
    """
    if size > max(NEVER_INFLATED_BYTES, MAX_INFLATION * stored):
        raise ValueError(
            f"{name} would take {size:.3g} bytes in memory, of {stored:.3g} in the file"
        )


OF_CONTENT = (
    None,
    errno.EFBIG,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EOVERFLOW,
)
"""Numbers of errors of the system that come of what a file holds or is; all others are
the machine's.
"""
OUT_OF_MEMORY = r"^\w*MemoryError: |DefaultCPUAllocator: |\(memory allocation failed"
"""Of a GPU (torch), of Python and NumPy, of torch on a CPU, and of HDF5."""
OF_THE_GPU = r"^AcceleratorError: |CUDA error"
"""Messages of torch, since version 2.8 and before."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, of the machine or of a GPU."""
    match = re.search(OUT_OF_MEMORY, f"{type(error).__name__}: {error}")
    return match is not None or system_error_number(error) == errno.ENOMEM


def is_of_the_machine(error: BaseException) -> bool:
    """Whether an error while a file is read is about the machine, and not about what
    the file holds.

    HDF5 reports a lack of memory within its filters as it does a damaged chunk, which
    it is then taken for.
    """
    if is_out_of_memory(error):
        return True
    if re.search(OF_THE_GPU, f"{type(error).__name__}: {error}"):
        return True
    return system_error_number(error) not in OF_CONTENT  # None: no error of the system
