"""Contract of preparations: from raw recordings to the trials of each session."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from brainhive_cli.core.base import MissingData, Table
from brainhive_cli.core.files import Input
from brainhive_cli.data.recordings.account import Account
from brainhive_cli.data.signals import Trials

MethodArguments = ParamSpec("MethodArguments")

MethodResult = TypeVar("MethodResult")

SUBJECT_FIELD = re.compile(r"\{subject(?::0\dd)?\}")
"""Field of a pattern for the subject's number: `{subject}`, or `{subject:02d}`."""


def fill_subject(pattern: str, subject: int, label: str = "") -> str:
    """Fill in the fields `{subject}`, `{subject:02d}` and `{label}` of a path.

    Args:
        pattern: Path with these fields.
        subject: Number of the subject.
        label: Label of the subject, such as "07A", or "" to keep `{label}`.
    """
    path = SUBJECT_FIELD.sub(lambda field: field[0].format(subject=subject), pattern)
    return path.replace("{label}", label) if label else path


def list_subjects(root: Path, patterns: Iterable[str]) -> tuple[int, ...]:
    """List the subjects with a file or folder that matches a pattern.

    Args:
        root: Folder.
        patterns: Patterns of paths below `root`, with a field `{subject}`.

    Returns:
        Numbers of the subjects, ascending.
    """
    subjects: set[int] = set()
    for pattern in patterns:
        for path in root.glob(SUBJECT_FIELD.sub("*", pattern)):
            # try each number in the path as the subject
            for digits in re.findall(r"\d+", str(path.relative_to(root))):
                if path.match(pattern.format(subject=int(digits))):
                    subjects.add(int(digits))
    return tuple(sorted(subjects))


def cached_method(
    method: Callable[Concatenate[Any, MethodArguments], MethodResult],
) -> cached_property[Callable[MethodArguments, MethodResult]]:
    """Decorate a method to cache its results as long as its object lives."""
    # functools.cache on the method would keep the object alive
    return cached_property(lambda self: cache(partial(method, self)))  # type: ignore[arg-type, return-value]


@dataclass(frozen=True)
class Overview:
    """Overview of recordings before they are prepared.

    Attributes:
        tables: Contents of the recordings.
        warnings: Unusual facts, a line each.
        override: Override of the recipe that avoids the warnings, or "".
        account: What is set aside, and what does not add up.
    """

    tables: tuple[Table, ...] = ()
    warnings: tuple[str, ...] = ()
    override: str = ""
    account: Account = field(default_factory=Account)


class NoTrials(MissingData):
    """Error for a session without a whole trial. Stores omit such sessions."""


class Preparation(ABC):
    """Base class of preparations, which read recordings session by session.

    Attributes:
        dataset: Name of the data set of the stimuli, under which signals are stored.
        order_seed: Seed that shuffles the repetitions of each stimulus, or None to keep
            the order of time.
    """

    dataset: str
    order_seed: int | None = None

    @property
    @abstractmethod
    def subjects(self) -> tuple[int, ...]:
        """Numbers of the subjects with files."""

    @abstractmethod
    def files(self, subject: int) -> Sequence[Path]:
        """List the files of a subject that are read, without opening them.

        Raises:
            MissingData: with the first missing file and its source.
        """

    def inputs(self, subject: int) -> list[Input]:
        """List the files that `--check` lists one by one, absent ones included."""
        return []

    @abstractmethod
    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions of a subject, ascending.

        Empty if its files join all repetitions of a stimulus.
        """

    @abstractmethod
    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Return the shape [n, C, T] of a session's trials by split.

        Open and check the files, but read no signals.

        Args:
            subject: Number of the subject.
            session: Number of the session, or 0 for files without sessions.

        Raises:
            NoTrials: if the session has no whole trial.
            BrainhiveError: if a file is damaged or has unexpected content.
        """

    @abstractmethod
    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Read a session, and prepare its trials [n, C, T] by split.

        Empty splits are left out. `provenance["dropped"]` counts omitted trials.

        Args:
            subject: Number of the subject.
            session: Number of the session, or 0 for files without sessions.

        Raises:
            NoTrials: if the session has no whole trial.
            BrainhiveError: if a file is damaged or has unexpected content.
        """

    def look_over(self, subjects: Sequence[int]) -> Overview:
        """Describe the recordings of subjects. Subjects with errors are left out."""
        return Overview()

    def finish(
        self, subject: int, recordings: Mapping[str, Trials]
    ) -> Mapping[str, Trials]:
        """Apply the steps that need all sessions of a subject.

        Args:
            subject: Number of the subject.
            recordings: Trials [n, C, T] of all sessions by split. Signals may be on
                disk.
        """
        return recordings


class MergedPreparation(Preparation):
    """Base class of preparations whose files join all repetitions of a stimulus.

    Attributes:
        splits: Names of the splits in the files.
    """

    splits: tuple[str, ...]

    @abstractmethod
    def recording(self, subject: int, split: str) -> Trials:
        """Open a subject's trials of a split. Its signals may stay on disk.

        Raises:
            BrainhiveError: if a file is damaged or has unexpected content.
        """

    def sessions(self, subject: int) -> Sequence[int]:
        """Return no session."""
        return ()

    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Return the shape [n, C, T] of each split."""
        recordings = self.session(subject, session)
        return {split: trials.signal.shape for split, trials in recordings.items()}

    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Open all splits of a subject."""
        return {split: self.recording(subject, split) for split in self.splits}
