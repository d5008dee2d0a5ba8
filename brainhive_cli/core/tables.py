"""Tables as data, how their numbers are written for people, and how a terminal or a
spreadsheet shows them.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from math import isfinite
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, Literal, Self

INDENT = " " * 4
"""Before the lines of a row that is written as a list."""
BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Characters that turn the direction of what follows, so that a name reads as
another.
"""
UNSEEN = (0xAD, 0x180E, *range(0x200B, 0x200E), *range(0x2060, 0x2065), 0xFEFF)
"""Characters without width, by which two names look the same; Unicode's tags follow in
`ONE_LINE`.
"""
ONE_LINE = {
    code: ascii(chr(code))[1:-1]
    for code in (
        *range(9),
        *range(10, 32),
        *range(127, 160),
        0x2028,
        0x2029,
        *BIDI,
        *UNSEEN,
        *range(0xD800, 0xE000),
        *range(0xE0000, 0xE0080),
    )
}
"""What is written for characters that would end a line, steer a terminal, turn its text
or stay unseen, and for those that no encoding can write: a name, whatever it holds,
makes no line of its own.
"""
ANY_LINES = {code: text for code, text in ONE_LINE.items() if code != 10}
"""The same for texts of several lines."""
IN_CELLS = {**ONE_LINE, 9: r"\t"}
"""The same for cells of tables in files."""
FORMULA = re.compile(r"(^|;)(?=[=+\-@＝＋－＠])")
"""Where a spreadsheet begins a formula, whatever separator it is set to (OWASP, CSV
injection).
"""
NUMBERS = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?( to -?[\d.]+)?", re.ASCII)
"""A number, or the ends of an interval."""
MARKDOWN = re.compile(r"[\\`*\[\]<>|&~]")
"""Characters that begin markup, HTML, a link or another cell."""


@dataclass(frozen=True)
class TableCell:
    """A cell whose text is not its value alone.

    Attributes:
        text: What is read.
        small: What stands below it on a page, and behind it in a terminal, as an
            interval.
        value: What programs read, and what a column is sorted by; None for the text.
        is_best: Whether it is the best of its column.
        mark: What follows it, as a sign of significance.
        is_grey: Of the first cell, whether its row is no result, which is grey and
            stays below.
    """

    text: str
    small: str = ""
    value: str | int | float | None = None
    is_best: bool = False
    mark: str = ""
    is_grey: bool = False

    @classmethod
    def of(cls, value: Any) -> Self:
        """Make a cell of a number or a text; a cell stays as it is."""
        if isinstance(value, cls):
            return value
        # bool is an int to Python, and no number to a reader
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return cls(number(value), value=float(value) if is_number else None)

    def __str__(self) -> str:
        """Give what a terminal shows."""
        return self.text + self.mark


if TYPE_CHECKING:
    Value = Any
else:
    # what pydantic reads of a document
    Value = TableCell | str | bool | int | float | None
"""A text, a number, whether something is so, None for nothing, or a cell of its own."""


@dataclass(frozen=True)
class Table:
    """A titled table, for terminals, pages, papers and programs; it is an artifact of a
    run, too.

    Attributes:
        title: What is shown.
        columns: [C] headings.
        rows: [R][C] cells: plain values, or `TableCell`s.
        section: The heading under which a page shows it.
        note: What its reader must know.
        is_list: Whether headings are left out where a terminal writes rows below one
            another, since the table does not fit.
        is_copied: Whether cells are lines to copy, which a terminal never folds.
            Artifacts keep neither.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    _: KW_ONLY
    section: str = ""
    note: str = ""
    kind: Literal["table"] = "table"
    is_list: bool = False
    is_copied: bool = False

    def __post_init__(self) -> None:
        """Refuse rows of another length than the heading."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"{self.title}: a row of {len(row)} cells, not {len(self.columns)}"
                )
        object.__setattr__(self, "rows", tuple(map(tuple, self.rows)))

    def as_dict(self) -> dict[str, Any]:
        """Return the table as one dict a row, for JSON."""

        # programs read the value of a cell, people its text
        def read(cell: Any) -> Any:
            if not isinstance(cell, TableCell):
                return cell
            return str(cell) if cell.value is None else cell.value

        rows = [
            dict(zip(self.columns, map(read, row), strict=True)) for row in self.rows
        ]
        return {"title": self.title, "rows": rows, "note": self.note}


def write_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Write rows as CSV. No text in it is a formula to a spreadsheet, which shows the
    apostrophe before it or hides it.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(map(_write_cell, columns))
    for row in rows:
        lines.writerow([_write_cell(row.get(column)) for column in columns])
    return text.getvalue()


