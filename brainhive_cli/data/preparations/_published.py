"""Betas that others have published: the files of a subject, in one form for all data sets."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.data.preparations._betas import Betas, SessionBetas, Trials
from brainhive_cli.data.preparations._prepared import list_subjects
from brainhive_cli.data.published_data import FOLDERS
from brainhive_cli.data.stores.recordings import Voxels

SPLITS = ("train", "test", "imagery")


class Subject(NamedTuple):
    """Content of the files of a subject.

    Attributes:
        files: All files that are read.
        voxels: Regions, maps and positions.
        width: Number of voxels.
        trials: Picture, split, session and run of each trial, as many as there are betas; in place of a split
            the reason why it is left out.
        read: Reader of the betas [n, V] of a session.
        fitted: Trials over which betas were estimated together, where that is known.
    """

    files: Sequence[Path]
    voxels: Voxels
    width: int
    trials: Sequence[tuple[str, str, int, int]]
    read: Callable[[int], NDArray[Any]]
    fitted: str = ""


@dataclass(frozen=True, kw_only=True)
class PublishedBetas(Betas):
    """The betas below one root.

    Attributes:
        patterns: Files or folders, at most three folders below the root, one of which each subject has.
        find: Config, root and subject to all but the betas; MissingData where a file is not there.
        unit: Unit of the betas.
    """

    dataset: str = ""  # with a default, as a field without one would be the abstract property
    patterns: Sequence[str] = ()
    find: Callable[[Any, Path, int], Subject] | None = None
    unit: str = "% signal change"

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects whose files are there."""
        return list_subjects(self.root, [folder + pattern for pattern in self.patterns for folder in FOLDERS])

    def files(self, subject: int) -> Sequence[Path]:
        """List all files of a subject."""
        return [*dict.fromkeys(self.subject(subject).files)]

    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions in which there are trials."""
        return sorted({session for _, _, session, _ in self.subject(subject).trials})

    def voxels(self, subject: int) -> Voxels:
        """Give regions, maps and positions of the voxels."""
        return self.subject(subject).voxels

    def width(self, subject: int) -> int:
        """Count the voxels."""
        return self.subject(subject).width

    def trials(self, subject: int, session: int) -> Trials:
        """List the trials of a session."""
        # a split that is none of SPLITS is the reason why a trial is left out
        trials = [trial for trial in self.subject(subject).trials if trial[2] == session]
        names, splits, _, runs = zip(*trials, strict=True)
        dropped = Counter(split for split in splits if split not in SPLITS)
        used = np.where(np.isin(splits, SPLITS), splits, "")
        fitted = {"fitted": self.subject(subject).fitted}
        return Trials(names, used, np.array(runs), dropped, provenance=fitted)

    def read(self, subject: int, session: int) -> SessionBetas:
        """Read the betas of a session."""
        values = self.subject(subject).read(session)
        return SessionBetas(values.astype(np.float32, copy=False), unit=self.unit)

    @cached_property
    def subject(self) -> Callable[[int], Subject]:
        """Find the files of a subject and their content, once."""
        return cache(self.open)

    def open(self, subject: int) -> Subject:
        """Find all of a subject but the values of betas."""
        assert self.find is not None  # a subclass without it has its own `open`
        return self.find(self.config, self.root, subject)
