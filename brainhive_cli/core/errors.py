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
"""Pattern of an error number (errno) in a message. safetensors, which is written in
Rust, and torch report errors of the operating system by such messages.
"""
JOB_ID_VARIABLE = "BRAINHIVE_JOB"
"""Environment variable with the scheduler's id of a task on a cluster. The job script
sets this variable.
"""
CONTINUE_HINT = "run the same command again to continue"
"""Hint after a command that stopped early, because its finished work is kept."""
INTERRUPTED_EXIT_CODE = 130
"""Exit code of a command that Ctrl-C, SIGTERM or SIGHUP stopped. Shells use the same
code (128 + SIGINT).
"""
INTERRUPT_SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
"""Signals that interrupt a command. Ctrl-C sends SIGINT. `timeout`, `kill` and systemd
send SIGTERM. A terminal that closes sends SIGHUP.
"""
STOPPED_EXIT_CODE = 75
"""Exit code of a command that stopped early because a signal asked for it
(EX_TEMPFAIL). Running the same command again continues the work.
"""
_is_interrupted = threading.Event()
"""Set once the command was interrupted. Python raises KeyboardInterrupt at the current
position of the main thread. Inside a destructor or a callback of a C library, Python
prints the exception and drops it. This event remembers the interrupt, so that the
exception can be raised again where it is safe to stop.
"""
_is_stop_requested = threading.Event()
"""Set once SIGUSR1, or SIGTERM in a job of a cluster, has asked the command to stop at
the next point from which its work can continue.
"""


class Line:
    """A command line that a hint or message suggests.

    Its text also contains the arguments of the user's own command line that the
    suggested command needs (see `complete_lines`).

    Attributes:
        command: Name of the subcommand.
        arguments: Arguments of the subcommand: texts, and tuples (key, value) for
            flags (see `join_words`).
    """

    def __init__(self, command: str, *arguments: Any) -> None:
        self.command = command
        self.arguments = arguments

    def __str__(self) -> str:
        """Write the command line, completed by the user's arguments if possible."""
        # Outside a command, the stack of completions is empty. A completion may also
        # raise an error. The hint is then shown without the user's arguments.
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
"""Third element of an argument `(key, value, SUGGESTED)` of a `Line`. The argument is
left out if the recipe of the suggested command sets the key itself.
"""
Hint = str | Line
"""Advice in one line: a text or a command line."""
RECIPE_KEY = re.compile(r"\b[a-z_]+(?:\.\w+)+(?==)")
"""Pattern of a dotted recipe key that a hint sets, such as train.lr in `train.lr=1`."""
CLAUSE_SEPARATOR = re.compile(r"((?:;|,)? or |; |, )(?![^\[{(]*[\]})])")
"""Pattern of the text between two clauses of a hint, outside of brackets."""
_key_checks: list[Callable[[str], bool]] = []
"""Stack of functions that return True if the current recipe has a dotted key. All
threads use the last function.
"""
_line_completions: list[Callable[[Line], Line]] = []
"""Stack of functions that add the user's arguments to a command line. All threads use
the last function.
"""


@contextmanager
def complete_lines(complete: Callable[[Line], Line]) -> Iterator[None]:
    """Apply a function to each command line that is written inside the block.

    Args:
        complete: Function that takes a command line, and returns the line with the
            user's arguments.
    """
    _line_completions.append(complete)
    try:
        yield
    finally:
        _line_completions.pop()


@contextmanager
def filter_hints(has_key: Callable[[str], bool]) -> Iterator[None]:
    """Shorten hints of errors inside a `with` block to advice that the command accepts.

    A hint advises the user, for example to set `train.lr=1e-4 or train.epochs=5`. Not
    every command has each of these settings (keys). The property `hint` of an error
    drops the clauses that set an unknown key, if it is read inside the block. If an
    error ends the block, its hint stays shortened afterwards.

    Args:
        has_key: Function that takes a dotted key, such as `train.lr`, and returns True
            if the settings of the current command have this key.
    """
    # blocks may be nested, and the innermost block decides
    _key_checks.append(has_key)
    try:
        yield
    except BrainhiveError as error:
        # the property returns the shortened text. The assignment stores this text
        error.hint = error.hint
        raise
    finally:
        _key_checks.pop()


def _drop_unknown_keys(hint: str) -> str:
    """Drop clauses of a hint that set a key which the current command does not have.

    A hint advises the user, for example to set `train.lr=1e-4 or train.epochs=5`. The
    innermost `filter_hints` block (a `with` block) knows the keys of the current
    command. Outside of such a block, the hint is returned unchanged.

    Args:
        hint: Advice, whose clauses are separated by "or", commas or semicolons.

    Returns:
        The remaining clauses with their separators. If no clause remains, general
        advice to correct the data.
    """
    if not _key_checks:
        return hint
    has_key = _key_checks[-1]
    if all(map(has_key, RECIPE_KEY.findall(hint))):
        return hint

    # the pattern has a group, so split() also returns the separators. They stand at odd
    # indices, between the clauses
    pieces = CLAUSE_SEPARATOR.split(hint)
    clauses = pieces[::2]
    separators = [""] + pieces[1::2]

    # keep a clause if the command has all keys in the clause
    text = ""
    for separator, clause in zip(separators, clauses, strict=True):
        if not all(map(has_key, RECIPE_KEY.findall(clause))):
            continue
        text += f"{separator}{clause}" if text else clause
    return text or "correct the data; this command has no option for it"