def _write_cell(value: Any) -> Any:
    if not isinstance(value, str) or NUMBERS.fullmatch(value):
        return value
    return FORMULA.sub(r"\1'", value.translate(IN_CELLS))


def make_visible(value: Any) -> Any:
    """Write control characters of a text, and those that turn or hide, as escapes."""
    return value.translate(ANY_LINES) if isinstance(value, str) else value


def escape_markdown(value: Any) -> str:
    """Write a text as a cell or sentence of Markdown, without any markup."""
    return MARKDOWN.sub(r"\\\g<0>", str(value).translate(IN_CELLS))


def number(value: Any) -> str:
    """Write a number: three decimals of small ones, one of large ones, four digits of
    tiny ones.
    """
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)

    # counts in full, with separators from five digits on
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if not isfinite(value):
        return "–"
    if value and abs(value) < 0.0005:
        return f"{value:.1e}"

    # three decimals of shares, fewer of larger numbers
    digits = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:z,.{digits}f}"


def brief(value: float) -> str:
    """Write the tick of an axis, or a level of chance: no trailing zeros."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def p_text(p: float | None) -> str:
    """Write a p value: a dash where there is no test."""
    return "–" if p is None else f"{p:.2g}"


def mean_sd(values: Iterable[float]) -> str:
    """Write a mean with the standard deviation, where there are two values or more."""
    listed = list(values)
    if not listed:
        return "–"
    deviation = f" ± {stdev(listed):.3f}" if len(listed) > 1 else ""
    return f"{mean(listed):.3f}{deviation}"


def by_subject_and_seed(
    title: str,
    values: Mapping[str, Mapping[str, Sequence[float]]],
    seeds: Sequence[str],
    note: str,
) -> Table:
    """Lay out values by subject and seed, with mean ± sd over both.

    Args:
        title: Of the table.
        values: By subject and seed; by zero-shot transfer, several models of a seed
            meet a subject.
        seeds: Names of the columns.
        note: Below the table.
    """
    # several models of a seed count as their mean
    means = {
        subject: {seed: mean(scores) for seed, scores in row.items()}
        for subject, row in values.items()
    }
    rows = [
        (subject, *(row.get(seed) for seed in seeds), mean_sd(row.values()))
        for subject, row in means.items()
    ]

    # the last row: over subjects, seed by seed
    over = [
        mean_sd(row[seed] for row in means.values() if seed in row) for seed in seeds
    ]
    rows.append(
        ("mean ± sd", *over, mean_sd(mean(row.values()) for row in means.values()))
    )
    return Table(
        title,
        ("subject", *[f"seed {seed}" for seed in seeds], "mean ± sd"),
        rows,
        note=note,
    )


def draw(table: Table) -> Any:
    """Draw a table for a terminal, which folds its cells."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in table.columns:
        drawn.add_column(Text(_shown(heading)), overflow="fold")
    for row in table.rows:
        is_grey = TableCell.of(row[0]).is_grey
        drawn.add_row(
            *(Text(_shown(cell)) for cell in row), style="dim" if is_grey else None
        )
    title = Text(table.title.translate(ONE_LINE), style="bold")
    return Group(title, drawn)  # a title of the table's is folded at its width


def write_as_list(table: Table, width: int) -> str:
    """Write each row as its first cell, and the others below it, with their headings
    unless `is_list`.
    """
    from textwrap import fill

    # cells that say nothing are left out
    lines = [table.title.translate(ONE_LINE)]
    for first, *rest in table.rows:
        shown = dict(zip(table.columns[1:], map(_shown, rest), strict=True))
        cells = [
            text if table.is_list else f"{_shown(heading)} {text}"
            for heading, text in shown.items()
            if text not in ("", "–")
        ]
        lines += [
            _shown(first),
            fill(
                " · ".join(cells),
                width,
                initial_indent=INDENT,
                subsequent_indent=INDENT,
                break_on_hyphens=False,
            ),
        ]
    return "\n".join(
        [
            *lines,
            *([fill(table.note.translate(ONE_LINE), width)] if table.note else []),
            "",
            "",
        ]
    )


def table_width(table: Table) -> int:
    """Count the letters of a line of the table in a terminal."""
    widths = [
        max(map(len, map(_shown, column)))
        for column in zip(table.columns, *table.rows, strict=True)
    ]
    return sum(widths) + 3 * (len(widths) - 1)  # gaps of three


def _shown(cell: Any) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, TableCell) and cell.small:
        return f"{cell} ({cell.small})".translate(ONE_LINE)
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell).translate(ONE_LINE)
