"""Output of commands: results on stdout, and messages, progress and errors on stderr.

Only this module writes to the terminal.
"""

import os
import select
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rich import filesize

from brainhive_cli.core.base.errors import raise_if_interrupted
from brainhive_cli.core.base.tables import (
    ONE_LINE_ESCAPES,
    PLACEHOLDER,
    Table,
    fill_lines,
    measure_table_width,
    render,
    write_as_list,
)

if TYPE_CHECKING:
    from brainhive_cli.core.base.errors import BrainhiveError

DELAY_S = 2.0
"""Time after which counted work writes a line at its end."""
DRAWING_DELAY_S = 0.2
"""Time after which a terminal draws the progress of work. Users see a sign of life
within a second, because a command needs half a second until its work begins.
"""
FIRST_SIGN_S = 0.4
"""Time since the import of this module after which the first line is written if stderr
is not a terminal.
"""
PROGRESS_INTERVAL_S = 60.0
"""Time between two lines of progress if stderr is not a terminal."""
DISPLAYS = {"DISPLAY", "WAYLAND_DISPLAY"}
"""Environment variables of graphical sessions. A browser needs at least one of them."""
size = filesize.decimal
"""Function that writes a number of bytes as 12.3 kB, 3.0 MB or 26.0 GB."""
_muted_blocks: list[bool] = []
"""Stack with an entry for each active `mute_messages` block."""
IMPORTED_S = time.monotonic()
"""Time at which this module was imported, at the start of a command."""
has_written = threading.Event()
"""Set when this process has written its first message."""


def writes_messages() -> bool:
    """Return True if this process may write messages and results.

    It may not inside a `mute_messages` block, or with another RANK than 0.
    """
    return os.environ.get("RANK", "0") == "0" and not _muted_blocks


@contextmanager
def mute_messages() -> Iterator[None]:
    """Write no messages, warnings or results inside the block. Errors still appear."""
    _muted_blocks.append(True)
    try:
        yield
    finally:
        _muted_blocks.pop()


def say(*lines: str) -> None:
    """Write lines of a message on stderr, with escaped control characters."""
    if writes_messages():
        _write(*lines)


def warn(text: str) -> None:
    """Write a warning of one line on stderr."""
    if writes_messages():
        _write(f"warning: {text}", style="yellow")


def show_error(error: "BrainhiveError", as_json: bool = False) -> None:
    """Write an error and its hint on stderr.

    Args:
        error: Error to write.
        as_json: If True, also write the error as JSON on stdout.
    """
    _write(f"error: {error.message}", style="red")
    if error.hint:
        _write(f"  try: {error.hint}")

    if as_json:
        show_json(
            {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
        )


def show_traceback() -> None:
    """Write the traceback of the current exception on stderr."""
    import traceback

    _write(*traceback.format_exc().split("\n"))


def _write(*lines: str, style: str | None = None, console: Any = None) -> None:
    """Write lines in a style of rich, by default on stderr."""
    # names may contain control characters, and brackets that look like markup
    has_written.set()
    text = "\n".join(line.translate(ONE_LINE_ESCAPES) for line in lines)
    (console or _stderr()).print(
        text, style=style, highlight=False, markup=False, soft_wrap=True
    )


def show_text(*lines: str) -> None:
    """Write lines of a result on stdout, with escaped control characters."""
    if writes_messages():
        _write(*lines, console=_stdout())


def summarise_names(names: Sequence[str]) -> str:
    """Write the number of names and the names, as in `2: a, b`.

    More than four names become `9: a … i`, and no names an empty text.
    """
    if not names:
        return ""
    if len(names) <= 4:
        return f"{len(names)}: {', '.join(names)}"
    return f"{len(names)}: {names[0]} … {names[-1]}"


def clock(seconds: float) -> str:
    """Write a time as 0:07, 12:34 or 1:02:03."""
    total_minutes, remaining_s = divmod(round(seconds), 60)
    if total_minutes < 60:
        return f"{total_minutes}:{remaining_s:02d}"
    hours, minutes = divmod(total_minutes, 60)
    return f"{hours}:{minutes:02d}:{remaining_s:02d}"


def write_duration(seconds: float) -> str:
    """Write a duration in the largest unit that fits at least twice, as in `90 min`."""
    for unit, unit_s in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.2g} s"


