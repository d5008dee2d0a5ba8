"""Tables in files for spreadsheets, LaTeX, Markdown and pages: no text in them does
anything.
"""

import csv
import io

import pytest

from brainhive_cli.core.base.tables import Table, TableCell, write_csv
from brainhive_cli.reports.pages.page import Page, PageSection
from brainhive_cli.reports.tables.paper_tables import write_table

STEERING = ["\x00", "\x1b[31m", "\x7f", "\x85", "\u2028", "\r", "\x0b"]
TURNING = ["\u202e", "\u202a", "\u2066", "\u2069", "\u200e", "\u200f", "\u061c"]
UNSEEN = ["\u200b", "\u200d", "\u2060", "\ufeff", "\xad", "\U000e0041"]


def read_rows(text):
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize("first_text", ["=", "+", "-", "@", "＝", "＠"])
def test_no_text_of_a_spreadsheet_is_a_formula(first_text):
    """Issue 86: labels and ids that begin with = + - @ ran when a table was opened."""
    label = f'{first_text}cmd|" /C calc"!A0'
    rows = read_rows(write_csv([label, "b"], [{label: label, "b": f"a;{first_text}x"}]))
    assert rows == [[f"'{label}", "b"], [f"'{label}", f"a;'{first_text}x"]]


@pytest.mark.parametrize("first_text", ["\t", "\r", "\n", "\r\n\t"])
def test_blanks_before_a_formula_hide_none(first_text):
    rows = read_rows(write_csv(["a"], [{"a": f"{first_text}=1+1"}]))
    assert len(rows) == 2
    assert rows[1][0][0] == "\\"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-0.5, "-0.5"),
        (-3, "-3"),
        ("-0.5", "-0.5"),
        ("+1.5e-3", "+1.5e-3"),
        ("-0.100 to 0.200", "-0.100 to 0.200"),
        (None, ""),
        (True, "True"),
        ("sub-01, a=b", "sub-01, a=b"),
    ],
)
def test_numbers_and_other_texts_stay_as_they_are(value, text):
    assert read_rows(write_csv(["a", "b"], [{"a": value, "b": "x"}]))[1] == [text, "x"]


@pytest.mark.parametrize("code", STEERING + TURNING + UNSEEN)
def test_characters_that_steer_turn_or_hide_are_visible(code):
    """Issue 86: of tex, md, csv and pages only the terminal was clean."""
    name = f"a{code}b"
    table = Table(
        name, ["", name], [[name, TableCell(name, name, mark=name)]], note=name
    )
    page = Page(name, [name], [name], [PageSection(name, [(name, [table])], [name])])
    texts = [write_table(table, "md"), write_table(table, "tex"), page.html()]
    texts.append(write_csv([name], [{name: name}]))
    for text in texts:
        assert code[0] not in text
        assert f"{ord(code[0]):x}" in text or code in "\r"


def test_no_name_is_markup_of_markdown():
    name = "[a](b)`c`<img src=d>![e](f)|\n&lt;*g*\\"
    table = Table(
        name, ["", name], [[name, TableCell(name, name, is_best=True)]], note=name
    )
    escaped = r"\[a\](b)\`c\`\<img src=d\>!\[e\](f)\|\\n\&lt;\*g\*" + "\\\\"
    head, _, row, *_, last_line = write_table(table, "md").strip().split("\n")
    assert head == f"| | {escaped} |"
    assert row == f"| {escaped} | **{escaped}** ({escaped}) |"
    assert last_line == f"{escaped}. {escaped}"


def test_no_name_is_a_command_of_latex():
    name = r"[2cm]\input{x}%$^_#&~"
    table = write_table(Table("", ["", "b"], [[name, 1]]), "tex")
    assert (
        r"{[}2cm]\textbackslash{}input\{x\}\%\$\textasciicircum{}\_\#\&"
        r"\textasciitilde{} & 1 \\"
    ) in table
