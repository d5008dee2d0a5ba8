"""Errors and signals that end a command, with exit codes and hints.

A hint is a line of advice: what the user can do about an error.
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
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

ERROR_NUMBER_TEXT = r"\(os error (\d+)\)|unable to (?:mmap|open|stat) .*\((\d+)\)"
"""Pattern of an error number (errno) in a message of safetensors or torch."""
JOB_ID_VARIABLE = "BRAINHIVE_JOB"
"""Environment variable with the scheduler's id of a task, set by the job script."""
CONTINUE_HINT = "run the same command again to continue"
"""Hint after a command that stopped early, because its finished work is kept."""
INTERRUPTED_EXIT_CODE = 130
"""Exit code of an interrupted command. Shells use the same code (128 + SIGINT)."""
INTERRUPT_SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
"""Signals that interrupt a command: Ctrl-C, `kill`, and a terminal that closes."""
STOPPED_EXIT_CODE = 75
"""Exit code (EX_TEMPFAIL) of a command that a signal stopped early, to be continued."""
_is_interrupted = threading.Event()
"""Set once the command was interrupted. Python drops a KeyboardInterrupt in destructors
and callbacks of C libraries, so it is raised again where it is safe to stop.
"""
_is_stop_requested = threading.Event()
"""Set once SIGUSR1, or SIGTERM in a job of a cluster, has asked the command to stop."""


class Line:
    """A command line that a hint or message suggests.

    Attributes:
        command: Name of the subcommand.
        arguments: Texts, and tuples (key, value) for flags (see `join_words`).
    """

    def __init__(self, command: str, *arguments: Any) -> None:
        self.command = command
        self.arguments = arguments

    def __str__(self) -> str:
        """Write the command line, with the user's arguments inside `complete_lines`."""
        if not _line_completions:
            return self.base_text
        # a hint without the user's arguments is better than an error
        with suppress(Exception):
            return _line_completions[-1](self).base_text
        return self.base_text

    @property
    def base_text(self) -> str:
        """Command line without the user's arguments."""
        arguments = ["brainhive", self.command]
        arguments += self.arguments
        return join_words(arguments)


SUGGESTED = "suggested"
"""Third element of an argument `(key, value, SUGGESTED)` of a `Line`, which is left out
if the recipe of the suggested command sets the key itself.
"""
Hint = str | Line
"""Advice in one line: a text or a command line."""
_line_completions: list[Callable[[Line], Line]] = []
"""Stack of functions that add the user's arguments to a command line."""


@contextmanager
def complete_lines(complete: Callable[[Line], Line]) -> Iterator[None]:
    """Apply a function to each command line that is written inside the `with` block.

    Args:
        complete: Returns a command line with the user's arguments.
    """
    _line_completions.append(complete)
    try:
        yield
    finally:
        _line_completions.pop()


def join_words(arguments: Iterable[Any]) -> str:
    """Write a command line as a user types it, quoted for a shell.

    Args:
        arguments: Texts and tuples (key, value), in their order:

            - A text or path, such as `train.lr=1e-4`, is written unchanged.
            - A tuple becomes a flag, such as `--seeds 1,2`. The value may be a list.
            - A tuple with an empty value is left out. A third element is ignored.
            - A tuple with a value that begins with `{` is written as `key=value`.
    """
    typed_words: list[str] = []
    for argument in arguments:
        if not isinstance(argument, tuple):
            typed_words.append(str(argument))
            continue

        key, value = argument[:2]
        if not value:
            continue

        # a flag would split `{kind: ridge, alpha: 1}` at the comma
        has_several = isinstance(value, list | tuple)
        texts = [str(item) for item in value] if has_several else [str(value)]
        if any(text.startswith("{") for text in texts):
            text = ", ".join(texts)
            typed_words.append(f"{key}=[{text}]" if has_several else f"{key}={text}")
        else:
            typed_words += [f"--{key}", ",".join(texts)]
    return shlex.join(typed_words)


def write_value(value: Any) -> str:
    """Write the value of an override `key=value`, as YAML in one line."""
    import yaml

    # the width prevents line breaks. PyYAML ends a bare scalar with "..."
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()


