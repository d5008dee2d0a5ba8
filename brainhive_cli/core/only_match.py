"""Choice among several readings of a file or name, of which only one may fit."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from brainhive_cli.core.errors import BrainhiveError

Candidate = TypeVar("Candidate")


def choose_only(
    readings: Mapping[str, Candidate], subject: str, hint: str
) -> Candidate | None:
    """Return the only reading that fits.

    Args:
        readings: Values of the readings that fit, by description. Several readings with
            equal values are allowed.
        subject: Name of the file or name that is read, for the message.
        hint: Hint of the error.

    Returns:
        Value of the reading, or None if no reading fits.

    Raises:
        BrainhiveError: if readings with different values fit. The message names the
            first reading, and the first that differs from it.
    """
    if not readings:
        return None
    first_name, first_reading = next(iter(readings.items()))
    for name, reading in readings.items():
        if not np.array_equal(reading, first_reading):  # type: ignore[arg-type]
            raise BrainhiveError(
                f"{subject} can be read in two ways: {first_name}, or {name}", hint
            )
    return first_reading
