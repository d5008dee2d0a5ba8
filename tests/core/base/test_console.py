"""Results on stdout as they are; talk, warnings and errors on stderr."""

import io
import json
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from brainhive_cli.core.base import BrainhiveError, Table, console

ODD = "python:brain:make [bold]x[/bold] " + "long " * 40


def test_only_results_are_written_to_stdout(
    capsys,
):
    console.say(ODD)
    console.warn(ODD)
    console.show_error(BrainhiveError(ODD, "do this"))
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        ODD,
        f"warning: {ODD}",
        f"error: {ODD}",
        "  try: do this",
    ]
    assert not captured.out
    console.show_text(ODD)
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [ODD]
    assert not captured.err


def test_a_table_is_aligned_and_its_numbers_short(monkeypatch, capsys):
    table = Table("Title", ("name", "value"), (("python:brain:x", 0.123456), ("b", 7)))
    console.show_table(table)
    lines = [
        line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()
    ]
    assert lines[0] == "Title"
    assert lines[-2:] == [
        "python:brain:x   0.1235",
        "b                7",
    ]
    assert table.as_dict()["rows"][1] == {"name": "b", "value": 7}

    monkeypatch.setenv("COLUMNS", "80")
    console.show_table(
        Table("Steps", ("", "step"), ((1, ODD.strip()),), is_copied=True)
    )
    assert f"1   {ODD.strip()}" in capsys.readouterr().out.splitlines()  # not folded


def test_a_wide_table_is_written_row_by_row_with_headings(monkeypatch, capsys):
    columns, rows = (
        ("name", "path", "value", "n"),
        (("a", "x" * 30, 1, 20), ("b", "y", 2, None)),
    )
    texts = {}
    for width in ("60", "40"):
        monkeypatch.setenv("COLUMNS", width)
        console.show_table(Table("Title", columns, rows))
        texts[width] = capsys.readouterr().out.splitlines()
    assert texts["60"][1].split() == list(columns)
    assert texts["60"][3].split() == [
        "a",
        "x" * 30,
        "1",
        "20",
    ]
    expected_lines = [
        "Title",
        "a",
        f"    path {'x' * 30}",
        "    · value 1 · n 20",
        "b",
        "    path y · value 2",
        "",
    ]
    assert texts["40"] == expected_lines


def test_only_the_first_process_talks(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    console.say("a")
    console.show_text("b")
    console.show_table(Table("c", ("d",), ()))
    monkeypatch.setattr(console, "DELAY_S", -1.0)
    monkeypatch.setattr(console, "DRAWING_DELAY_S", -1.0)
    with console.progress("work", 3) as bar:
        bar.advance(3)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    """What a terminal would be sent."""

    def isatty(self):
        return True

    def draw(self):
        """Draw the work at hand anew, and return what the terminal was sent for it."""
        initial_count = len(self.getvalue())
        console._display_on(console._stderr()).live.refresh()
        return re.sub(
            r"\x1b\[[?\d;]*[A-Za-z]", "", self.getvalue()[initial_count:]
        ).replace("\r", "")


def open_terminal(monkeypatch, columns=60):
    """Replace stderr by a terminal on which progress is drawn at once."""
    for name, value in (("TERM", "xterm"), ("COLUMNS", str(columns))):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(console, "DELAY_S", -1.0)
    monkeypatch.setattr(console, "DRAWING_DELAY_S", -1.0)
    monkeypatch.setattr("sys.stderr", stream := Terminal())
    return stream


class Clock:
    """Time of the console that passes where a test says so; no thread looks at it
    meanwhile.
    """

    def __init__(self, monkeypatch):
        self.now_s = 0.0
        monkeypatch.setattr(
            console, "time", SimpleNamespace(monotonic=lambda: self.now_s)
        )

    def line(self, passed_s):
        """Let time pass, and return the line that is said then where there is no
        terminal.
        """
        self.now_s += passed_s
        return console._display_on(console._stderr()).describe()


def test_a_progress_bar_stays_below_messages_and_vanishes(
    monkeypatch,
):
    terminal = open_terminal(monkeypatch)
    with console.progress("training [cells]", 12) as bar:
        bar.advance(5)
        console.warn("careful")
        screen = terminal.draw()
    assert "training [cells]" in screen
    assert "5 of 12" in screen
    assert "careful" not in screen
    assert "warning: careful" in terminal.getvalue()
    # erased, cursor back
    assert terminal.getvalue().rstrip("\r").endswith("\x1b[2K\x1b[?25h")


def test_slow_work_writes_one_line_unless_something_was_written(monkeypatch, capsys):
    has_written = threading.Event()
    monkeypatch.setattr(console, "has_written", has_written)
    monkeypatch.setattr(console, "FIRST_SIGN_S", 0.0)
    for _ in range(2):
        with console.progress("embed: starting"):
            assert has_written.wait(10)
    assert capsys.readouterr().err.count("embed: starting") == 1


def test_a_slow_command_shows_a_line_before_it_imports_torch(
    monkeypatch,
):
    code = "import time; from brainhive_cli.core.base import console\n"
    code += "with console.progress('embed: starting'):\n"
    code += "    time.sleep(2); assert not {'torch', 'numpy'} & sys.modules.keys()"
    for name in ("RANK", "PYTHONWARNINGS"):
        monkeypatch.delenv(name, raising=False)
    process = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}"], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert "embed: starting" in process.stderr