class BrainhiveError(Exception):
    """An error that the user can fix.

    Args:
        message: One line that says what is wrong and where.
        hint: One line that says what to do about it.
        exit_code: Exit code of the command, or 0 for the code of the class.
    """

    exit_code = 1

    def __init__(self, message: str, hint: Hint = "", exit_code: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self._hint = hint
        self.exit_code = exit_code or self.exit_code

    def __str__(self) -> str:
        """Return the message with the additions of callers, such as `naming`."""
        return self.message

    @property
    def hint(self) -> str:
        """Advice in a line, whose command line `complete_lines` may complete."""
        return str(self._hint)

    @hint.setter
    def hint(self, hint: str) -> None:
        self._hint = hint

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        """The hint, which Python and IPython print below the traceback."""
        return [self.hint] if self.hint else []

    @property
    def in_one_line(self) -> str:
        """Message, followed by the hint in brackets."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


class RecipeError(BrainhiveError):
    """An invalid recipe, flag or override."""

    exit_code = 2


class DamagedStore(BrainhiveError):
    """Rows of a store (an HDF5 file of signals or embeddings) that have changed."""


class MissingData(BrainhiveError):
    """Data or weights that do not exist at the expected place."""

    exit_code = 3


class MissingExtra(BrainhiveError):
    """A library that is not installed or broken. The hint is a pip command."""

    exit_code = 4


def install_line(extra: str = "", checkout: Path = Path(__file__).parents[3]) -> str:
    """Write the pip command that installs this package with optional dependencies.

    Args:
        extra: Name of a group of optional dependencies, or "".
        checkout: Folder of the source code. Without a pyproject.toml in it, the command
            installs `brainhive` from PyPI.
    """
    name = "brainhive"
    option = ""
    if (checkout / "pyproject.toml").is_file():
        name = "." if Path.cwd() == checkout else str(checkout)
        option = "-e "
    target = f"{name}[{extra}]" if extra else name
    return f"pip install {option}{shlex.quote(target)}"


class DeviceError(BrainhiveError):
    """A device that is absent, out of memory or failing."""

    exit_code = 5


class LostProcess(BrainhiveError):
    """An error of this process because another process of the command has ended."""


class Unfinished(Exception):
    """Signal from a check for finished work that some of the work is still to do."""


def require_kind(name: str, value: object, kind: type, hint: str) -> None:
    """Raise a RecipeError if an argument of a public function has the wrong type.

    Args:
        name: Name of the argument.
        value: Value of the argument.
        kind: Allowed type.
        hint: Advice for the error.
    """
    if not isinstance(value, kind):
        raise RecipeError(
            f"{name} is of type {type(value).__name__}, not {kind.__name__}", hint
        )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has no message."""
    message = str(error).strip()
    return (message or type(error).__name__).splitlines()[0]


def find_error(act: Callable[[], object]) -> BrainhiveError | None:
    """Call a function, and return the BrainhiveError that it raises, if any."""
    try:
        act()
    except BrainhiveError as error:
        return error
    return None


@contextmanager
def naming(source: object) -> Iterator[None]:
    """Put a source, such as a file, before the message of an error of the block.

    A message that already names the source stays as it is.
    """
    try:
        yield
    except BrainhiveError as error:
        if str(source) not in error.message:
            error.message = f"{source}: {error.message}"
        raise


def guess(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Write a question that suggests the valid name most similar to an invalid name.

    Case does not matter. If an invalid name has at least three letters, valid names
    that begin with it are preferred.

    Args:
        name: Invalid name, as the user wrote it.
        names: Valid names.
        prefix: Text before the suggested name, such as "train.".

    Returns:
        The question "did you mean NAME? " with a final space, or "".
    """
    written_name = name.casefold()
    names_by_folded = {valid_name.casefold(): valid_name for valid_name in names}

    # many names begin with the same one or two letters
    similar_names = []
    if len(written_name) > 2:
        similar_names = [
            folded for folded in names_by_folded if folded.startswith(written_name)
        ]
    if not similar_names:
        similar_names = get_close_matches(written_name, names_by_folded)
    if not similar_names:
        return ""

    nearest = max(similar_names, key=partial(_compare_names, written_name))
    return f"did you mean {prefix}{names_by_folded[nearest]}? "


def _compare_names(name: str, valid_name: str) -> tuple[float, int]:
    """Return the similarity of two names (0 to 1) and the length of a common text."""
    matcher = SequenceMatcher(None, name, valid_name)
    return matcher.ratio(), matcher.find_longest_match().size


def system_error_number(error: BaseException) -> int | None:
    """Return the errno of an error of the operating system, or None for other errors.

    The number is read from the message if it contains one (`ERROR_NUMBER_TEXT`).
    """
    match = re.search(ERROR_NUMBER_TEXT, str(error))
    if match:
        return int(match[1] or match[2])
    return error.errno if isinstance(error, OSError) else None


def find_rows(
    requested_names: Sequence[str], names: Sequence[str], owner: str
) -> list[int | None]:
    """Find the rows of channels or regions by their names.

    An identical name wins over a name that differs only in upper and lower case.

    Args:
        requested_names: Names [C] to search for.
        names: Available names, one for each row.
        owner: Owner of the available names, for the error message.

    Returns:
        Row [C] of each requested name, or None if no name matches.

    Raises:
        RecipeError: if several names match a requested name equally well.
    """
    # identical names first, so that no other requested name takes their rows
    rows: list[int | None] = []
    for name in requested_names:
        rows.append(names.index(name) if names.count(name) == 1 else None)

    # the other names without regard to case
    for index, name in enumerate(requested_names):
        if rows[index] is not None:
            continue
        folded_name = name.casefold()
        matching_rows = []
        for row, available_name in enumerate(names):
            if available_name.casefold() == folded_name and row not in rows:
                matching_rows.append(row)

        if len(matching_rows) > 1:
            matching_names = ", ".join(names[row] for row in matching_rows)
            raise RecipeError(
                f"{owner} has {len(matching_rows)} names that match {name!r}: "
                f"{matching_names}",
                "write the exact name, or rename the others in the recording",
            )
        if matching_rows:
            rows[index] = matching_rows[0]
    return rows


@contextmanager
def remember_interrupts() -> Iterator[None]:
    """Handle the signals that end a command early, inside the block.

    - `INTERRUPT_SIGNALS` raise KeyboardInterrupt.
    - SIGUSR1, and SIGTERM in a job of a cluster, make `is_asked_to_stop` return True.
    - Ignored signals stay ignored, such as SIGHUP under `nohup`.
    - In threads other than the main thread, nothing changes.

    Raises:
        KeyboardInterrupt: if the command was interrupted, even if a library turned the
            interrupt into another error.
    """

    def remember(number: int, frame: FrameType | None) -> None:
        # a second SIGTERM or SIGHUP must not interrupt the clean-up
        leave_closed_terminal()
        is_repeated = _is_interrupted.is_set() and number != signal.SIGINT
        _is_interrupted.set()
        if not is_repeated:
            raise KeyboardInterrupt

    # only the main thread can set handlers
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    handlers: dict[int, Callable[[int, FrameType | None], None]] = {
        signal.SIGUSR1: lambda *_: _is_stop_requested.set()
    }
    handlers |= dict.fromkeys(INTERRUPT_SIGNALS, remember)
    if "LOCAL_RANK" in os.environ:
        # the launcher ends its processes with SIGTERM, and reports their end
        del handlers[signal.SIGTERM]
    elif JOB_ID_VARIABLE in os.environ:
        handlers[signal.SIGTERM] = handlers[signal.SIGUSR1]

    # Python prints an interrupt that is raised in a destructor, and continues
    previous_handlers = set_handlers(handlers)
    previous_hook = sys.unraisablehook

    def hide_interrupt(unraisable: Any) -> None:
        if unraisable.exc_type is not KeyboardInterrupt:
            previous_hook(unraisable)

    sys.unraisablehook = hide_interrupt
    try:
        yield
    except Exception as error:
        # a library may have turned the interrupt into this error
        if _is_interrupted.is_set():
            raise KeyboardInterrupt from error
        raise
    finally:
        _is_interrupted.clear()
        _is_stop_requested.clear()
        set_handlers(previous_handlers)
        sys.unraisablehook = previous_hook


def set_handlers(handlers: Mapping[int, Any]) -> dict[int, Any]:
    """Set the handlers of signals, except for signals that this process ignores.

    Args:
        handlers: New handlers by number of the signal, or None to keep a handler.

    Returns:
        Previous handlers of the changed signals, or None for a handler written in C.
        Pass them to this function to restore them.
    """
    previous_handlers = {}
    for number, handler in handlers.items():
        current_handler = signal.getsignal(number)
        if handler is not None and current_handler is not signal.SIG_IGN:
            previous_handlers[number] = current_handler
            signal.signal(number, handler)
    return previous_handlers


def leave_closed_terminal() -> None:
    """Redirect stdout and stderr to the null device if their terminal has closed."""
    for stdout_or_stderr in (1, 2):
        try:
            termios.tcgetattr(stdout_or_stderr)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stdout_or_stderr)


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if the command was interrupted."""
    if _is_interrupted.is_set():
        raise KeyboardInterrupt


def is_asked_to_stop() -> bool:
    """Return True if a signal asked this process to stop, to continue later."""
    return _is_stop_requested.is_set()


def raise_if_asked_to_stop() -> None:
    """Raise a BrainhiveError with `STOPPED_EXIT_CODE` if a signal asked for a stop."""
    if _is_stop_requested.is_set():
        raise BrainhiveError(
            "stopped by a signal (SIGUSR1 or SIGTERM), which asked for an early end",
            CONTINUE_HINT,
            STOPPED_EXIT_CODE,
        )
