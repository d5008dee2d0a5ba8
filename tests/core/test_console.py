"""Results on stdout as they are; talk, warnings and errors on stderr."""

import io
import json
import os
import re
import sys
import threading
from types import SimpleNamespace

import pytest
from progress_lines import without_progress
from rich.console import Console
from rich.progress import Progress

from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.tables import Table

ODD = "python:brain:make [bold]x[/bold] " + "long " * 40


def test_text_is_written_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_text(ODD)
    console.show_json({"odd": ODD})
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == ODD
    assert json.loads(shown.out[len(ODD) :]) == {"odd": ODD} and not shown.err


def test_talk_warnings_and_errors_go_to_stderr_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    console.say(ODD)
    console.warn(ODD)
    console.fail(BrainhiveError(ODD, "do this"))
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [ODD, f"warning: {ODD}", f"error: {ODD}", "  try: do this"]
    assert not shown.out


def test_a_table_is_aligned_and_its_numbers_short(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("Title", ("name", "value"), (("python:brain:x", 0.123456), ("b", 7)))
    console.show_table(table)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == "Title" and lines[-2:] == ["python:brain:x   0.1235", "b                7"]
    assert table.as_dict()["rows"][1] == {"name": "b", "value": 7}


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        ("60", [["Title"], ["a", "x" * 30, "1"]]),
        ("40", [["Title", "(below:", "path)"], ["a", "1"], ["Title:", "path"], ["a", "x" * 30]]),
        (None, [["Title"], ["a", "x" * 30, "1"]]),
    ],
)
def test_a_long_column_stands_alone_where_a_table_does_not_fit(
    width: str | None,
    shown: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", width) if width else monkeypatch.delenv("COLUMNS", raising=False)
    table = Table("Title", ("name", "path", "value"), (("a", "x" * 30, 1), ("b", "y", 2)))
    console.show_table(table)
    lines = capsys.readouterr().out.splitlines()
    assert [words for words in map(str.split, lines) if words[:1] in (["Title"], ["Title:"], ["a"])] == shown
    assert lines == [line.rstrip() for line in lines]


def test_a_table_in_a_pipe_has_at_most_120_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    names = tuple(f"column_{number}" for number in range(30))
    console.show_table(Table("A title", names, (tuple("v" * 12 for _ in names),)))
    console.show_table(Table("Plan", ("item", "value"), (("cells", "word " * 100),)))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120 and " ".join(lines).count("v" * 12) >= 30


def test_a_line_to_copy_is_not_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    console.show_table(Table("Steps", ("", "step"), ((1, ODD.strip()),), is_copied=True))
    lines = capsys.readouterr().out.splitlines()
    assert f"1   {ODD.strip()}" in lines and "─" * 80 in lines


def test_a_title_is_folded_at_the_width_of_the_terminal_not_of_its_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    title = "A title that is longer than the table below it is wide, as many are"
    console.show_table(Table(title, ("name", "value"), (("a", 1),)))
    assert capsys.readouterr().out.splitlines()[0] == title


def test_only_the_first_process_talks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    console.say("a")
    console.show_text("b")
    console.show_table(Table("c", ("d",), ()))
    with console.progress("work", 3) as bar:
        bar.advance(3)
    with console.live(lambda rows: Table("e", ("f",), ())):
        pass
    assert capsys.readouterr() == ("", "")


def test_a_bar_counts_what_is_left_and_names_what_limits() -> None:
    progress = Progress(console=Console(file=io.StringIO()))
    bar = console.Bar(progress, "work", 10)

    bar.expect(-4)  # done before
    bar.advance(6, "vae limits")

    (task,) = progress.tasks
    assert (task.completed, task.total) == (6, 6)
    assert re.fullmatch(r"[\d.]+/s vae limits", task.fields["note"])


class Terminal(io.StringIO):
    """What a terminal would be sent."""

    def isatty(self) -> bool:
        return True


def watched(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[int]]:
    """Draw a live table on a stream of 20 lines, at once; return what it was sent, and the rows asked for."""
    asked: list[int] = []

    def table(rows: int) -> Table:
        asked.append(rows)
        return Table("2 of [6] cells", ("cell",), (("sub-01",),))

    for name, value in (("TERM", "xterm"), ("LINES", "20"), ("COLUMNS", "40")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(console, "DELAY_S", -1.0)
    monkeypatch.setattr("sys.stderr", stream)
    with console.live(table):
        console.warn("careful")
    return stream.getvalue(), asked


def test_a_live_table_shows_on_a_terminal_below_what_is_said_and_vanishes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown, asked = watched(Terminal(), monkeypatch)
    assert set(asked) == {20 - console.OTHER_LINES}
    assert "2 of [6] cells" in shown and "sub-01" in shown
    assert shown.index("warning: careful") < shown.rindex("sub-01")
    assert shown.rstrip("\r").endswith("\x1b[1A\x1b[2K\x1b[?25h")  # up and erased, line by line


def test_work_without_a_count_shows_and_the_outer_one_comes_back_after_the_inner_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "DELAY_S", -1.0)
    monkeypatch.setattr("sys.stderr", stream)

    with console.progress("outer"):
        with console.progress("inner"):
            pass
        drawn = stream.getvalue()
        assert drawn.index("outer") < drawn.index("inner") < drawn.rindex("outer")
        with console.undrawn():
            pass
    after = stream.getvalue()[len(drawn) :]
    assert after.index("\x1b[?25h") < after.index("\x1b[?25l")  # the cursor is there for what others write


def test_a_live_table_is_nothing_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched(io.StringIO(), monkeypatch) == ("warning: careful\n", [])


def test_without_a_terminal_news_are_lines_and_the_last_comes_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "POLL_S", 0.0)
    monkeypatch.setattr(console, "LINE_S", -1.0)
    was_due = threading.Event()

    def news(is_due: bool) -> list[str]:
        if is_due:
            was_due.set()
        return ["a minute has passed" if is_due else "the last cell is done"]

    with console.live(lambda rows: Table("", (), ()), news):
        assert was_due.wait(60)
    told = capsys.readouterr().err.splitlines()
    assert {*told[:-1]} == {"a minute has passed"} and told[-1] == "the last cell is done"