def announce(amount: str, item_s: float | None, items: float) -> None:
    """Write the expected duration of work that will take longer than ten minutes.

    Args:
        amount: Amount of work as text, such as `192 trained models`.
        item_s: Seconds per item in earlier work of this kind, or None if there is none.
        items: Number of items.
    """
    # If work is known to take longer, a message announces its amount and duration.
    announced_s = 600.0
    if item_s and item_s * items > announced_s:
        say(
            f"about {write_duration(item_s * items)} for {amount}, each "
            f"{write_duration(item_s)} in the last run of this kind"
        )


@contextmanager
def mute_libraries() -> Iterator[None]:
    """Hide messages and bars of transformers and diffusers inside the block.

    Error messages still appear. A library that is imported later is not muted.
    """
    previous_settings = []
    for library_name in ("diffusers", "transformers"):
        logging = sys.modules.get(f"{library_name}.utils.logging")
        if logging is None:
            continue
        verbosity = logging.get_verbosity()
        has_bar = logging.is_progress_bar_enabled()
        previous_settings.append((logging, verbosity, has_bar))
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging, verbosity, has_bar in previous_settings:
            logging.set_verbosity(verbosity)
            if has_bar:
                logging.enable_progress_bar()


def flush() -> None:
    """Flush stdout and stderr."""
    sys.stdout.flush()
    sys.stderr.flush()


def confirm(question: str) -> bool:
    """Ask the user a question, and return True for "yes".

    Returns False if stdin is not a terminal.
    """
    if not sys.stdin.isatty():
        return False
    with hide_progress():
        _write(f"{question} [y/N]")
        return sys.stdin.readline().strip().lower() in ("y", "yes")


def is_pipe_closed() -> bool:
    """Return True if the reader of stdout has stopped reading, as `head` does.

    In this case, the remaining output is dropped.
    """
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    is_closed = any(event & select.POLLERR for _, event in poll.poll(0))

    # with the null device as stdout, Python's flush at exit does not fail
    if is_closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_closed


def show_json(document: Any, indent: int | None = 2) -> None:
    """Write a JSON document on stdout.

    Args:
        document: Nested lists and dictionaries. Values of other types than JSON has are
            written as text.
        indent: Spaces per level, or None for a document in one line.
    """
    import json

    # `_write` would escape the DEL character as `\x7f`, which is not valid in JSON
    text = json.dumps(document, indent=indent, default=str)
    show_text(*text.replace("\x7f", "\\u007f").split("\n"))


def fits(table: Table) -> bool:
    """Return True if a table fits into the width of stdout."""
    return measure_table_width(table) <= int(_stdout().width)


def show_table(table: Table) -> None:
    """Write a table on stdout.

    A table that is wider than the terminal is written by the first rule that applies:

    - as a list, if `is_list` is True, or if it has more than 3
      columns and `keeps_columns` is False
    - unchanged, if `is_copied` is True
    - with line breaks inside its cells
    """
    if not writes_messages():
        return
    console = _stdout()
    width = console.width

    # Largest number of columns of a wide table whose cells are folded. A wide table of
    # more columns is written row by row.
    has_many_columns = len(table.columns) > 3
    can_be_list = table.is_list or (has_many_columns and not table.keeps_columns)
    if can_be_list and measure_table_width(table) > width:
        sys.stdout.write(write_as_list(table, width))
        return

    # Width at which no line of a table is folded, because users copy command lines.
    console.width = 10_000 if table.is_copied else width
    with console.capture() as capture:
        console.print(render(table), highlight=False, markup=False)

    # strip blanks at the ends, and cut rules (lines of dashes) to the width
    lines = []
    for drawn_line in capture.get().replace(PLACEHOLDER, " ").splitlines():
        line = drawn_line.rstrip()
        is_rule = not line.strip("─")
        lines.append(line[:width] if is_rule else line)
    lines.append("")
    if table.note:
        note = fill_lines(table.note.translate(ONE_LINE_ESCAPES), width)
        lines += note.splitlines()
        lines.append("")
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def open_browser(address: str) -> None:
    """Open a page in a browser. Without a browser, warn and write its address."""
    import webbrowser

    # on Linux without a graphical session, webbrowser starts a browser in the terminal
    has_display = sys.platform in ("darwin", "win32") or DISPLAYS & os.environ.keys()
    if not (has_display and webbrowser.open(address)):
        warn(f"no browser was found; open {address} in a browser")


