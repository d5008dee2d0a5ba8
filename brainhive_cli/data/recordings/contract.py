"""Contract of preparations: from raw recordings to the trials of each session."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import (
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    TypeVar,
    runtime_checkable,
)

from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.tables import Table
from brainhive_cli.data.signals.trials import Trials

Arguments = ParamSpec("Arguments")

MethodResult = TypeVar("MethodResult")

# {subject}, or with zeros up to a width: {subject:02d}
SUBJECT = re.compile(r"\{subject(?::0\dd)?\}")


def fill_subject(pattern: str, subject: int, label: str = "") -> str:
    """Fill in `{subject}`, `{subject:02d}` and `{label}`, which is 07A of sub-07A, of a
    path.
    """
    # the subject's field alone, so that {label} stays
    path = SUBJECT.sub(lambda field: field[0].format(subject=subject), pattern)
    return path.replace("{label}", label) if label else path


def list_subjects(root: Path, patterns: Iterable[str]) -> tuple[int, ...]:
    """List the subjects of whom there are files or folders of these patterns, which
    have `{subject}`.
    """
    subjects: set[int] = set()
    for pattern in patterns:
        for path in root.glob(SUBJECT.sub("*", pattern)):
            # a number in the path is the subject if the pattern with that number
            # matches
            numbers = map(int, re.findall(r"\d+", str(path.relative_to(root))))
            subjects.update(n for n in numbers if path.match(pattern.format(subject=n)))
    return tuple(sorted(subjects))


def cached_method(
    method: Callable[Concatenate[Any, Arguments], MethodResult],
) -> cached_property[Callable[Arguments, MethodResult]]:
    """Compute a method once for each of its arguments, as long as the object lives."""
    # the property belongs to one object, and its cache vanishes with it
    return cached_property(lambda self: cache(partial(method, self)))  # type: ignore[arg-type, return-value]


@dataclass(frozen=True)
class Overview:
    """Overview of recordings before they are prepared.

    Attributes:
        tables: Contents of the recordings.
        warnings: Unusual facts, a line each.
        way: The override that avoids them; empty where there is none.
    """

    tables: tuple[Table, ...] = ()
    warnings: tuple[str, ...] = ()
    override: str = ""


class NoTrials(MissingData):
    """A session without any whole trial, which is left out of its subject's store."""


class Preparation(ABC):
    """Base of preparations that prepare session by session.

    Attributes:
        dataset: The data set whose stimuli were shown, under whose name the signals are
            kept.
        order_seed: Seed by which the repetitions of a stimulus are shuffled in the end;
            None for the order of time.
    """

    dataset: str
    order_seed: int | None = None

    @property
    @abstractmethod
    def subjects(self) -> tuple[int, ...]:
        """The subjects whose files are there."""

    @abstractmethod
    def files(self, subject: int) -> Sequence[Path]:
        """List all files that are read of a subject; none is opened.

        Raises:
            MissingData: naming the first file that is missing, and where to get it.
        """

    @abstractmethod
    def sessions(self, subject: int) -> Sequence[int]:
        """List the sessions of a subject, ascending."""

    @abstractmethod
    def shapes(self, subject: int, session: int) -> Mapping[str, tuple[int, int, int]]:
        """Count the trials, channels and samples [n, C, T] that a session will have, by
        split.

        Files are opened and checked, signals are not read.

        Raises:
            NoTrials: if it has no whole trial.
            BrainhiveError: naming a file that is damaged or does not hold what it
                should.
        """

    @abstractmethod
    def session(self, subject: int, session: int) -> Mapping[str, Trials]:
        """Read one session and prepare its trials [n, 1, C, T], by split; none that is
        empty.

        The provenance has the number of other trials as `dropped`, by reason.

        Raises:
            NoTrials: if it has no whole trial.
            BrainhiveError: naming a file that is damaged or does not hold what it
                should.
        """

    def look_over(self, subjects: Sequence[int]) -> Overview:
        """Describe recordings of which little is known before their headers are opened.

        Subjects whose files cannot be prepared are left out.
        """
        return Overview()

    def finish(
        self, subject: int, recordings: Mapping[str, Trials]
    ) -> Mapping[str, Trials]:
        """Take the steps that need all sessions of a subject: joined recordings [N, R,
        C, T], by split.

        Signals need not be in memory.
        """
        return recordings


@runtime_checkable
class Merged(Protocol):
    """Contract of a preparation whose files hold all repetitions of a stimulus
    together.
    """

    @property
    def dataset(self) -> str:
        """As of a Preparation."""

    @property
    def subjects(self) -> tuple[int, ...]:
        """As of a Preparation."""

    def files(self, subject: int) -> Sequence[Path]:
        """List all files that are read of a subject, as a Preparation does."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the files hold."""

    def recording(self, subject: int, split: str) -> Trials:
        """Open a subject's recording of a split; its signal is sliced later, so it need
        not be in memory.

        Raises:
            BrainhiveError: naming a file that is damaged or does not hold what it
                should.
        """