class Clock:
    """Time of the console that passes where a test says so; no thread looks at it meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        monkeypatch.setattr(console, "POLL_S", 1e6)
        monkeypatch.setattr("sys.stderr", io.StringIO())  # a display of its own

    def lines(self, passed_s: float) -> list[str]:
        """Let time pass, and return the lines that are said then."""
        stream = sys.stderr
        assert isinstance(stream, io.StringIO)
        self.now_s += passed_s
        before = len(stream.getvalue())
        console._display_on(console._stderr()).say_due()
        return stream.getvalue()[before:].splitlines()


def test_without_a_terminal_a_bar_is_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with console.progress("pictures", 20) as bar:
        clock.now_s = 10
        bar.advance()
        assert clock.lines(50) == []  # no minute has passed
        bar.expect(-8)  # done before
        bar.advance(5, "vae limits")
        assert clock.lines(1) == ["pictures: 6 of 12, 0:10 each, 0:59 left vae limits"]
        assert clock.lines(59) == []


def test_without_a_terminal_work_that_is_one_call_says_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    with console.progress("explain"):
        assert clock.lines(59) == [] and clock.lines(2) == ["explain: 1:01 so far"]
        assert without_progress("explain: 1:01 so far\nerror: none\n") == ["error: none"]

        # its steps are named when they have taken as long as a terminal waits, each name once
        with console.progress("cells", 3) as bar:
            for said in (["cells: 0 of 3, 0:03 so far; decoding: 0:03 so far"], []):
                with console.progress("decoding"):
                    assert clock.lines(1) == [] and clock.lines(2) == said
            bar.advance()
            clock.now_s += 24  # the second takes long: 6 s a cell are no longer the pace
            assert clock.lines(30) == ["cells: 1 of 3, 0:06 each, 0:30 left"]


def test_without_a_terminal_a_line_is_said_by_a_thread_while_the_work_is_one_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = threading.Event()
    monkeypatch.setattr(console, "POLL_S", 0.0)
    monkeypatch.setattr(console, "LINE_S", -1.0)
    monkeypatch.setattr(console, "say", lambda line: said.set() if "prepare: " in line else None)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with console.progress("prepare"):
        assert said.wait(60)


def test_on_a_terminal_counted_work_stays_above_the_work_inside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "DELAY_S", -1.0)
    monkeypatch.setattr("sys.stderr", stream)
    with console.progress("command"), console.progress("cells", 3), console.progress("decoding"):
        drawn = stream.getvalue().rpartition("decoding")[0].splitlines()[-2:]
    assert "cells" in drawn[0] and "0/3" in drawn[0] and "command" not in "".join(drawn)


def test_what_a_library_prints_under_a_live_table_is_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    with console.live(lambda rows: Table("", (), ())):
        print("hello from a tracker")
    assert capsys.readouterr() == ("", "hello from a tracker\n")


def test_a_bar_shows_itself_on_a_terminal_that_takes_the_place_of_a_pipe(monkeypatch):
    console.say("to a pipe")
    terminal, seen = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "DELAY_S", 0.0)
    monkeypatch.setattr(sys, "stderr", os.fdopen(seen, "w"))

    with console.progress("pictures", 2) as bar:
        bar.advance()
    sys.stderr.close()

    shown = ""
    while "pictures" not in shown:  # a terminal hands over what is written in pieces
        shown += os.read(terminal, 2**16).decode()


def test_control_characters_of_names_are_escaped_wherever_a_line_is_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, escaped = "a\x1b[31m\rb\x9b\u2028c", "a\\x1b[31m\\rb\\x9b\\u2028c"
    console.fail(BrainhiveError(name, name))
    console.show_text(name)
    console.show_table(Table(name, ("name",), ((name,),)))
    shown = capsys.readouterr()
    assert shown.err == f"error: {escaped}\n  try: {escaped}\n"
    assert shown.out.startswith(f"{escaped}\n") and not set("\x1b\r\x9b\u2028") & set(shown.out)


def test_a_name_with_a_new_line_makes_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    name, escaped = "Oz\nerror: forged\udcff", "Oz\\nerror: forged\\udcff"
    console.fail(BrainhiveError(f"no {name}", f"rename {name}"))
    console.warn(f"left out: {name}")
    console.say(f"stream {name}", "connected")
    assert capsys.readouterr().err.splitlines() == [
        f"error: no {escaped}",
        f"  try: rename {escaped}",
        f"warning: left out: {escaped}",
        f"stream {escaped}",
        "connected",
    ]

    console.show_text(name)
    for is_list in (False, True):
        console.show_table(Table(name, (name, "b"), ((name, "x" * 200),), note=name, is_list=is_list))
    shown = capsys.readouterr().out
    assert not re.search(r"^\s*error", shown, re.MULTILINE) and shown.count(escaped) >= 5


def test_json_holds_any_name_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"name": "Oz\nµ\x7f\x9b\u202e\udcff\t"}
    for indent, count in ((2, 3), (None, 1)):
        console.show_json(document, indent)
        shown = capsys.readouterr().out
        assert json.loads(shown) == document and len(shown.splitlines()) == count
        assert shown.isascii() and shown.replace("\n", "").isprintable()  # whatever stdout can encode


def test_a_bar_shows_names_that_hold_brackets_and_new_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "DELAY_S", -1.0)
    monkeypatch.setattr("sys.stderr", stream)
    with console.progress("sub [/red]", 3) as bar:
        bar.advance(note="[/b]\nforged")
        with console.progress("inner"):  # which draws the lines anew
            pass
    assert "sub [/red]" in stream.getvalue() and "[/b]\\nforged" in stream.getvalue()
