"""The only writer to the terminal: results on stdout; messages, progress and errors on stderr."""

import os
import select
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from brainhive_cli.core.errors import raise_if_interrupted
from brainhive_cli.core.tables import CONTROL, ONE_LINE, Table, draw, split_to_fit, table_width, write_as_list

if TYPE_CHECKING:
    from rich.progress import Progress

    from brainhive_cli.core.errors import BrainhiveError

WIDE = 10_000
"""Columns where no line is folded: of lines to copy."""
PIPED = 120
"""Columns of a table in a pipe or file, whose width is not known."""
DELAY_S = 2.0
"""A command that lasts shorter than this shows no progress."""
LINE_S = 60.0
"""Seconds between lines that say how far work is, where there is no terminal to draw on."""
SLOW_PER_S = 0.2
"""Up to this rate, the time that an item takes says more than the rate."""
POLL_S = 2.0
"""Seconds between two looks for finished cells."""
OTHER_LINES = 6
"""Lines of a live table that are no rows: title, header, empty lines, and one for messages."""


def writes_messages() -> bool:
    """Return whether this process is the one of its launch that writes messages."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Write a message on stderr."""
    if writes_messages():
        _write(text)


def warn(text: str) -> None:
    """Write a warning of one line on stderr."""
    if writes_messages():
        _write(f"warning: {text}".translate(ONE_LINE), "yellow")


def fail(error: "BrainhiveError", as_json: bool = False, code: int | None = None) -> None:
    """Write an error: what is wrong in one line, what to do in another; on stdout too, where that is JSON."""
    _write(f"error: {error.message}".translate(ONE_LINE), "red")
    if error.hint:
        _write(f"  try: {error.hint}".translate(ONE_LINE))

    # programs read the error where they wait for the result
    if as_json:
        show_json({"error": error.message, "hint": error.hint, "exit_code": code or error.exit_code})


def show_traceback() -> None:
    """Show the traceback of the error being handled (`--debug`)."""
    import traceback

    _write(traceback.format_exc())


def _write(text: str, style: str | None = None) -> None:
    _stderr().print(text.translate(CONTROL), style=style, highlight=False, markup=False, soft_wrap=True)


def show_text(text: str) -> None:
    """Write plain text as a result, on stdout."""
    if writes_messages():
        _stdout().print(text.translate(CONTROL), highlight=False, markup=False, soft_wrap=True)


def size(count: int) -> str:
    """Write a number of bytes in MB or GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def summarise_names(names: Sequence[str]) -> str:
    """Count names, and list the first and the last; nothing of none."""
    listed = ", ".join(names) if len(names) <= 4 else f"{names[0]} … {names[-1]}"
    return f"{len(names)}: {listed}" if names else ""


def clock(seconds: float) -> str:
    """Write a time as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


@contextmanager
def hushed() -> Iterator[None]:
    """Silence the progress bars and messages of transformers and diffusers, if they are imported."""
    names = [f"{library}.utils.logging" for library in ("diffusers", "transformers")]
    libraries: list[Any] = [sys.modules[name] for name in names if name in sys.modules]

    # bars and messages off, and back as they were
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (verbosity, has_bar) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if has_bar:
                library.enable_progress_bar()


def flush() -> None:
    """Flush stdout and stderr, before the process is ended."""
    sys.stdout.flush()
    sys.stderr.flush()


def confirm(question: str) -> bool:
    """Ask the user; no where there is nobody to ask."""
    if not sys.stdin.isatty():
        return False
    with undrawn():
        _write(f"{question} [y/N]")
        return sys.stdin.readline().strip().lower() in ("y", "yes")


def is_pipe_closed() -> bool:
    """Whether the reader of stdout has gone, as `head` does; what is not written yet is then dropped."""
    # ask for an error of the pipe without waiting
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    is_closed = any(event & select.POLLERR for _, event in poll.poll(0))
    if is_closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_closed


def show_json(document: Any) -> None:
    """Write one JSON document as the result, on stdout."""
    import json

    show_text(json.dumps(document, indent=2, default=str))


def show_table(table: Table) -> None:
    """Write an aligned table as a result, on stdout."""
    if not writes_messages():
        return
    console = _stdout()
    width = console.width

    # a list that does not fit is written row by row
    if table.is_list and table_width(table) > width:
        sys.stdout.write(write_as_list(table, width))
        return

    # drawn by rich, in parts that fit; blanks at the ends of lines are left out
    note = [*textwrap.wrap(table.note, width), ""] if table.is_list and table.note else []
    console.width = WIDE if table.is_copied else width
    for part in split_to_fit(table, console.width):
        with console.capture() as written:
            console.print(draw(part, console.width), highlight=False, markup=False)
        lines = [line.rstrip() for line in [*written.get().splitlines(), ""]]
        sys.stdout.write("".join(f"{line if line.strip('─') else line[:width]}\n" for line in lines))
    sys.stdout.write("".join(f"{line}\n" for line in note))


