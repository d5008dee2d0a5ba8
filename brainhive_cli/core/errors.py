"""The tree of errors that end a command with one clear line and an exit code of their own."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class BrainhiveError(Exception):
    """Something the user can fix.

    Args:
        message: One line that says what is wrong and where.
        hint: One line that says what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def in_one_line(self) -> str:
        """What is wrong, and what to do in brackets."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


class RecipeError(BrainhiveError):
    """A recipe, flag or override that does not hold."""

    exit_code = 2


class MissingData(BrainhiveError):
    """Data or weights that are not where they are expected."""

    exit_code = 3


class MissingExtra(BrainhiveError):
    """A library that is not installed; the hint is the pip line."""

    exit_code = 4


class DeviceError(BrainhiveError):
    """A device that is absent, out of memory or failing."""

    exit_code = 5


class LostProcess(BrainhiveError):
    """The loss of another process of the launch, whose own error is the cause."""


def first_line(error: BaseException) -> str:
    """Shorten what a library says to its first line; the error's type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file that an error is of."""
    try:
        yield
    except BrainhiveError as error:
        raise type(error)(f"{path}: {error.message}", error.hint) from error


def guess(name: str, known: Iterable[str]) -> str:
    """Open a hint with the known name that is nearest; empty if none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}? " if near else ""


INTERRUPTED = 130
"""Exit code of a command that Ctrl-C stopped (128 + SIGINT), as shells have it."""
