"""The design of the Natural Scenes Dataset: which picture each trial of a subject showed, and to whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.damage import reading
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.files import files_called, is_file

SESSIONS = (40, 40, 32, 30, 40, 32, 40, 30)
"""Of subjects 1 to 8."""
SUBJECTS = range(1, len(SESSIONS) + 1)
SESSION_TRIALS = 750
"""Trials of a session."""
FIRST_RELEASE = 37
"""Sessions of the first release: 982 of the shared pictures were seen in them, and 8,859 others."""
SHARED, PICTURES = 1000, 73000
"""Pictures that all subjects were to see, and pictures in all."""
MATRIX = "nsd_expdesign.mat"
FOLDER = "nsddata/experiments/nsd"
SOURCE = f"sign the agreement of naturalscenesdataset.org, then fetch {FOLDER} into that folder"


def image_id(row: int) -> str:
    """Name a picture, by its row of imgBrick counted from 0, as NSD's own files do, which count from 1."""
    return f"nsd{row + 1:05d}"


def path_of(root: Path) -> Path:
    """Find the design below a root; MissingData where it is not there."""
    usual = root / FOLDER / MATRIX
    found = [usual] if is_file(usual) else files_called(MATRIX, root)
    if not found:
        raise MissingData(f"nsd: no {usual}", SOURCE)
    return found[0]


@dataclass(frozen=True)
class Design:
    """The trials of a subject in the order of time, over all sessions that were planned.

    Attributes:
        rows: [30000] the picture of each, as a row of imgBrick counted from 0.
        is_test: [30000] whether it is one of those that all subjects were to see.
    """

    rows: NDArray[np.int64]
    is_test: NDArray[np.bool_]

    @classmethod
    def open(cls, path: Path, subject: int) -> Self:
        """Read the design.

        Raises:
            BrainhiveError: if the file is damaged, or numbers pictures that do not exist.
        """
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError

        with reading(path, SOURCE):
            try:
                content = loadmat(path, variable_names=("masterordering", "subjectim"))
            except MatReadError as error:
                raise ValueError(str(error)) from error
            order, by_subject = (np.asarray(content[key]) for key in ("masterordering", "subjectim"))
            order, pictures = order.ravel().astype(np.int64), by_subject.astype(np.int64)
        is_whole = pictures.ndim == 2 and len(pictures) >= subject and order.size % SESSION_TRIALS == 0
        if not is_whole or not (_counts(order, pictures.shape[1]) and _counts(pictures, PICTURES)):
            raise BrainhiveError(f"{path} is not NSD's design: its numbers go beyond its pictures", SOURCE)
        return cls(pictures[subject - 1, order - 1] - 1, order <= SHARED)

    def trials(self, session: int) -> slice:
        """Say which trials are those of a session, which is counted from 1."""
        return slice((session - 1) * SESSION_TRIALS, session * SESSION_TRIALS)

    def in_order_of_first_sight(self, is_test: bool) -> Sequence[int]:
        """List the rows of the pictures of a split, each once."""
        return list(dict.fromkeys(self.rows[self.is_test == is_test].tolist()))

    def seen(self, sessions: int) -> tuple[int, int]:
        """Count the training and the test pictures that the first sessions showed."""
        until = slice(sessions * SESSION_TRIALS)
        rows, is_test = self.rows[until], self.is_test[until]
        return len(np.unique(rows[~is_test])), len(np.unique(rows[is_test]))


def _counts(values: NDArray[np.int64], most: int) -> bool:
    return bool(values.size) and bool(((values >= 1) & (values <= most)).all())