def join_words(arguments: Iterable[Any]) -> str:
    """Write a command line as a user types it.

    Args:
        arguments: Arguments in their order. There are two types:

            - A text or path, such as `train.lr=1e-4`, is written unchanged.
            - A tuple (key, value) becomes a flag, such as `--seeds 1,2`. The value may
              be a list. If the value or an item of the list begins with `{`, as
              `{kind: ridge, alpha: 1}` does, the tuple is written as `key=value`. If
              the value is empty, the tuple is left out. A third element of the tuple is
              ignored.

    Returns:
        The command line, quoted for a shell.
    """
    typed_words: list[str] = []
    for argument in arguments:
        if not isinstance(argument, tuple):
            typed_words.append(str(argument))
            continue

        # a flag without a value is left out
        key, value = argument[:2]
        if not value:
            continue

        # A flag splits its value at commas. Text in braces also contains commas, at
        # which it must not be split, so write such a value as `key=value`.
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

    # The width prevents line breaks. PyYAML ends a bare scalar with "...".
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()


class BrainhiveError(Exception):
    """An error that the user can fix.

    Args:
        message: One line that says what is wrong and where.
        hint: One line that says what to do about it.
        exit_code: Exit code of the command. The default 0 stands for the code of the
            class.
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
        """Advice in a line. Its text is made at each access, because it depends on
        the current command (`complete_lines`) and recipe (`filter_hints`).
        """
        return _drop_unknown_keys(str(self._hint))

    @hint.setter
    def hint(self, hint: str) -> None:
        self._hint = hint

    @property
    def in_one_line(self) -> str:
        """Message, followed by the hint in brackets."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


class RecipeError(BrainhiveError):
    """An invalid recipe, flag or override."""

    exit_code = 2


class DamagedStore(BrainhiveError):
    """Rows of a store (an HDF5 file of signals or embeddings) that changed after they
    were written. No result is computed from a store with such rows.
    """


class MissingData(BrainhiveError):
    """Data or weights that do not exist at the expected place."""

    exit_code = 3


class MissingExtra(BrainhiveError):
    """A library that is not installed. The hint is the pip line that installs it."""

    exit_code = 4


def install_line(extra: str = "", checkout: Path = Path(__file__).parents[2]) -> str:
    """Write the pip command that installs this package with optional dependencies.

    Args:
        extra: Name of a group of optional dependencies (an extra), or empty.
        checkout: Folder that holds the running package.

    Returns:
        The command. If `checkout` has a pyproject.toml, the command installs this
        folder in editable mode. Otherwise, it installs `brainhive` from PyPI.
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
    """An error of this process because another process of the same launch has ended.

    A launch is a group of processes that share the work of a command. The other process
    reports the cause.
    """


class Unfinished(Exception):
    """Signal from a check for finished work that some of the work is still to do."""


def require_kind(name: str, value: object, kind: type, hint: str) -> None:
    """Raise an error if an argument of a public function has the wrong type.

    Args:
        name: Name of the argument.
        value: Value of the argument.
        kind: Allowed type.
        hint: Advice for the error.

    Raises:
        RecipeError: if `value` is not of type `kind`. The message names the argument
            and both types.
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
    """Put the name of a source before the message of an error that the block raises.

    Args:
        source: Source of the error, such as a file.
    """
    try:
        yield
    except BrainhiveError as error:
        error.message = f"{source}: {error.message}"
        raise