def test_a_line_of_progress_says_count_pace_and_time_left(
    monkeypatch,
):
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


def test_control_characters_in_names_cannot_start_a_line(
    capsys,
):
    name, escaped = (
        "Oz\x1b[31m\nerror: forged\udcff\u202e",
        "Oz\\x1b[31m\\nerror: forged\\udcff\\u202e",
    )
    console.show_error(BrainhiveError(f"no {name}", f"rename {name}"))
    console.say(f"stream {name}", "connected")
    messages = [
        f"error: no {escaped}",
        f"  try: rename {escaped}",
        f"stream {escaped}",
        "connected",
    ]
    assert capsys.readouterr().err.splitlines() == messages

    console.show_text(name)
    for is_list in (False, True):
        console.show_table(
            Table(name, (name, "b"), ((name, "x" * 200),), note=name, is_list=is_list)
        )
    output = capsys.readouterr().out
    assert not re.search(r"^\s*error", output, re.MULTILINE)
    assert output.count(escaped) >= 5


def test_time_left_counts_the_finished_share_of_an_item(
    monkeypatch,
):
    clock = Clock(monkeypatch)
    with (
        console.progress("command"),
        console.progress("training cells", 40) as outer,
        console.progress("training a", 0, is_of_item=True) as inner,
    ):
        inner.expect(100)
        clock.now_s = 20.0
        inner.advance(20)  # a fifth of a cell in 20 s: 100 s a cell
        assert clock.line(0) == (
            "training cells: 0 of 40, 1:40 each, 1:06:20 left; "
            "training a: 20 of 100, 1.0/s, 1:20 left"
        )
        clock.now_s = 100.0
        inner.advance(80)
        outer.advance()
        assert clock.line(0).startswith("training cells: 1 of 40, 1:40 each, 1:05:00")

    # work that is an item of nothing, as of `runs verify`
    with console.progress("training a", 2, is_of_item=True) as single_progress:
        single_progress.advance()
    assert single_progress.items == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0:00"),
        (7, "0:07"),
        (59.6, "1:00"),
        (754, "12:34"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (3723, "1:02:03"),
        (90061, "25:01:01"),
    ],
)
def test_a_clock_has_hours_from_sixty_minutes_on(seconds, text):
    assert console.clock(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.1234, "0.12 s"),
        (1.99, "2 s"),
        (2, "2 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (172_799, "48 h"),
        (172_800, "2 days"),
    ],
)
def test_a_duration_has_the_largest_unit_of_which_there_are_two(seconds, text):
    assert console.write_duration(seconds) == text


def test_up_to_four_names_are_listed():
    assert console.summarise_names([]) == ""
    assert console.summarise_names(list("abcd")) == "4: a, b, c, d"
    assert console.summarise_names(list("abcde")) == "5: a … e"


def test_silence_ends_with_its_block(monkeypatch, capsys):
    monkeypatch.delenv("RANK", raising=False)
    with console.mute_messages():
        with console.mute_messages():
            console.warn("a")
        console.say("b")
    console.say("c")
    assert capsys.readouterr().err == "c\n"
    with pytest.raises(ValueError), console.mute_messages():
        raise ValueError
    assert console.writes_messages()


def test_an_error_is_json_on_stdout_where_that_is_asked(
    capsys,
):
    console.show_error(BrainhiveError("a", ""))
    captured = capsys.readouterr()
    assert captured.err == "error: a\n"
    assert captured.out == ""
    console.show_error(BrainhiveError("a\x7f", "b"), as_json=True)
    code = BrainhiveError.exit_code
    document = json.loads(capsys.readouterr().out)
    assert document == {"error": "a\x7f", "hint": "b", "exit_code": code}
    console.show_json({"a": [1]}, indent=None)
    assert capsys.readouterr().out == '{"a": [1]}\n'


