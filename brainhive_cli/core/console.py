"""The only writer to the terminal: results on stdout; messages, progress and errors on
stderr.
"""

import os
import select
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rich import filesize

from brainhive_cli.core.errors import raise_if_interrupted
from brainhive_cli.core.tables import ONE_LINE, Table, draw, table_width, write_as_list

if TYPE_CHECKING:
    from brainhive_cli.core.errors import BrainhiveError

UNFOLDED_COLUMNS = 10_000
"""Columns where no line is folded: of lines to copy."""
MAX_FOLDED_COLUMNS = 3
"""Most columns of a table that is folded where it does not fit."""
PIPE_COLUMNS = 120
"""Columns of a table in a pipe or file, whose width is not known."""
DELAY_S = 2.0
"""Work that lasts shorter than this shows no progress, and says no line at its end."""
PROGRESS_INTERVAL_S = 60.0
"""Seconds between lines that say how far work is, where there is no terminal to draw
on.
"""
ANNOUNCED_S = 600.0
"""Work that takes longer is announced: how much there is, and how long it takes."""
FIRST_PACE_S = 10.0
"""Time after which the first items of work tell how long the others take."""
DISPLAYS = {"DISPLAY", "WAYLAND_DISPLAY"}
"""Variables of which one is set where a browser has a window."""
size = filesize.decimal
"""Writes a number of bytes as 12.3 kB, 3.0 MB or 26.0 GB."""


_silent: list[bool] = []
"""Blocks around that are silent."""


def writes_messages() -> bool:
    """Return whether this process is the one of its launch that writes messages."""
    return os.environ.get("RANK", "0") == "0" and not _silent


@contextmanager
def mute_messages() -> Iterator[None]:
    """Write no messages and warnings, of work that repeats what has been said."""
    _silent.append(True)
    try:
        yield
    finally:
        _silent.pop()


def say(*lines: str) -> None:
    """Write a message on stderr: each argument is one line, whatever names it holds."""
    if writes_messages():
        _write(*lines)


def warn(text: str) -> None:
    """Write a warning of one line on stderr."""
    if writes_messages():
        _write(f"warning: {text}", style="yellow")


