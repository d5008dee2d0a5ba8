"""Whether an array lies in a mapped file."""

import mmap
from typing import Any


def is_mapped(values: Any) -> bool:
    """Follow the views of an array to the memory that they are of."""
    while hasattr(values, "base"):
        values = values.base
    return isinstance(values, mmap.mmap)
