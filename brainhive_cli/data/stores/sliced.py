"""Signals that are read when they are sliced, and trials grouped by stimulus."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from brainhive_cli.core.errors import BrainhiveError

Read = Callable[[slice], NDArray[Any]]


@dataclass(frozen=True)
class Sliced:
    """Signals [N, R, C, T] of a file that are read when they are sliced along N.

    Attributes:
        path: The file, for errors.
        read: Slice to signals [n, R, C, T].
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Read

    @property
    def ndim(self) -> int:
        """Count the axes."""
        return len(self.shape)

    def __len__(self) -> int:
        """Count the stimuli."""
        return self.shape[0]

    def __getitem__(self, part: slice) -> NDArray[Any]:
        """Read the signals of some stimuli.

        Raises:
            BrainhiveError: if they are not finite.
        """
        found = self.read(part)
        if not np.isfinite(found).all():
            raise BrainhiveError(f"{self.path} has signals that are not finite", "get or make the file again")
        return found


def gathered(
    table: NDArray[np.int64], shape: Sequence[int], dtype: DTypeLike, trial: Callable[[int], Any]
) -> Read:
    """Read trials one by one, in the order of the file; missing repetitions are zeros.

    Args:
        table: [N, R] trial of each repetition, -1 where there is none.
        shape: Of a trial, C and T.
        dtype: Of the result.
        trial: Number of a trial to its signal [C, T].
    """

    def read(part: slice) -> NDArray[Any]:
        wanted = table[part].ravel()
        found = np.zeros((len(wanted), *shape), dtype)
        for place in np.argsort(wanted, kind="stable").tolist():
            if wanted[place] >= 0:
                found[place] = trial(int(wanted[place]))
        return found.reshape(*table[part].shape, *shape)

    return read


def grouped(stimuli: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Group trials by stimulus.

    Args:
        stimuli: [trials] numbers or names, in the order of time.

    Returns:
        The stimuli [N], ascending; the trials of each [N, R], -1 where there is none; how many there are [N].
    """
    found, place, counts = np.unique(stimuli, return_inverse=True, return_counts=True)
    table = np.full((len(found), counts.max(initial=0)), -1, np.int64)
    table[np.arange(table.shape[1]) < counts[:, None]] = np.argsort(place, kind="stable")
    return found, table, counts
