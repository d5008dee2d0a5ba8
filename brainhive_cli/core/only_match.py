"""Choice among the readings of a file or name: it must be the only one that fits."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from brainhive_cli.core.errors import BrainhiveError

Candidate = TypeVar("Candidate")


def choose_only(
    readings: Mapping[str, Candidate], subject: str, hint: str
) -> Candidate | None:
    """Return the only reading that fits; None if none does.

    Args:
        readings: The readings that fit, by their names in words. Readings with equal
            values count as one.
        subject: What is read, for the message.
        hint: What the user can do if several fit.

    Raises:
        BrainhiveError: if readings with different values fit. The message names the
            first two.
    """
    names = [*readings]
    for name in names[1:]:
        if not np.array_equal(readings[name], readings[names[0]]):  # type: ignore[arg-type]
            raise BrainhiveError(
                f"{subject} can be read in two ways: {names[0]}, or {name}", hint
            )
    return readings[names[0]] if names else None