def divert_prints() -> redirect_stdout[Any]:
    """Send prints to stderr inside a `with` block."""
    return redirect_stdout(sys.stderr)


class Bar:
    """Progress of a piece of work, counted in items such as training steps.

    Args:
        description: Description of the work.
        total: Number of items to do, or None if they are not counted.
        outer: Bar of the enclosing work if this work is a single item of it.

    Attributes:
        items: Number of finished items.
        current_share: Finished share of the current item, from 0 to 1.
        label: Description, followed by the latest note in brackets.
    """

    def __init__(
        self, description: str, total: int | None, outer: "Bar | None" = None
    ) -> None:
        self.total = total
        self.items = 0
        self.current_share = 0.0
        self._outer = outer
        self._description = description.translate(ONE_LINE_ESCAPES)
        self.label = self._description
        self._started_s = time.monotonic()
        self._advanced_s = self._started_s

    def expect(self, items: int) -> None:
        """Add items to the total number. A negative number removes items."""
        self.total = (self.total or 0) + items

    def advance(self, items: int = 1, note: str = "") -> None:
        """Count finished items, and show a note.

        Args:
            items: Number of items that were finished since the last call.
            note: Text in brackets after the description, or "".

        Raises:
            KeyboardInterrupt: if a library has swallowed the user's Ctrl-C.
        """
        raise_if_interrupted()
        self.items += items
        self.label = self._description
        if note:
            self.label += f" ({note.translate(ONE_LINE_ESCAPES)})"
        if items:
            self._reach(share=0.0)
            if self._outer and self.total:
                self._outer._reach(self.items / self.total)

    def _reach(self, share: float) -> None:
        """Set the finished share of the current item."""
        self.current_share = share
        self._advanced_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Time since the work began, in seconds."""
        return time.monotonic() - self._started_s

    @property
    def status(self) -> str:
        """Text with count, pace and remaining time, as in `6 of 12, 2.0/s, 0:03 left`.

        Without a total or finished work, it ends as in `0:07 so far`.
        """
        elapsed_s = self.elapsed_s
        counts = f"{self.items:,} of {self.total:,}, " if self.total else ""
        finished_items = self.items + self.current_share
        if not self.total or not finished_items:
            return f"{counts}{clock(elapsed_s)} so far"

        # a slow current item can raise the mean of the finished items
        finished_item_s = (self._advanced_s - self._started_s) / finished_items
        current_item_s = elapsed_s / (self.items + 1)
        item_s = max(finished_item_s, current_item_s, 1e-9)
        remaining_s = max(0.0, item_s * self.total - elapsed_s)

        if item_s > 60:
            pace = f"{clock(item_s)} each"
        elif item_s > 1:
            pace = f"{item_s:.1f} s each"
        else:
            pace = f"{1 / item_s:,.1f}/s"
        return f"{counts}{pace}, {clock(remaining_s)} left"


@contextmanager
def progress(
    description: str, total: int | None = None, is_of_item: bool = False
) -> Iterator[Bar]:
    """Show the progress of the work in the block, on stderr.

    - terminal: after `DRAWING_DELAY_S`, a bar for the innermost block and for each
      block with a total
    - no terminal: a line after `FIRST_SIGN_S` if the process has written nothing yet, a
      line every `PROGRESS_INTERVAL_S`, and a line at the end of the outermost block
      with a total

    Args:
        description: Description of the work.
        total: Number of items to do, or None if they are not counted.
        is_of_item: True if this work is a single item of the enclosing work, such as
            the training of one of several models. Its progress counts as a share of the
            item.

    Yields:
        The bar. Call its method `advance` for finished items.
    """
    display = _display_on(_stderr())
    outer = None
    if is_of_item:
        outer = next((bar for bar in reversed(display.bars) if bar.total), None)
    bar = Bar(description, total, outer)
    display.bars.append(bar)

    # a thread writes the lines, because the main thread may be busy in a long call
    has_ended = threading.Event()
    thread = threading.Thread(target=display.say_lines, args=(has_ended,), daemon=True)
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

        # the outermost work with a total writes a line at its end
        is_inside_counted = any(outer.total is not None for outer in display.bars)
        has_lasted = bool(bar.total and bar.items) and bar.elapsed_s > DELAY_S
        if has_lasted and not is_inside_counted and not display.draws:
            say(
                f"{description}: {bar.items:,} of {bar.total:,} in "
                f"{clock(bar.elapsed_s)}"
            )


@contextmanager
def hide_progress() -> Iterator[None]:
    """Hide the progress bars while the block writes to the terminal."""
    display = _display_on(_stderr())
    display.live.stop()
    try:
        yield
    finally:
        if display.bars and display.draws:
            display.live.start()


class _Display:
    """Progress bars of all current work, below the messages on a terminal.

    Attributes:
        bars: Bars from the outermost to the innermost work.
        live: Display of rich, which redraws this object four times a second.
        draws: True if bars are drawn on a terminal.
    """

    def __init__(self, console: Any) -> None:
        from rich.live import Live

        self.bars: list[Bar] = []
        self.live = Live(self, console=console, refresh_per_second=4, transient=True)
        self.draws = console.is_terminal and writes_messages()

    def select_bars(self) -> list[Bar]:
        """Return the bars that have a total, and the innermost bar."""
        # a copy, because work in another thread may end meanwhile
        bars = list(self.bars)
        return [bar for bar in bars if bar.total is not None or bar is bars[-1]]

    def describe(self) -> str:
        """Write the progress of the selected bars in one line."""
        return "; ".join(f"{bar.label}: {bar.status}" for bar in self.select_bars())

    def say_lines(self, has_ended: threading.Event) -> None:
        """Write a line of progress every `PROGRESS_INTERVAL_S` until the work ends.

        If the process has written nothing yet, write a first line after `FIRST_SIGN_S`.
        """
        first_wait_s = FIRST_SIGN_S - (time.monotonic() - IMPORTED_S)
        has_long_begun = not has_ended.wait(max(first_wait_s, 0))
        if has_long_begun and not has_written.is_set():
            say(f"{self.select_bars()[-1].label} …")
        while not has_ended.wait(PROGRESS_INTERVAL_S):
            say(self.describe())

    def __rich__(self) -> Any:
        """Draw a row for each selected bar, once a bar has lasted `DRAWING_DELAY_S`."""
        from rich import progress_bar, table, text

        # a narrow terminal shortens the description and the bar, never the status
        grid = table.Table.grid(padding=(0, 1), expand=True)
        grid.add_column(ratio=3)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True)
        if not any(bar.elapsed_s > DRAWING_DELAY_S for bar in list(self.bars)):
            return grid
        for bar in self.select_bars():
            label = text.Text(bar.label, no_wrap=True, overflow="ellipsis")
            gauge = progress_bar.ProgressBar(bar.total, bar.items) if bar.total else ""
            grid.add_row(label, gauge, bar.status)
        return grid


_display_on = lru_cache(1)(_Display)
"""Function that returns the display of a console. A console has a single display."""


def _stderr() -> Any:
    """Return the console that writes to stderr."""
    # while bars are drawn, rich replaces sys.stderr by a proxy
    return _console_on(getattr(sys.stderr, "rich_proxied_file", sys.stderr))


@lru_cache(1)
def _console_on(stream: Any) -> Any:
    """Return the console that writes to stderr, cached until `stream` changes."""
    from rich.console import Console

    return Console(stderr=True, emoji=False)


def _stdout() -> Any:
    """Make a console that writes to stdout."""
    from rich.console import Console

    # a pipe or file has no width, unless the user sets one
    has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
    # Width of output to a pipe or file, which has no width of its own.
    pipe_columns = 120
    # with emoji, rich would draw the `:brain:` of `python:brain:f` as a picture
    return Console(emoji=False, width=None if has_width else pipe_columns)
