"""Results on stdout as they are; talk, warnings and errors on stderr."""

import io
import re
from types import SimpleNamespace

import pytest

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.tables import Table

ODD = "python:brain:make [bold]x[/bold] " + "long " * 40


def test_talk_warnings_and_errors_go_to_stderr_one_line_each_and_results_to_stdout(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.say(ODD)
    console.warn(ODD)
    console.fail(BrainhiveError(ODD, "do this"))
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [
        ODD,
        f"warning: {ODD}",
        f"error: {ODD}",
        "  try: do this",
    ]
    assert not shown.out
    console.show_text(ODD)
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [ODD] and not shown.err


def test_a_table_is_aligned_and_its_numbers_short(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Table("Title", ("name", "value"), (("python:brain:x", 0.123456), ("b", 7)))
    console.show_table(table)
    lines = [
        line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()
    ]
    assert lines[0] == "Title" and lines[-2:] == [
        "python:brain:x   0.1235",
        "b                7",
    ]
    assert table.as_dict()["rows"][1] == {"name": "b", "value": 7}

    monkeypatch.setenv("COLUMNS", "80")
    console.show_table(
        Table("Steps", ("", "step"), ((1, ODD.strip()),), is_copied=True)
    )
    assert f"1   {ODD.strip()}" in capsys.readouterr().out.splitlines()  # not folded


def test_a_table_that_does_not_fit_is_written_row_by_row_with_its_headings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    columns, rows = (
        ("name", "path", "value", "n"),
        (("a", "x" * 30, 1, 20), ("b", "y", 2, None)),
    )
    shown = {}
    for width in ("60", "40"):
        monkeypatch.setenv("COLUMNS", width)
        console.show_table(Table("Title", columns, rows))
        shown[width] = capsys.readouterr().out.splitlines()
    assert shown["60"][1].split() == [*columns] and shown["60"][3].split() == [
        "a",
        "x" * 30,
        "1",
        "20",
    ]
    listed = [
        "Title",
        "a",
        f"    path {'x' * 30}",
        "    · value 1 · n 20",
        "b",
        "    path y · value 2",
        "",
    ]
    assert shown["40"] == listed


def test_only_the_first_process_talks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    console.say("a")
    console.show_text("b")
    console.show_table(Table("c", ("d",), ()))
    monkeypatch.setattr(console, "DELAY_S", -1.0)
    with console.progress("work", 3) as bar:
        bar.advance(3)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    """What a terminal would be sent."""

    def isatty(self) -> bool:
        return True

    def draw(self) -> str:
        """Draw the work at hand anew, and return what the terminal was sent for it."""
        before = len(self.getvalue())
        console._display_on(console._stderr()).live.refresh()
        return re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", self.getvalue()[before:]).replace(
            "\r", ""
        )


def open_terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 60) -> Terminal:
    """Replace stderr by a terminal on which progress is drawn at once."""
    for name, value in (("TERM", "xterm"), ("COLUMNS", str(columns))):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(console, "DELAY_S", -1.0)
    monkeypatch.setattr("sys.stderr", stream := Terminal())
    return stream


class Clock:
    """Time of the console that passes where a test says so; no thread looks at it
    meanwhile.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        monkeypatch.setattr(
            console, "time", SimpleNamespace(monotonic=lambda: self.now_s)
        )

    def line(self, passed_s: float) -> str:
        """Let time pass, and return the line that is said then where there is no
        terminal.
        """
        self.now_s += passed_s
        return console._display_on(console._stderr()).describe()


def test_progress_shows_on_a_terminal_below_what_is_said_and_vanishes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = open_terminal(monkeypatch)
    with console.progress("training [cells]", 12) as bar:
        bar.advance(5)
        console.warn("careful")
        shown = terminal.draw()
    assert "training [cells]" in shown and "5 of 12" in shown and "careful" not in shown
    assert "warning: careful" in terminal.getvalue()
    # erased, cursor back
    assert terminal.getvalue().rstrip("\r").endswith("\x1b[2K\x1b[?25h")


def test_a_line_of_progress_says_count_pace_and_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    with console.progress("explain"):
        assert clock.line(61) == "explain: 1:01 so far"

        # work that is counted stays on the line; items that were done before are not
        # counted
        with console.progress("explaining pictures", 20) as bar:
            with console.progress("decoding"):
                assert clock.line(3) == (
                    "explaining pictures: 0 of 20, 0:03 so far; decoding: 0:03 so far"
                )
            bar.expect(-8)
            bar.advance(6, "vae limits")
            clock.now_s += 0.1  # which the pace already holds
            assert (
                clock.line(0)
                == "explaining pictures (vae limits): 6 of 12, 2.0/s, 0:03 left"
            )
            clock.now_s += 17.9  # the seventh takes long
            assert (
                clock.line(0)
                == "explaining pictures (vae limits): 6 of 12, 3.0 s each, 0:15 left"
            )
            assert clock.line(1000).endswith("6 of 12, 2:26 each, 12:09 left")


def test_a_name_with_a_new_line_or_control_character_makes_no_line_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, escaped = (
        "Oz\x1b[31m\nerror: forged\udcff\u202e",
        "Oz\\x1b[31m\\nerror: forged\\udcff\\u202e",
    )
    console.fail(BrainhiveError(f"no {name}", f"rename {name}"))
    console.say(f"stream {name}", "connected")
    told = [
        f"error: no {escaped}",
        f"  try: rename {escaped}",
        f"stream {escaped}",
        "connected",
    ]
    assert capsys.readouterr().err.splitlines() == told

    console.show_text(name)
    for is_list in (False, True):
        console.show_table(
            Table(name, (name, "b"), ((name, "x" * 200),), note=name, is_list=is_list)
        )
    shown = capsys.readouterr().out
    assert (
        not re.search(r"^\s*error", shown, re.MULTILINE) and shown.count(escaped) >= 5
    )


def test_long_work_is_announced_once_by_its_first_items(capsys, monkeypatch):
    clock_s = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock_s[0])
    with (
        console.progress("command"),
        console.progress("training cells", 40) as outer,
        console.progress("reading", 1000) as reading,  # no part of the training
        console.progress("training a", 100, is_of_item=True) as inner,
    ):
        clock_s[0] = 5.0
        inner.advance(5)  # too early to tell
        clock_s[0] = 12.0
        reading.advance(1)
        inner.advance(7)
        clock_s[0] = 20.0
        inner.advance(8)
        outer.advance()
    with console.progress("short", 10) as bar:
        clock_s[0] = 80.0
        bar.advance()
    said = capsys.readouterr().err.splitlines()
    # 7 parts in 7 s: 100 s an item
    assert [line for line in said if "about" in line] == [
        "training cells: about 67 min for 40, by the first 12 s"
    ]
