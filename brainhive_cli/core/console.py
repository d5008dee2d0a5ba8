"""The only writer to the terminal: results on stdout; messages, progress and errors on stderr."""

import os
import select
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from brainhive_cli.core.errors import raise_if_interrupted
from brainhive_cli.core.tables import ONE_LINE, Table, draw, split_to_fit, table_width, write_as_list

if TYPE_CHECKING:
    from rich.progress import Progress

    from brainhive_cli.core.errors import BrainhiveError

WIDE = 10_000
"""Columns where no line is folded: of lines to copy."""
PIPED = 120
"""Columns of a table in a pipe or file, whose width is not known."""
DELAY_S = 2.0
"""A command that lasts shorter than this shows no progress, and a step of it that does is not named."""
LINE_S = 60.0
"""Seconds between lines that say how far work is, where there is no terminal to draw on."""
SLOW_PER_S = 0.2
"""Up to this rate, the time that an item takes says more than the rate."""
POLL_S = 2.0
"""Seconds between two looks for lines that are due, as of finished cells."""
OTHER_LINES = 8
"""Lines around the rows of a live table: title, header, empty lines, two of work inside it, a message."""


def writes_messages() -> bool:
    """Return whether this process is the one of its launch that writes messages."""
    return os.environ.get("RANK", "0") == "0"


def say(*lines: str) -> None:
    """Write a message on stderr: each argument is one line, whatever names it holds."""
    if writes_messages():
        _write(*lines)


def warn(text: str) -> None:
    """Write a warning of one line on stderr."""
    if writes_messages():
        _write(f"warning: {text}", style="yellow")


def fail(error: "BrainhiveError", as_json: bool = False, code: int | None = None) -> None:
    """Write an error: what is wrong in one line, what to do in another; on stdout too, where that is JSON."""
    _write(f"error: {error.message}", style="red")
    if error.hint:
        _write(f"  try: {error.hint}")

    # programs read the error where they wait for the result
    if as_json:
        show_json({"error": error.message, "hint": error.hint, "exit_code": code or error.exit_code})


def show_traceback() -> None:
    """Show the traceback of the error being handled (`--debug`)."""
    import traceback

    _write(*traceback.format_exc().split("\n"))


def _write(*lines: str, style: str | None = None, console: Any = None) -> None:
    text = "\n".join(line.translate(ONE_LINE) for line in lines)
    (console or _stderr()).print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def show_text(*lines: str) -> None:
    """Write a result on stdout: each argument is one line, whatever names it holds."""
    if writes_messages():
        _write(*lines, console=_stdout())


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
    libraries = [sys.modules[name] for name in names if name in sys.modules]

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


def show_json(document: Any, indent: int | None = 2) -> None:
    """Write one JSON document as the result, on stdout; in one line without an indent."""
    import json

    show_text(*json.dumps(document, indent=indent, default=str).replace("\x7f", "\\u007f").split("\n"))


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
    """Text of a line of progress, and its count where there is something to count.

    Args:
        progress: The bar of a terminal; disabled elsewhere.
        description: What is done.
        total: Items to do; None where they are not counted.
    """

    def __init__(self, progress: "Progress", description: str, total: int | None) -> None:
        self._progress = progress
        self._total = total or 0
        self._description = description.translate(ONE_LINE)
        self._task = progress.add_task(self._description, total=total, note="")
        self._started_s = self._advanced_s = time.monotonic()
        self._items, self._note = 0, ""

    def expect(self, more: int) -> None:
        """Add items to the total; negative for items that were done before."""
        self._total += more
        self._progress.update(self._task, total=self._total)

    def advance(self, items: int = 1, note: str = "") -> None:
        """Count items done; `note` is written at the end of the line. KeyboardInterrupt if it was lost."""
        raise_if_interrupted()
        self._items += items
        self._advanced_s, self._note = time.monotonic(), note.translate(ONE_LINE)
        self._progress.update(self._task, advance=items, note=f"{self._pace} {self._note}".strip())

    @property
    def _rate(self) -> float:
        """Items per second from the start to the last advance; 0 before the first."""
        return self._items / max(1e-9, self._advanced_s - self._started_s)

    @property
    def _pace(self) -> str:
        rate = self._rate
        return "" if not rate else f"{rate:.1f}/s" if rate > SLOW_PER_S else f"{clock(1 / rate)} each"

    def describe(self) -> str:
        """Say how far it is: items of the total, pace and time left, or how long it has taken."""
        now_s = time.monotonic()
        elapsed_s, since_s = now_s - self._started_s, now_s - self._advanced_s
        counts = f"{self._items:,} of {self._total:,}, " if self._total else ""
        if not self._total or not self._items:
            return f"{self._description}: {counts}{clock(elapsed_s)} so far"

        # an item that takes longer than those before slows the pace of all that are left
        each_s = max(1 / self._rate, elapsed_s / (self._items + 1))
        left = clock(max(0.0, each_s * (self._total - self._items) - min(since_s, each_s)))
        return f"{self._description}: {counts}{self._pace}, {left} left {self._note}".rstrip()


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Bar]:
    """Show how far work is on stderr: items, rate and time left; or, without a total, how long it has taken.

    On a terminal that is a line of the innermost work and one of each counted work around it; elsewhere a
    line after DELAY_S, for work inside other work, and one in LINE_S.
    """
    from rich import progress as rich

    # columns after the description
    name, note = (
        rich.TextColumn(f"{{task.{field}}}", markup=False) for field in ("description", "fields[note]")
    )
    counts: list[Any] = [rich.TimeElapsedColumn()]
    if total is not None:
        counts = [rich.BarColumn(bar_width=20), rich.MofNCompleteColumn(), note, rich.TimeRemainingColumn()]

    # drawn on a terminal, and said elsewhere
    display = _display_on(_stderr())
    shown = rich.Progress(rich.SpinnerColumn(), name, *counts, console=_stderr(), disable=not display.draws)
    bar = Bar(shown, description, total)
    with display.add(_Work(shown.get_renderable, bar.describe, total is not None, description)):
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
    display = _display_on(console)

    def draw_table() -> Any:
        return draw(table(max(1, console.height - OTHER_LINES)), console.width)

    # the terminal's own stream is kept by the display
    if display.draws:
        with display.add(_Work(draw_table)):
            yield
        return
    with redirect_stdout(sys.stderr), display.add(_Work(draw_table, news=news)):
        yield


