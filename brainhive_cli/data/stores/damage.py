"""Files that are cut short, scrambled or hostile: what reading them raises, as one line."""

import csv
import pickle
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brainhive_cli.core.errors import BrainhiveError, MissingData, first_line
from brainhive_cli.core.machine_errors import is_of_the_machine
from brainhive_cli.core.plain_files import UnfitFile, require_regular

RAISED = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError, OSError),
    *(RuntimeError, SyntaxError, TypeError, ValueError, pickle.UnpicklingError, struct.error, zlib.error),
    *(csv.Error, tarfile.TarError, tokenize.TokenError, zipfile.BadZipFile),
)
"""What h5py, zipfile, tarfile, pyarrow, PIL, NumPy, torch and our own checks raise of such files."""
INFLATION, SMALL = 100, 2**28
"""Arrays that take more than so many times the bytes of their file, and more than 256 MiB, are refused: no
measured or learned numbers compress so well."""


@contextmanager
def described(path: Path, way_out: str, error: type[BrainhiveError] = MissingData) -> Iterator[None]:
    """Turn whatever reading a file raises, until the block ends, into one error; the block should do no more.

    Args:
        path: The file.
        way_out: One line on how to get a sound one.
        error: What is raised instead.
    """
    try:
        if path.exists() and not path.is_dir():
            require_regular(path)
        yield
    except UnfitFile as reason:
        raise error(reason.message, way_out) from reason
    except RAISED as reason:
        if is_of_the_machine(reason):
            raise
        says = getattr(reason, "strerror", None) or first_line(reason).rsplit("(", 1)[-1].rstrip(")")
        says = f"it has no {says}" if isinstance(reason, KeyError) else says
        raise error(f"{path} is damaged or cut short: {says}", way_out) from reason


def refuse_inflation(size: int, kept: int, name: str) -> None:
    """Refuse what would take far more memory than it has bytes in a file, before anything is allocated.

    Args:
        size: Bytes that it would take.
        kept: Bytes of the file, or of the part of it that it is read from.
        name: What it is called.

    Raises:
        ValueError: if it would.
    """
    if size > max(SMALL, INFLATION * kept):
        raise ValueError(f"{name} would take {size:.3g} bytes in memory, of {kept:.3g} in the file")
