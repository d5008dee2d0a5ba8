"""Signals that are read when they are sliced, and trials grouped by stimulus."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from brainhive_cli.core.errors import BrainhiveError

S = TypeVar("S", bound=Hashable)
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


def grouped(stimuli: Sequence[S]) -> tuple[list[S], NDArray[np.int64], NDArray[np.int64]]:
    """Group trials by stimulus, in the order of first sight.

    Returns:
        The stimuli [N], the trials of each [N, R] (-1 where there is none), and how many there are [N].
    """
    places: dict[S, list[int]] = {}
    for trial, stimulus in enumerate(stimuli):
        places.setdefault(stimulus, []).append(trial)
    counts = np.array([len(trials) for trials in places.values()], np.int64)
    table = np.full((len(places), counts.max(initial=0)), -1, np.int64)
    for row, trials in zip(table, places.values(), strict=True):
        row[: len(trials)] = trials
    return [*places], table, counts