def show_error(error: "BrainhiveError", as_json: bool = False) -> None:
    """Write an error: what is wrong in one line, what to do in another; on stdout too,
    where that is JSON.
    """
    _write(f"error: {error.message}", style="red")
    if error.hint:
        _write(f"  try: {error.hint}")

    # programs read the error where they wait for the result
    if as_json:
        show_json(
            {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
        )


def show_traceback() -> None:
    """Show the traceback of the error being handled (`--debug`)."""
    import traceback

    _write(*traceback.format_exc().split("\n"))


def _write(*lines: str, style: str | None = None, console: Any = None) -> None:
    # names may hold control characters, and brackets that rich reads as markup
    text = "\n".join(line.translate(ONE_LINE) for line in lines)
    (console or _stderr()).print(
        text, style=style, highlight=False, markup=False, soft_wrap=True
    )


def show_text(*lines: str) -> None:
    """Write a result on stdout: each argument is one line, whatever names it holds."""
    if writes_messages():
        _write(*lines, console=_stdout())


def summarise_names(names: Sequence[str]) -> str:
    """Count names, and list the first and the last; nothing of none."""
    listed = ", ".join(names) if len(names) <= 4 else f"{names[0]} … {names[-1]}"
    return f"{len(names)}: {listed}" if names else ""


def clock(seconds: float) -> str:
    """Write a time as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def write_duration(seconds: float) -> str:
    """Write a duration in the largest unit of which it has two."""
    for unit, length_s in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        # a unit counts from two on: 90 min say more than 2 h
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.2g} s"


def announce(amount: str, item_s: float | None, items: float) -> None:
    """Say how much work begins and how long it takes, where that is long.

    Without an earlier pace, counted work says so itself once its first items tell how
    long it takes.

    Args:
        amount: What there is to do, as in `192 trained models`.
        item_s: Time of an item in earlier work of the same kind; None where there was
            none.
        items: Number of items.
    """
    display = _display_on(_stderr())
    display.amount = "" if item_s else f" for {amount}"
    if item_s and item_s * items > ANNOUNCED_S:
        say(
            f"about {write_duration(item_s * items)} for {amount}, each "
            f"{write_duration(item_s)} in the last run of this kind"
        )
        for bar in display.bars[-1:]:
            bar.is_announced = True


@contextmanager
def mute_libraries() -> Iterator[None]:
    """Silence the progress bars and messages of transformers and diffusers, if they are
    imported.
    """
    names = [f"{library}.utils.logging" for library in ("diffusers", "transformers")]
    libraries = [sys.modules[name] for name in names if name in sys.modules]

    # bars and messages off, and back as they were
    before = [
        (library.get_verbosity(), library.is_progress_bar_enabled())
        for library in libraries
    ]
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
    # bars pause, so that they do not draw over the question
    with hide_progress():
        _write(f"{question} [y/N]")
        return sys.stdin.readline().strip().lower() in ("y", "yes")


def is_pipe_closed() -> bool:
    """Whether the reader of stdout has gone, as `head` does; what is not written yet is
    then dropped.
    """
    # ask for an error of the pipe without waiting
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    is_closed = any(event & select.POLLERR for _, event in poll.poll(0))

    # Python flushes stdout at exit: the rest goes to nowhere instead of failing
    if is_closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_closed


def show_json(document: Any, indent: int | None = 2) -> None:
    """Write one JSON document as the result, on stdout; in one line without an
    indent.
    """
    import json

    # json leaves DEL as it is, and `_write` would escape it as JSON does not
    show_text(
        *json.dumps(document, indent=indent, default=str)
        .replace("\x7f", "\\u007f")
        .split("\n")
    )


def show_table(table: Table) -> None:
    """Write an aligned table as a result, on stdout."""
    if not writes_messages():
        return
    console = _stdout()
    width = console.width

    # a table that does not fit is written row by row, but one of few columns
    is_listed = table.is_list or len(table.columns) > MAX_FOLDED_COLUMNS
    if is_listed and table_width(table) > width:
        sys.stdout.write(write_as_list(table, width))
        return

    # drawn by rich; blanks at the ends of lines are left out
    console.width = UNFOLDED_COLUMNS if table.is_copied else width
    with console.capture() as written:
        console.print(draw(table), highlight=False, markup=False)
    note = (
        [*textwrap.wrap(table.note.translate(ONE_LINE), width), ""]
        if table.note
        else []
    )
    lines = [line.rstrip() for line in [*written.get().splitlines(), ""]]
    lines = [line if line.strip("─") else line[:width] for line in lines]
    sys.stdout.write("".join(f"{line}\n" for line in lines + note))


def open_browser(address: str) -> None:
    """Open a page in a browser, and say where there is none."""
    import webbrowser

    # macOS and Windows always have windows; elsewhere, a browser without one would take
    # the terminal
    has_display = sys.platform in ("darwin", "win32") or DISPLAYS & os.environ.keys()
    if not (has_display and webbrowser.open(address)):
        warn(f"no browser was found here: {address} is the page")


def divert_prints() -> redirect_stdout[Any]:
    """Send to stderr what libraries print: it is no result."""
    return redirect_stdout(sys.stderr)


class Bar:
    """Work at hand: its description, items done, pace and time left.

    Args:
        description: What is done.
        total: Items to do; None where they are not counted.
        is_of_item: Whether its items are parts of one item of the work around it.
    """

    def __init__(
        self, description: str, total: int | None, is_of_item: bool = False
    ) -> None:
        self.total = total
        self.items = 0
        self.is_of_item = is_of_item
        self.label = self._description = description.translate(ONE_LINE)
        self._started_s = self._advanced_s = time.monotonic()
        # the first items may take longer, as files are opened for all
        self._first: tuple[float, int] | None = None
        self.is_announced = False

    def expect(self, more: int) -> None:
        """Add items to the total; negative for items that were done before."""
        self.total = (self.total or 0) + more

    def advance(self, items: int = 1, note: str = "") -> None:
        """Count items done; `note` follows the description. KeyboardInterrupt if it was
        lost.
        """
        raise_if_interrupted()
        self.items += items
        self.label = (
            f"{self._description} ({note.translate(ONE_LINE)})"
            if note
            else self._description
        )
        # the pace counts up to the last item: a note alone is no progress
        if items:
            self._advanced_s = time.monotonic()
            self._first = self._first or (self._advanced_s, self.items)
            _display_on(_stderr()).announce_long_work()

    def measure_item_s(self) -> float | None:
        """Measure the time of an item, without the first ones; None before there are
        others.
        """
        first_s, first_items = self._first or (0.0, self.items)
        if self.items <= first_items:
            return None
        return (self._advanced_s - first_s) / (self.items - first_items)

    @property
    def elapsed_s(self) -> float:
        """Time since the work began."""
        return time.monotonic() - self._started_s

    @property
    def pace(self) -> str:
        """Items of the total, pace and time left; before the first item, how long it
        has taken.
        """
        elapsed_s = self.elapsed_s
        counts = f"{self.items:,} of {self.total:,}, " if self.total else ""
        if not self.total or not self.items:
            return f"{counts}{clock(elapsed_s)} so far"

        # an item that takes longer than those before slows the pace of all that are
        # left
        item_s = max(
            (self._advanced_s - self._started_s) / self.items,
            elapsed_s / (self.items + 1),
            1e-9,
        )
        left = clock(max(0.0, item_s * self.total - elapsed_s))
        pace = f"{clock(item_s) if item_s > 60 else f'{item_s:.1f} s'} each"
        return f"{counts}{pace if item_s > 1 else f'{1 / item_s:,.1f}/s'}, {left} left"


@contextmanager
def progress(
    description: str, total: int | None = None, is_of_item: bool = False
) -> Iterator[Bar]:
    """Show how far work is on stderr: items, pace and time left; or, without a total,
    how long it has taken.

    A terminal shows the innermost work and each counted work around it, after DELAY_S.
    Elsewhere that is a line once in LINE_S, said by a thread since work may be one
    call, and one at the end of counted work.
    """
    # all work has one display; without a terminal, a thread of the outermost work
    # speaks
    display = _display_on(_stderr())
    bar = Bar(description, total, is_of_item)
    bar.is_announced = any(other.is_announced for other in display.bars)
    has_ended = threading.Event()
    thread = threading.Thread(target=display.say_lines, args=(has_ended,), daemon=True)
    display.bars.append(bar)
    if display.draws:
        display.live.start()
    elif len(display.bars) == 1:
        thread.start()
    try:
        yield bar
    finally:
        has_ended.set()
        if thread.is_alive():
            thread.join()
        display.bars.remove(bar)
        if not display.bars:
            display.live.stop()

        # work inside counted work ends unsaid
        is_outermost = all(other.total is None for other in display.bars)
        if is_outermost and bar.total:
            display.amount = ""
        if (
            not display.draws
            and is_outermost
            and bar.total
            and bar.items
            and bar.elapsed_s > DELAY_S
        ):
            say(
                f"{description}: {bar.items:,} of {bar.total:,} in "
                f"{clock(bar.elapsed_s)}"
            )


@contextmanager
def hide_progress() -> Iterator[None]:
    """Leave the terminal to what others write on it without the console: a question, a
    bar of a library.
    """
    display = _display_on(_stderr())
    display.live.stop()
    try:
        yield
    finally:
        if display.bars and display.draws:
            display.live.start()


class _Display:
    """Lines of the work at hand, below the messages of a terminal; they vanish at its
    end.
    """

    def __init__(self, console: Any) -> None:
        from rich.live import Live

        self.bars: list[Bar] = []
        self.amount = ""
        self.live = Live(self, console=console, refresh_per_second=2, transient=True)
        self.draws = console.is_terminal and writes_messages()

    def list_shown(self) -> list[Bar]:
        """List counted work, and the innermost."""
        bars = [*self.bars]  # work may end meanwhile
        return [bar for bar in bars if bar.total is not None or bar is bars[-1]]

    def describe(self) -> str:
        """Write all that is shown in one line."""
        return "; ".join(f"{bar.label}: {bar.pace}" for bar in self.list_shown())

    def announce_long_work(self) -> None:
        """Say once about how long counted work takes, where that is long."""
        counted = [bar for bar in self.bars if bar.total]
        if not counted or (outermost := counted[0]).is_announced:
            return

        # time of an item by its parts, or by earlier items
        inner = next((bar for bar in counted[1:] if bar.is_of_item), None)
        basis = inner or outermost
        item_s = basis.measure_item_s()
        if item_s is not None and inner is not None:
            item_s *= inner.total or 1
        if item_s is None or basis.elapsed_s < FIRST_PACE_S:
            return
        left_s = item_s * ((outermost.total or 0) - outermost.items)
        if left_s > ANNOUNCED_S:
            say(
                f"{outermost.label}: about {write_duration(left_s)}"
                f"{self.amount or f' for {outermost.total:,}'}, by the first "
                f"{write_duration(basis.elapsed_s)}"
            )
            for bar in counted:
                bar.is_announced = True

    def say_lines(self, has_ended: threading.Event) -> None:
        """Say a line once in LINE_S, until the work ends."""
        while not has_ended.wait(PROGRESS_INTERVAL_S):
            say(self.describe())

    def __rich__(self) -> Any:
        """Draw a line for each work; nothing before the first has lasted DELAY_S."""
        from rich import progress_bar, table, text

        # a narrow terminal shortens descriptions, then bars, and never the time left
        lines = table.Table.grid(padding=(0, 1), expand=True)
        for ratio in (3, 1, None):
            lines.add_column(ratio=ratio, no_wrap=not ratio)
        is_due = any(bar.elapsed_s > DELAY_S for bar in [*self.bars])
        for bar in self.list_shown() if is_due else ():
            label = text.Text(bar.label, no_wrap=True, overflow="ellipsis")
            drawn = progress_bar.ProgressBar(bar.total, bar.items) if bar.total else ""
            lines.add_row(label, drawn, bar.pace)
        return lines


_display_on = lru_cache(1)(_Display)  # one display a console


def _stderr() -> Any:
    return _console_on(getattr(sys.stderr, "rich_proxied_file", sys.stderr))


# messages are placed above a bar or table only by the console that shows it
@lru_cache(1)
def _console_on(stream: Any) -> Any:
    from rich.console import Console

    return Console(stderr=True, emoji=False)


def _stdout() -> Any:
    from rich.console import Console

    is_open = not sys.stdout.isatty() and "COLUMNS" not in os.environ  # a pipe or file
    # `python:brain:f` is no picture of a brain
    return Console(emoji=False, width=PIPE_COLUMNS if is_open else None)