@pytest.mark.parametrize(
    ("item_s", "items", "is_long"),
    [(60.0, 11, True), (60.0, 10, False), (None, 1000, False)],
)
def test_work_of_more_than_ten_minutes_is_announced(
    capsys,
    item_s,
    items,
    is_long,
):
    console.announce("192 cells", item_s, items)
    err = capsys.readouterr().err
    assert (err != "") is is_long
    if is_long:
        assert "11 min" in err
        assert "192 cells" in err
        assert "60 s" in err


def test_counted_work_ends_with_a_line_where_it_lasted(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    monkeypatch.setattr(console, "raise_if_interrupted", lambda: None)
    for seconds, total, items in ((2, 4, 4), (3, None, 4), (3, 4, 0), (3, 4, 4)):
        with console.progress(f"work {seconds}", total) as bar:
            bar.advance(items)
            clock.now_s += seconds
    # work inside counted work says nothing
    with console.progress("around"), console.progress("outer", 1) as outer:
        with console.progress("inner", 2) as inner:
            inner.advance(2)
            clock.now_s += 60
        outer.advance()
    assert capsys.readouterr().err.splitlines() == [
        "work 3: 4 of 4 in 0:03",
        "outer: 1 of 1 in 1:00",
    ]


def test_a_bar_counts_items_and_shows_the_latest_note():
    bar = console.Bar("work", None)
    bar.advance(5)
    bar.advance(0, "a note")
    assert bar.label == "work (a note)"
    assert bar.items == 5
    bar.advance()
    assert bar.label == "work"
    assert bar.items == 6
    bar.expect(7)
    bar.expect(-2)
    assert bar.total == 5


@pytest.mark.parametrize(
    ("answer", "is_yes"),
    [("y\n", True), (" YES \n", True), ("\n", False), ("n", False)],
)
def test_only_a_yes_confirms(monkeypatch, answer, is_yes):
    terminal = Terminal(answer)
    monkeypatch.setattr("sys.stdin", terminal)
    assert console.confirm("sure?") is is_yes
    # nobody is there to ask
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert console.confirm("sure?") is False


def test_libraries_are_as_loud_as_before(monkeypatch):
    calls = list[object]()

    def library(has_bar):
        names = ("set_verbosity_error", "disable_progress_bar", "enable_progress_bar")
        return SimpleNamespace(
            get_verbosity=lambda: 7,
            is_progress_bar_enabled=lambda: has_bar,
            set_verbosity=calls.append,
            **{name: lambda name=name: calls.append(name) for name in names},
        )

    for name, has_bar in (("diffusers", True), ("transformers", False)):
        monkeypatch.setitem(sys.modules, f"{name}.utils.logging", library(has_bar))
    quiet_calls = ["set_verbosity_error", "disable_progress_bar"]
    with console.mute_libraries():
        assert calls == quiet_calls * 2
    assert calls[4:] == [7, "enable_progress_bar", 7]


def test_a_page_without_a_browser_is_named(monkeypatch, capsys):
    for name in console.DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    opened_urls = list[str]()
    monkeypatch.setattr(
        "webbrowser.open",
        lambda address: opened_urls.append(address) or len(opened_urls) > 1,
    )
    console.open_browser("http://a")
    assert opened_urls == []
    assert "http://a" in capsys.readouterr().err
    monkeypatch.setenv("DISPLAY", ":0")
    console.open_browser("http://b")
    assert opened_urls == ["http://b"]
    assert "http://b" in capsys.readouterr().err
    console.open_browser("http://c")
    assert opened_urls[1:] == ["http://c"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("columns", "is_list"), [(3, False), (4, True)])
def test_narrow_tables_are_folded_and_wide_tables_become_lists(
    monkeypatch,
    capsys,
    columns,
    is_list,
):
    monkeypatch.setenv("COLUMNS", "30")
    names = [f"name {number}" for number in range(columns)]
    console.show_table(Table("T", names, [["word " * 5] * columns]))
    assert ("    name 1 word" in capsys.readouterr().out) is is_list


def test_folded_cells_and_notes_keep_numbers_with_their_units(monkeypatch, capsys):
    text = "found in 12.5 % (95 % CI 9 to 16 %; p = 0.0004) at 250 Hz"
    for columns in range(16, 60):
        monkeypatch.setenv("COLUMNS", str(columns))
        console.show_table(Table("T", ["result"], [[text]], note=text))
        output = capsys.readouterr().out
        for partial_text in ("12.5 %", "95 % CI", "16 %", "p = 0.0004", "250 Hz"):
            assert output.count(partial_text) == 2
        assert "\u00a0" not in output
