"""Exceptions of libraries and of the system as errors of ours: one table."""

import os
import re
from collections.abc import Callable

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
    for pattern, described in TABLE.items():
        if found := re.search(pattern, text):
            return described(error, found, less_memory)
    if isinstance(error, OSError) and error.strerror:
        return _system(error)
    return BrainhiveError(
        f"unexpected {type(error).__name__}: {first_line(error)}", "this is a bug; --debug shows where"
    )


def _out_of_memory(error: Exception, _: re.Match[str], less_memory: str) -> BrainhiveError:
    return DeviceError(
        f"out of memory: {first_line(error)}",
        f"{less_memory or 'a device with more memory'}; what is finished is kept",
    )


def _rust(error: Exception, found: re.Match[str], _: str) -> BrainhiveError:
    return _system(OSError(int(found[1]), os.strerror(int(found[1]))))


def _system(error: OSError) -> BrainhiveError:
    where = f"{error.filename}: " if error.filename else ""
    return BrainhiveError(
        f"{where}{error.strerror}", "free space or fix permissions; the same command continues"
    )


TABLE: dict[str, Callable[[Exception, re.Match[str], str], BrainhiveError]] = {
    OUT_OF_MEMORY: _out_of_memory,
    RUST_OS_ERROR: _rust,
}
"""A pattern of the exception's type and text, to what it is for the user; the first that matches counts."""
