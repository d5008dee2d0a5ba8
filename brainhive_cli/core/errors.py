"""Errors that end a command early, each with an exit code; the command lines that their
hints name; Ctrl-C.
"""

import errno
import os
import re
import shlex
import signal
import sys
import termios
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from types import FrameType
from typing import Any

OF_LIBRARIES = r"\(os error (\d+)\)|unable to (?:mmap|open|stat) .*\((\d+)\)"
"""Texts by which safetensors, which is written in Rust, and torch report an error of
the system.
"""
JOB = "BRAINHIVE_JOB"
"""Environment variable that the script of a cluster's job sets: the scheduler's id of
the task.
"""
CONTINUES = "the same command continues"
INTERRUPTED = 130
"""Exit code of a command that Ctrl-C stopped (128 + SIGINT), as shells have it; also of
one that SIGTERM or SIGHUP stopped.
"""
INTERRUPTS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
"""Signals that interrupt a command: of Ctrl-C, of `timeout`, `kill` and systemd, and of
a terminal that closes.
"""
OUT_OF_TIME = 75
"""Exit code of a command that was asked to stop before its end (EX_TEMPFAIL): the same
one continues.
"""
_has_come = threading.Event()
"""Whether the command was interrupted. Python raises KeyboardInterrupt where the main
thread is: in a destructor, or a callback of a library in C, it is printed and lost. It
is remembered here, without a traceback, and raised again where it is safe to stop.
"""
_must_stop = threading.Event()
"""Whether SIGUSR1, or SIGTERM in a cluster's job, has asked to stop where the work can
continue.
"""


class Line:
    """A command line that a hint or message names.

    As a text it has what the user's own line had, as far as the next command needs that
    (`completed_by`).

    Attributes:
        command: The subcommand.
        words: What follows it, as `join_words` takes it.
    """

    def __init__(self, command: str, *words: Any) -> None:
        self.command = command
        self.words = words

    def __str__(self) -> str:
        """Write the line; plainly where it cannot be completed, so that its error is
        shown in any case.
        """
        # nothing completes lines outside a command, and a completion may fail
        with suppress(Exception):
            return _completion[-1](self).plain
        return self.plain

    @property
    def plain(self) -> str:
        """The line with its own words alone."""
        return join_words(["brainhive", self.command, *self.words])


SUGGESTED = "suggested"
"""Marks a key that a line has only where its recipe does not set it."""
Hint = str | Line
"""What to do, in one line."""
KEY = re.compile(r"\b[a-z_]+(?:\.\w+)+(?==)")
"""A key of a section of a recipe, where a hint sets it."""
CLAUSE_END = re.compile(r"((?:;|,)? or |; |, )(?![^\[{(]*[\]})])")
"""What joins the ways out in a hint, outside of brackets."""
_has_key: list[Callable[[str], bool]] = []
"""Whether the recipe at hand has a key, in all threads; the last one counts."""
_completion: list[Callable[[Line], Line]] = []
"""What completes lines, in all threads; the last one counts."""


@contextmanager
def completed_by(complete: Callable[[Line], Line]) -> Iterator[None]:
    """Complete the lines that are written in the block."""
    _completion.append(complete)
    try:
        yield
    finally:
        _completion.pop()


@contextmanager
def hints_for(has_key: Callable[[str], bool]) -> Iterator[None]:
    """Leave ways out of hints whose keys the recipe of the block does not have, also
    of the error that ends it.
    """
    _has_key.append(has_key)
    try:
        yield
    except BrainhiveError as error:
        error.hint = error.hint
        raise
    finally:
        _has_key.pop()


def _keep_ways(hint: str) -> str:
    """Keep the ways out of a hint whose keys the recipe at hand has."""
    if not _has_key or all(map(_has_key[-1], KEY.findall(hint))):
        return hint
    # clauses and what joins them take turns
    pieces = CLAUSE_END.split(hint)
    text = ""
    for joint, clause in zip(["", *pieces[1::2]], pieces[::2], strict=True):
        if all(map(_has_key[-1], KEY.findall(clause))):
            text += f"{joint}{clause}" if text else clause
    return text or "correct the data: this command has no key for it"


