"""Arrays in mapped files."""

import mmap
from typing import Any


def is_mapped(values: Any) -> bool:
    """Return True if an array is a view of a mapped file."""
    while hasattr(values, "base"):
        values = values.base
    return isinstance(values, mmap.mmap)
