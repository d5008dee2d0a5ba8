"""Choice among several readings of an ambiguous file or name.

A reading is a way to interpret the file or name, such as `rows are trials`.
"""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from brainhive_cli.core.base.errors import BrainhiveError

T = TypeVar("T")


def choose_only(readings: Mapping[str, T], subject: str, hint: str) -> T | None:
    """Return the value on which all possible readings of a file or name agree.

    Args:
        readings: Value of each reading, by a description such as `rows are trials`.
        subject: File or name that is read, as it is called in the error message.
        hint: Advice in the error message on how to make the reading unique.

    Returns:
        The value, or None without readings.

    Raises:
        BrainhiveError: if two readings have different values.
    """
    if not readings:
        return None
    first_description, first_value = next(iter(readings.items()))
    for description, value in readings.items():
        # the values may be arrays, which `==` compares element by element
        if not np.array_equal(value, first_value):  # type: ignore[arg-type]
            raise BrainhiveError(
                f"{subject} can be read in two ways: {first_description}, "
                f"or {description}",
                hint,
            )
    return first_value
