"""Preparations: from raw recordings to the trials of a session, by split.

Private files begin with the name of the part that they belong to (`_nsd_…`, `_recording_…`); `_steps`,
`_noise` and `_prepared` are shared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.tables import Table
from brainhive_cli.data.stores.recordings import Recording, Sensors, Voxels


@dataclass(frozen=True)
class Trials:
    """The trials of one session that belong to one split.

    Attributes:
        signal: [n, C, T], sliceable along n, in the order of `image_ids`.
        image_ids: [n], the stimulus of each trial.
        space: What the second axis is: sensors, or voxels.
        times_s: [T] seconds after stimulus onset.
        rate_hz: Samples a second; None where there is one sample and no rate.
        unit: Of the signal.
        whitener: Σ^(-1/2) [C, C] by which the signals were multiplied; None if by none.
        dropped: How many trials were left out, by reason.
        provenance: What else is worth keeping of how they were prepared, as JSON has it.
    """

    signal: Any
    image_ids: Sequence[str]
    space: Sensors | Voxels
    times_s: NDArray[np.float64]
    rate_hz: float | None
    unit: str
    whitener: NDArray[np.float64] | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the axes.

        Raises:
            BrainhiveError: if there is not one stimulus a trial, or no trial.
        """
        if not len(self.image_ids) or len(self.image_ids) != len(self.signal):
            raise BrainhiveError(f"{len(self.signal)} trials come with {len(self.image_ids)} stimuli")


class Preparation(Protocol):
    """What the file of a preparation builds that prepares session by session."""

    @property
    def dataset(self) -> str:
        """The data set whose stimuli were shown, under whose name the signals are kept."""

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects whose files are there."""

    @property
    def order_seed(self) -> int | None:
        """Seed by which the repetitions of a stimulus are shuffled in the end; None for the order of time."""

    def files(self, subject: int) -> Sequence[Path]:
        """List all files that are read of a subject; none is opened.

        Raises:
            MissingData: naming the first file that is missing, and where to get it.
        """

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions of a subject, ascending."""

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Say how many trials, channels and samples [n, C, T] a session will have, by split.

        Files are opened and checked, signals are not read.

        Raises:
            BrainhiveError: naming a file that is damaged or does not hold what it should.
        """

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Read one session and prepare its trials, by split.

        Raises:
            BrainhiveError: naming a file that is damaged or does not hold what it should.
        """


@dataclass(frozen=True)
class Overview:
    """What people look at before recordings are prepared.

    Attributes:
        tables: What the recordings hold.
        warnings: What is unusual, a line each.
        way: The override that mends what can be mended; empty where there is none.
    """

    tables: tuple[Table, ...] = ()
    warnings: tuple[str, ...] = ()
    way: str = ""


@runtime_checkable
class LookedOver(Protocol):
    """A preparation of recordings of which little is known before they are opened."""

    def look_over(self, subjects: Sequence[int]) -> Overview:
        """Open the headers of these subjects' files; those whose files cannot be prepared are left out."""


@runtime_checkable
class Merged(Protocol):
    """What the file of a preparation builds whose files hold all repetitions of a stimulus together."""

    @property
    def dataset(self) -> str:
        """The data set whose stimuli were shown, under whose name the signals are kept."""

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects whose files are there."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the files hold."""

    def files(self, subject: int) -> Sequence[Path]:
        """List all files that are read of a subject; none is opened.

        Raises:
            MissingData: naming the first file that is missing, and where to get it.
        """

    def recording(self, subject: int, split: str) -> Recording:
        """Open a subject's recording of a split; its signal is sliced later, so it need not be in memory.

        Raises:
            BrainhiveError: naming a file that is damaged or does not hold what it should.
        """