def guess(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Write a question that suggests the valid name most similar to an invalid name.

    The question is the beginning of advice in an error message. Upper and lower case do
    not matter. Valid names that begin with the invalid name are preferred, if the
    invalid name has at least three letters.

    Args:
        name: Invalid name, as the user wrote it.
        names: Valid names.
        prefix: Text before the suggested name, such as the section of a recipe key.

    Returns:
        The question "did you mean NAME? ", with a space at its end. Empty if no valid
        name is similar.
    """
    written_name = name.casefold()
    names_by_folded = {valid_name.casefold(): valid_name for valid_name in names}

    # Take the names that begin with the written name. If there are none, take the names
    # with similar spelling. Many names begin with the same one or two letters, so
    # compare only the spelling of such short names.
    similar_names = []
    if len(written_name) > 2:
        for folded in names_by_folded:
            if folded.startswith(written_name):
                similar_names.append(folded)
    if not similar_names:
        similar_names = get_close_matches(written_name, names_by_folded)
    if not similar_names:
        return ""

    # compare by the ratio of difflib, and then by the longest common text
    nearest = max(similar_names, key=partial(_compare_names, written_name))
    return f"did you mean {prefix}{names_by_folded[nearest]}? "


def _compare_names(name: str, valid_name: str) -> tuple[float, int]:
    """Return the similarity of two names from 0 to 1, and a value that breaks ties.

    That value is the length of the longest text that both names contain.
    """
    matcher = SequenceMatcher(None, name, valid_name)
    return matcher.ratio(), matcher.find_longest_match().size


def system_error_number(error: BaseException) -> int | None:
    """Return the errno of an error of the operating system.

    Some libraries raise other exceptions, whose message contains this number. The
    number is then read from the message.

    Returns:
        The number, or None for any other error.
    """
    match = re.search(ERROR_NUMBER_TEXT, str(error))
    if match:
        return int(match[1] or match[2])
    return error.errno if isinstance(error, OSError) else None


def find_rows(
    requested_names: Sequence[str], names: Sequence[str], owner: str
) -> list[int | None]:
    """Find the rows of channels or regions by their names.

    An identical name wins. Otherwise a name matches if it differs only in upper and
    lower case, and no other name does.

    Args:
        requested_names: Names [C] to search for.
        names: Available names, one for each row.
        owner: Owner of the available names, for the error message.

    Returns:
        Row [C] of each requested name, or None if no name matches. No row is returned
        twice.

    Raises:
        RecipeError: if several names match a requested name equally well.
    """
    # Find identical names first, so that no other requested name takes their rows. If a
    # name occurs twice, the search below raises the error.
    rows: list[int | None] = []
    for name in requested_names:
        rows.append(names.index(name) if names.count(name) == 1 else None)

    # search the remaining names without regard to case
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

    There are two kinds of signals:

    - `INTERRUPT_SIGNALS` raise KeyboardInterrupt at once. `raise_if_interrupted` raises
      it again if a library has lost it.
    - SIGUSR1, and SIGTERM in a job of a cluster, ask the command to stop later.
      `is_asked_to_stop` then returns True.

    Python delivers signals to the main thread only, so the block changes nothing in
    other threads. A signal that was ignored before stays ignored, such as SIGHUP under
    `nohup` and SIGINT in the background of a script.

    Raises:
        KeyboardInterrupt: if the command was interrupted, even if a library turned the
            interrupt into another error.
    """

    def remember(number: int, frame: FrameType | None) -> None:
        # Some systems send SIGTERM and SIGHUP together. The second signal must not
        # interrupt the clean-up that the first signal started.
        leave_closed_terminal()
        is_repeated = _is_interrupted.is_set() and number != signal.SIGINT
        _is_interrupted.set()
        if not is_repeated:
            raise KeyboardInterrupt

    # only the main thread can set handlers
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    # A request to stop raises no exception. The command ends at the next point from
    # which it can continue.
    handlers: dict[int, Callable[[int, FrameType | None], None]] = {
        signal.SIGUSR1: lambda *_: _is_stop_requested.set()
    }
    handlers |= dict.fromkeys(INTERRUPT_SIGNALS, remember)
    if "LOCAL_RANK" in os.environ:
        # the launcher ends its processes with SIGTERM, and reports their end
        del handlers[signal.SIGTERM]
    elif JOB_ID_VARIABLE in os.environ:
        handlers[signal.SIGTERM] = handlers[signal.SIGUSR1]

    # Python prints an interrupt that is raised in a destructor, and continues. Hide
    # this output, because `raise_if_interrupted` raises the interrupt again.
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
        handlers: New handlers, keyed by the number of the signal. For the value None,
            the signal keeps its present handler.

    Returns:
        The previous handlers of the changed signals, keyed by the number of the signal.
        Pass them to this function to restore them. A handler that was written in C is
        returned as None, so it cannot be restored.
    """
    previous_handlers = {}
    for number, handler in handlers.items():
        current_handler = signal.getsignal(number)
        # a program such as nohup lets this process ignore a signal, and this must stay
        if handler is not None and current_handler is not signal.SIG_IGN:
            previous_handlers[number] = current_handler
            signal.signal(number, handler)
    return previous_handlers


def leave_closed_terminal() -> None:
    """Redirect stdout and stderr to the null device if their terminal has closed.

    Writing to a closed terminal would raise an error.
    """
    for stdout_or_stderr in (1, 2):
        try:
            termios.tcgetattr(stdout_or_stderr)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stdout_or_stderr)


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if the command was interrupted.

    Call this between steps, and before a file gets its final name.
    """
    if _is_interrupted.is_set():
        raise KeyboardInterrupt


def is_asked_to_stop() -> bool:
    """Return True if a signal asked this process to stop.

    The process may stop at a point from which the same command can continue later.
    """
    return _is_stop_requested.is_set()


def raise_if_asked_to_stop() -> None:
    """Raise an error if a signal asked this process to stop.

    Call this after a piece of work is saved.

    Raises:
        BrainhiveError: with `STOPPED_EXIT_CODE`.
    """
    if _is_stop_requested.is_set():
        raise BrainhiveError(
            "stopped by a signal (SIGUSR1 or SIGTERM), which asked for an early end",
            CONTINUE_HINT,
            STOPPED_EXIT_CODE,
        )
