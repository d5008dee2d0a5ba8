"""Exceptions of libraries and of the system as errors of ours."""

import os
import re

from brainhive_cli.core import companions
from brainhive_cli.core.errors import BrainhiveError, DeviceError, MissingExtra, first_line

OUT_OF_MEMORY = r"^\w*MemoryError: |DefaultCPUAllocator: "
"""Of a GPU (torch), of Python and NumPy, and of torch on a CPU."""
RUST_OS_ERROR = r"\(os error (\d+)\)"
"""How safetensors, which is written in Rust, reports an error of the system."""


def describe(error: Exception, less_memory: str = "") -> BrainhiveError:
    """Turn any exception into an error with one line on what is wrong and one on what to do.

    Args:
        error: What was raised.
        less_memory: Overrides of the recipe with which its command needs less memory.
    """
    may_be_an_import = isinstance(error, MissingExtra) or not isinstance(error, BrainhiveError)
    if may_be_an_import and (broken := companions.behind(error)):
        return broken
    if isinstance(error, BrainhiveError):
        return error
    text = f"{type(error).__name__}: {error}"
    if re.search(OUT_OF_MEMORY, text):
        way = f"{less_memory or 'a device with more memory'}; what is finished is kept"
        return DeviceError(f"out of memory: {first_line(error)}", way)
    if found := re.search(RUST_OS_ERROR, text):
        error = OSError(int(found[1]), os.strerror(int(found[1])))
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        way = "free space or fix permissions; the same command continues"
        return BrainhiveError(f"{where}{error.strerror}", way)
    return BrainhiveError(
        f"unexpected {type(error).__name__}: {first_line(error)}", "this is a bug; --debug shows where"
    )