class Bar:
    """Text of a line of progress, and its count where there is something to count."""

    def __init__(self, progress: "Progress", description: str, total: int | None) -> None:
        self._progress = progress
        self._total = total or 0
        description = description.translate(ONE_LINE)
        self._task = progress.add_task(description, total=total, note="")
        self._started_s = self._said_s = time.monotonic()
        self._items, self._description = 0, description

    def expect(self, more: int) -> None:
        """Add items to the total; negative for items that were done before."""
        self._total += more
        self._progress.update(self._task, total=self._total)

    def advance(self, items: int = 1, note: str = "") -> None:
        """Count items done; `note` is written at the end of the line. KeyboardInterrupt if it was lost.

        Without a terminal a line is written once in LINE_S.
        """
        raise_if_interrupted()

        # rate since the start
        self._items += items
        elapsed_s = time.monotonic() - self._started_s
        rate = self._items / elapsed_s
        pace = "" if not rate else f"{rate:.1f}/s" if rate > SLOW_PER_S else f"{clock(1 / rate)} each"
        self._progress.update(self._task, advance=items, note=f"{pace} {note}".strip())

        # no terminal: a line now and then
        if self._progress.disable and self._started_s + elapsed_s - self._said_s > LINE_S and rate:
            self._said_s = self._started_s + elapsed_s
            left = clock((self._total - self._items) / rate)
            counts = f"{self._items:,} of {self._total:,}, {pace}"
            say(f"{self._description}: {counts}, {left} left {note}".rstrip())


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Bar]:
    """Show how far work is on stderr: items, rate and time left; or, without a total, how long it has taken.

    On a terminal that is one line, of the innermost work; elsewhere a line once a minute, of counted work.
    """
    from rich import progress as rich

    # columns after the description
    counts: list[Any] = [rich.TimeElapsedColumn()]
    if total is not None:
        counts = [rich.BarColumn(bar_width=20), rich.MofNCompleteColumn(), "{task.fields[note]}"]
        counts.append(rich.TimeRemainingColumn())

    # on a terminal the innermost bar is drawn
    shown = rich.Progress(
        rich.SpinnerColumn(), "{task.description}", *counts, console=_stderr(), disable=not _draws()
    )
    bar = Bar(shown, description, total)
    with _display_on(_stderr()).add(shown.get_renderable) if _draws() else nullcontext():
        yield bar


@contextmanager
def live(
    table: Callable[[int], Table], news: Callable[[bool], Sequence[str]] = lambda is_due: ()
) -> Iterator[None]:
    """Show a table on stderr, updated during the work; where there is no terminal, lines.

    What libraries print meanwhile goes to stderr too.

    Args:
        table: Makes the table, given how many rows fit.
        news: Says what was finished since it was last called and, where LINE_S have passed without a line,
            how far the rest is.
    """
    console = _stderr()
    if _draws():
        display = _display_on(console)
        with display.add(lambda: draw(table(max(1, console.height - OTHER_LINES)), console.width)):
            yield
        return

    # no terminal: lines of news, by the main process alone, from a thread until the work ends
    has_ended = threading.Event()

    def watch() -> None:
        said_s = time.monotonic()
        while not has_ended.wait(POLL_S):
            for line in news(time.monotonic() - said_s > LINE_S):
                say(line)
                said_s = time.monotonic()

    thread = threading.Thread(target=watch, daemon=True)
    with redirect_stdout(sys.stderr):
        if not writes_messages():
            yield
            return
        thread.start()
        try:
            yield
        finally:
            has_ended.set()
            thread.join()
            for line in news(False):
                say(line)


@contextmanager
def undrawn() -> Iterator[None]:
    """Leave the terminal to what others write on it without the console: a question, a bar of a library."""
    display = _display_on(_stderr())
    display.live.stop()
    try:
        yield
    finally:
        if display.works:
            display.live.start()


class _Display:
    """Lines that a terminal shows below the messages: the innermost work, DELAY_S after the first began."""

    def __init__(self, console: Any) -> None:
        from rich.live import Live

        self.works: list[Callable[[], Any]] = []
        self._started_s = time.monotonic()
        self.live = Live(get_renderable=self._draw, console=console, refresh_per_second=2, transient=True)

    @contextmanager
    def add(self, render: Callable[[], Any]) -> Iterator[None]:
        """Draw work until it ends."""
        self.works.append(render)
        self.live.start()
        self.live.refresh()
        try:
            yield
        finally:
            self.works.pop()
            self.live.refresh() if self.works else self.live.stop()

    def _draw(self) -> Any:
        from rich.console import Group

        works = [*self.works]  # work may end meanwhile
        return works[-1]() if works and time.monotonic() - self._started_s > DELAY_S else Group()


def _draws() -> bool:
    return bool(_stderr().is_terminal and writes_messages())


_display_on = lru_cache(1)(_Display)  # one display a console


def _stderr() -> Any:
    return _console_on(getattr(sys.stderr, "rich_proxied_file", sys.stderr))


@lru_cache(1)  # messages are placed above a bar or table only by the console that shows it
def _console_on(stream: Any) -> Any:
    from rich.console import Console

    return Console(stderr=True, emoji=False)


def _stdout() -> Any:
    from rich.console import Console

    is_open = not sys.stdout.isatty() and "COLUMNS" not in os.environ  # a pipe or file
    return Console(emoji=False, width=PIPED if is_open else None)  # `python:brain:f` is no picture of a brain