def join_words(words: Iterable[Any]) -> str:
    """Write words as they are typed.

    Args:
        words: Paths, switches and overrides as they are; a key as (key, value), with a
            list of several values, or as (key, value, SUGGESTED) where a recipe of the
            line may set it. It becomes a flag, or an override where a value is a
            part with knobs; a key without a value is left out.
    """
    typed = list[str]()
    for word in words:
        # paths, switches and overrides as they are
        if not isinstance(word, tuple):
            typed.append(str(word))
        elif word[1]:
            key, value, *_ = word
            has_several = isinstance(value, list | tuple)
            texts = [*map(str, value)] if has_several else [str(value)]
            # a part with knobs holds commas, at which a flag would split it
            if any(text.startswith("{") for text in texts):
                text = ", ".join(texts)
                typed.append(f"{key}=[{text}]" if has_several else f"{key}={text}")
            else:
                typed += [f"--{key}", ",".join(texts)]
    return shlex.join(typed)


def write_value(value: Any) -> str:
    """Write a value as an override takes it, in one line."""
    import yaml

    # a width at which nothing is folded; PyYAML marks the end after a bare scalar
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()


class BrainhiveError(Exception):
    """Something the user can fix.

    Args:
        message: One line that says what is wrong and where.
        hint: One line that says what to do about it.
        exit_code: What the command ends with; default: that of the class.
    """

    exit_code = 1

    def __init__(self, message: str, hint: Hint = "", exit_code: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self._hint = hint
        self.exit_code = exit_code or self.exit_code

    def __str__(self) -> str:
        """Return the message, which those who pass the error on may have extended."""
        return self.message

    @property
    def hint(self) -> str:
        """Advice; a command line in it is written where it is read, also of another
        process's error, and ways out that the command does not have are left out.
        """
        return _keep_ways(str(self._hint))

    @hint.setter
    def hint(self, hint: str) -> None:
        self._hint = hint

    @property
    def in_one_line(self) -> str:
        """Message, with the way out in brackets."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


class RecipeError(BrainhiveError):
    """A recipe, flag or override that does not hold."""

    exit_code = 2


class DamagedStore(BrainhiveError):
    """Rows of a store that are not those which were written: nothing is computed
    without them.
    """


class MissingData(BrainhiveError):
    """Data or weights that are not where they are expected."""

    exit_code = 3


class MissingExtra(BrainhiveError):
    """A library that is not installed; the hint is the pip line."""

    exit_code = 4


def install_line(extra: str = "", checkout: Path = Path(__file__).parents[2]) -> str:
    """Write the line that installs Brainhive with an extra: from the checkout that it
    runs from, or else by its name.
    """
    name = "brainhive"
    option = ""
    if (checkout / "pyproject.toml").is_file():
        name = "." if Path.cwd() == checkout else str(checkout)
        option = "-e "
    return f"pip install {option}{shlex.quote(f'{name}[{extra}]' if extra else name)}"


class DeviceError(BrainhiveError):
    """A device that is absent, out of memory or failing."""

    exit_code = 5


class LostProcess(BrainhiveError):
    """The loss of another process of the launch, whose own error is the cause."""


class Unfinished(Exception):
    """The end of a look for finished work: some of it is still to be done."""


def require_kind(name: str, value: object, kind: type, way: str) -> None:
    """Refuse an argument of a public function that is of another type.

    Raises:
        RecipeError: naming the argument and both types.
    """
    if not isinstance(value, kind):
        raise RecipeError(
            f"{name} is of type {type(value).__name__}, not {kind.__name__}", way
        )


def first_line(error: BaseException) -> str:
    """Shorten what a library says to its first line; the error's type where it says
    nothing.
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def find_error(act: Callable[[], object]) -> BrainhiveError | None:
    """Return the error of ours that a function raises; None where it raises none."""
    try:
        act()
    except BrainhiveError as error:
        return error
    return None


@contextmanager
def naming(what: object) -> Iterator[None]:
    """Name what an error of the block is of, such as a file."""
    try:
        yield
    except BrainhiveError as error:
        error.message = f"{what}: {error.message}"
        raise


def guess(name: str, known: Iterable[str], before: str = "") -> str:
    """Open a hint with the known name that is nearest; empty if none is near.

    A name that begins with all that was written is near, however long it is.

    Args:
        name: What was written.
        known: What it may have meant.
        before: What precedes the name where it is written out, as the section of a
            recipe's key.
    """
    # case is a usual slip, so it does not count
    written = name.casefold()
    names = {candidate.casefold(): candidate for candidate in known}
    begun = [
        candidate
        for candidate in names
        if len(written) > 2 and candidate.startswith(written)
    ]
    near = begun or get_close_matches(written, names)
    if not near:
        return ""

    def measure(other: str) -> tuple[float, int]:
        # of equally near names the one with the longest part in common
        matcher = SequenceMatcher(None, written, other)
        return matcher.ratio(), matcher.find_longest_match().size

    return f"did you mean {before}{names[max(near, key=measure)]}? "


def system_error_number(error: BaseException) -> int | None:
    """Return the number of an error of the system, also where a library writes it as
    text; else None.
    """
    # the number within a text of a library
    if number := re.search(OF_LIBRARIES, str(error)):
        return int(number[1] or number[2])
    return error.errno if isinstance(error, OSError) else None


def find_rows(
    wanted: Sequence[str], names: Sequence[str], where: str
) -> list[int | None]:
    """Find the rows of channels or regions: of their names, else of one that differs in
    case alone.

    Args:
        wanted: [C] what is searched.
        names: Those that are there.
        where: Whose, for the error.

    Returns:
        [C] their rows, each once; None where there is none.

    Raises:
        RecipeError: naming several that match equally.
    """
    # exact names first, so that no other name claims their rows
    rows = [names.index(name) if names.count(name) == 1 else None for name in wanted]

    # then the name that differs in case alone, if there is only one
    for index, name in enumerate(wanted):
        if rows[index] is None:
            folded = name.casefold()
            near = [
                row
                for row, other in enumerate(names)
                if other.casefold() == folded and row not in rows
            ]
            if len(near) > 1:
                listed = ", ".join(names[row] for row in near)
                raise RecipeError(
                    f"{where} has {len(near)} names that may be {name!r}: {listed}",
                    "write the name as one of them is written, or rename one of them",
                )
            rows[index] = near[0] if near else None
    return rows


@contextmanager
def remember_interrupts() -> Iterator[None]:
    """Remember signals that interrupt, or ask to stop, while a command runs.

    In threads, where Python delivers no signals, nothing is done. A signal that was
    ignored before stays so: SIGHUP under `nohup`, SIGINT in the background of a script.

    Raises:
        KeyboardInterrupt: instead of whatever error a library has made of it.
    """

    def remember(number: int, frame: FrameType | None) -> None:
        # systems may send SIGTERM and SIGHUP together: the second one must not
        # interrupt what the first one ends
        leave_closed_terminal()
        is_repeated = _has_come.is_set() and number != signal.SIGINT
        _has_come.set()
        if not is_repeated:
            raise KeyboardInterrupt

    # only the main thread can set handlers
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    # a signal that asks to stop raises nothing: the work ends where it can continue
    handlers: dict[int, Callable[[int, FrameType | None], None]] = {
        signal.SIGUSR1: lambda *_: _must_stop.set()
    }
    handlers |= dict.fromkeys(INTERRUPTS, remember)
    if "LOCAL_RANK" in os.environ:
        # the launcher ends its processes by SIGTERM, and reports it
        del handlers[signal.SIGTERM]
    elif JOB in os.environ:
        handlers[signal.SIGTERM] = handlers[signal.SIGUSR1]

    # interrupts raise, also where a library would only print them
    before = set_handlers(handlers)
    show = sys.unraisablehook
    sys.unraisablehook = lambda lost: (
        None if lost.exc_type is KeyboardInterrupt else show(lost)
    )
    try:
        yield
    except Exception as error:
        if _has_come.is_set():  # which a library has made another error of
            raise KeyboardInterrupt from error
        raise
    finally:
        _has_come.clear()
        _must_stop.clear()
        set_handlers(before)
        sys.unraisablehook = show


def set_handlers(handlers: Mapping[int, Any]) -> dict[int, Any]:
    """Set handlers of signals; a signal that is ignored stays so. Return the handlers
    that were there before.
    """
    before = {}
    for number, handler in handlers.items():
        found = signal.getsignal(number)
        # None stands for a handler in C, which Python cannot set again
        if handler is not None and found is not signal.SIG_IGN:
            before[number] = found
            signal.signal(number, handler)
    return before


def leave_closed_terminal() -> None:
    """Write to nowhere what goes to a terminal that has closed, where writing is an
    error.
    """
    for stdout_or_stderr in (1, 2):
        try:
            termios.tcgetattr(stdout_or_stderr)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stdout_or_stderr)


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if the command was interrupted: between steps, and before
    a name becomes final.
    """
    if _has_come.is_set():
        raise KeyboardInterrupt


def is_asked_to_stop() -> bool:
    """Whether a signal has asked this process to stop where its work can continue."""
    return _must_stop.is_set()


def raise_if_asked_to_stop() -> None:
    """Raise an error if a signal has asked to stop: between pieces of work that are
    kept.
    """
    if _must_stop.is_set():
        raise BrainhiveError(
            "stopped by a signal, as a cluster sends before time is over",
            CONTINUES,
            OUT_OF_TIME,
        )