@contextmanager
def undrawn() -> Iterator[None]:
    """Leave the terminal to what others write on it without the console: a question, a bar of a library."""
    display = _display_on(_stderr())
    display.live.stop()
    try:
        yield
    finally:
        if display.works and display.draws:
            display.live.start()


@dataclass(frozen=True, eq=False)
class _Work:
    """Work that a command does, while it does it.

    Attributes:
        draw: Draws it on a terminal.
        describe: Says in one line how far it is; empty where its news do.
        is_kept: Whether it is still shown while other work is done inside it.
        name: What it is called; empty for a table.
        news: Lines of what is finished or, if asked, of how far it is.
    """

    draw: Callable[[], Any]
    describe: Callable[[], str] = lambda: ""
    is_kept: bool = True
    name: str = ""
    news: Callable[[bool], Sequence[str]] = lambda is_due: ()


class _Display:
    """Work at hand: lines below the messages of a terminal, DELAY_S after the first began; else said lines.

    Where there is no terminal, the main process says a line of work inside other work when DELAY_S have
    passed and its name was not said before, and one once in LINE_S. A thread says them, since work may be
    one call.
    """

    def __init__(self, console: Any) -> None:
        from rich.live import Live

        self.works: list[_Work] = []
        self._started_s = self._said_s = self._inner_s = time.monotonic()
        self._named: set[str] = set()
        self._lock = threading.Lock()
        self.live = Live(get_renderable=self._draw, console=console, refresh_per_second=2, transient=True)

    @property
    def draws(self) -> bool:
        """Whether work is drawn: on a terminal, by the main process."""
        return bool(self.live.console.is_terminal and writes_messages())

    @contextmanager
    def add(self, work: _Work) -> Iterator[None]:
        """Show work until it ends."""
        says = not self.draws and writes_messages()
        with self._lock:
            is_first = not self.works
            self.works.append(work)
            self._inner_s = time.monotonic()
            if is_first:
                self._said_s = self._inner_s
                self._named.clear()

        # a terminal is drawn on by rich's thread, lines are said by one of the first work
        has_ended, thread = threading.Event(), None
        if self.draws:
            self.live.start()
            self.live.refresh()
        elif is_first and says:
            thread = threading.Thread(target=self._watch, args=(has_ended,), daemon=True)
            thread.start()
        try:
            yield
        finally:
            with self._lock:
                self.works.remove(work)
                self._inner_s = time.monotonic()
                last_news = work.news(False) if says else ()
            if self.draws:
                self.live.refresh() if self.works else self.live.stop()
            if thread is not None:
                has_ended.set()
                thread.join()
            for line in last_news:
                say(line)

    def _watch(self, has_ended: threading.Event) -> None:
        while not has_ended.wait(POLL_S):
            self.say_due()

    def say_due(self) -> None:
        """Say the lines that are due by now: where there is no terminal."""
        with self._lock:
            now_s, works = time.monotonic(), self.works
            is_due = now_s - self._said_s > LINE_S
            lines = [line for work in works for line in work.news(is_due)]

            # a step inside other work is named once, and all that is at work once in LINE_S
            inner = works[-1].name if len(works) > 1 else ""
            is_new = inner not in self._named and now_s - self._inner_s > DELAY_S
            if is_due or (inner and is_new):
                shown = [work for work in works[:-1] if work.is_kept] + works[-1:]
                lines.append("; ".join(filter(None, (work.describe() for work in shown))))
                self._named.add(inner)
            lines = [line for line in lines if line]
            self._said_s = now_s if lines else self._said_s

        # outside of the lock, since a blocked stderr must not stop the work
        for line in lines:
            say(line)

    def _draw(self) -> Any:
        from rich.console import Group

        works = [*self.works]  # work may end meanwhile
        is_due = time.monotonic() - self._started_s > DELAY_S
        shown = [work for work in works[:-1] if work.is_kept] + works[-1:]
        return Group(*(work.draw() for work in shown if is_due))


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
