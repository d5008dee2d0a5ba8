"""Tables of results, and their output as text, CSV and JSON."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import chain
from math import isfinite
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, Literal, Self

UNSAFE_CODES = (
    range(9),
    range(10, 32),
    range(127, 160),
    [0x2028, 0x2029],
    # characters that change the direction of text
    [0x061C, 0x200E, 0x200F],
    range(0x202A, 0x202F),
    range(0x2066, 0x206A),
    # characters without width
    [0xAD, 0x180E, 0xFEFF],
    range(0x200B, 0x200E),
    range(0x2060, 0x2065),
    range(0xE0000, 0xE0080),
    # surrogates, which no encoding can write
    range(0xD800, 0xE000),
)
"""Code points of characters that end a line, control a terminal, reverse text, are
invisible or cannot be encoded.
"""
ONE_LINE_ESCAPES = {
    code: ascii(chr(code))[1:-1] for code in chain.from_iterable(UNSAFE_CODES)
}
"""Escapes of unsafe characters, such as `\\n`, for `str.translate`."""
MULTI_LINE_ESCAPES = dict(ONE_LINE_ESCAPES)
"""The same escapes without the line break, for texts of several lines."""
del MULTI_LINE_ESCAPES[ord("\n")]
CELL_ESCAPES = {**ONE_LINE_ESCAPES, ord("\t"): r"\t"}
"""The same escapes and `\\t`, because tabs may separate cells in files."""
FORMULA = re.compile(r"(^|;)(?=[=+\-@＝＋－＠])")
"""Positions at which a spreadsheet may see the start of a formula: at the
beginning of a text, and after a semicolon, which separates cells in some countries
(OWASP, CSV injection).
"""
KEPT_FORMULA = re.compile(FORMULA.pattern.replace("(?=", "'(?="))
"""The same positions, with the apostrophe that makes the text no formula."""

NO_BREAK_SPACE = "\u00a0"
PLACEHOLDER = "\ue000"
"""Character of no meaning, as wide as a space, at which rich breaks no line."""


@dataclass(frozen=True)
class TableCell:
    """Cell of a table that has more than a plain value.

    Attributes:
        text: Text of the cell.
        small: Small additional text, such as an interval.
        value: Value in JSON and for sorting the column. If None, the text is used.
        is_best: True for the best value of a column.
        mark: Sign behind the text, such as a sign of significance.
        is_grey: True in the first cell of a row that is not a result, such as a
            control. The row is grey, and stays at the bottom when the table is sorted.
    """

    text: str
    small: str = ""
    value: str | int | float | None = None
    is_best: bool = False
    mark: str = ""
    is_grey: bool = False

    @classmethod
    def from_value(cls, value: Any) -> Self:
        """Make a cell from a number, a text or None. A cell is returned unchanged."""
        if isinstance(value, cls):
            return value
        # in Python, a bool is also an int
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return cls(format_number(value), value=float(value) if is_number else None)

    def __str__(self) -> str:
        """Return the text followed by the mark."""
        return self.text + self.mark


if TYPE_CHECKING:
    Value = Any
else:
    # pydantic reads these types when it checks a table that was stored
    Value = TableCell | str | bool | int | float | None
"""Content of a cell in a table, or None for an empty cell."""


@dataclass(frozen=True)
class Table:
    """Table with a title, for a terminal, a file or the page of a run.

    Attributes:
        title: Text above the table.
        columns: Headings [C] of the columns.
        rows: Cells [R, C], which are plain values or instances of `TableCell`.
        section: Heading of the section of the page.
        note: Text below the table.
        kind: Type of the artifact, by which a stored table is recognised.
        is_list: True to leave out the headings in a list of rows.
        is_copied: True if a terminal must not fold the cells, because users copy them.
        has_results: False if the table describes a set-up, which needs no caveats.
        folded: Heading of the only column whose cells a terminal folds. By default it
            folds all columns.
        keeps_columns: True if readers compare rows. A narrow terminal folds the cells,
            and a narrow page scrolls sideways, instead of writing each row as a list.
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
    has_results: bool = True
    folded: str = ""
    keeps_columns: bool = False

    def __post_init__(self) -> None:
        """Raise an error if a row has more or fewer cells than there are columns."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"{self.title}: a row of {len(row)} cells, not {len(self.columns)}"
                )
        object.__setattr__(self, "rows", tuple(map(tuple, self.rows)))

    def __repr__(self) -> str:
        """Return the title and the size, without the cells."""
        return f"<Table {self.title!r}: {len(self.rows)} × {len(self.columns)}>"

    def as_dict(self) -> dict[str, Any]:
        """Return the title, the note and the rows for JSON, each row by heading.

        The small text of a grey name, the reason why its row is no result, is
        `excluded`.
        """
        rows = []
        for row in self.rows:
            values = dict(zip(self.columns, map(_plain_value, row), strict=True))
            name = TableCell.from_value(row[0])
            if name.is_grey and name.small:
                values["excluded"] = name.small
            rows.append(values)
        return {"title": self.title, "rows": rows, "note": self.note}


def _plain_value(cell: Any) -> Any:
    """Return the value of a cell in JSON."""
    if not isinstance(cell, TableCell):
        return cell
    return str(cell) if cell.value is None else cell.value


def write_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Write a table as the text of a CSV file.

    An apostrophe keeps spreadsheets from running a text such as `=1+1` as a formula.

    Args:
        columns: Headings of the columns, in order.
        rows: Values of each row, keyed by heading. A missing value gives an empty cell.

    Returns:
        Text of the file, which begins with the headings.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(write_cell, columns))
    for row in rows:
        writer.writerow([write_cell(row.get(column)) for column in columns])
    return text.getvalue()


def write_cell(value: Any) -> Any:
    """Make a text safe for a cell of a CSV file. Other values stay unchanged."""
    # Text of a number, or of the two ends of an interval.
    numbers = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?( to -?[\d.]+)?", re.ASCII)
    if not isinstance(value, str) or numbers.fullmatch(value):
        return value
    return FORMULA.sub(r"\1'", value.translate(CELL_ESCAPES))


def read_cell(text: str) -> str:
    """Remove the apostrophe that `write_cell` sets before a text such as `=1+1`."""
    return KEPT_FORMULA.sub(r"\1", text)


def make_visible(value: Any) -> Any:
    """Replace unsafe characters of a text by escapes. Return other values unchanged."""
    return value.translate(MULTI_LINE_ESCAPES) if isinstance(value, str) else value


def bind_numbers(text: str, space: str = NO_BREAK_SPACE) -> str:
    """Replace the spaces inside numbers with units by a space that breaks no line."""
    # Spaces between a number and its unit, in `95 % CI`, and in `p = 0.03`.
    number_spaces = (
        r"(?<=\d) (?=%|(?:[kM]?Hz|m?s|min|h|px|mm|[mµu]?V|[KMG]i?B|points)(?!\w))"
        r"|(?<=%) (?=CI\b)"
        r"|(?<=\b[np]) (?=(?:[=<>≤≥]|&[lg]t;) [\d.])"
        r"|(?<=\b[np] [=<>≤≥]) (?=[\d.])"
        r"|(?<=\b[np] &[lg]t;) (?=[\d.])"
    )
    return re.sub(number_spaces, space, text)


def fill_lines(text: str, width: int, **options: Any) -> str:
    """Break a text into lines, but not between a number and its unit.

    Args:
        text: The text, in which plain spaces stand between numbers and units.
        width: Largest number of characters in a line.
        **options: Options of `textwrap.fill`.
    """
    from textwrap import fill

    return fill(bind_numbers(text), width, **options).replace(NO_BREAK_SPACE, " ")


def escape_markdown(value: Any) -> str:
    """Write a value as text for a Markdown table, with all markup escaped."""
    # Characters that Markdown reads as markup, HTML, a link or the end of a cell.
    return re.sub(r"[\\`*\[\]<>|&~]", r"\\\g<0>", str(value).translate(CELL_ESCAPES))


def format_number(value: Any) -> str:
    """Write a number for people, with fewer decimals for larger numbers.

    - float, by its absolute value: 4.9e-04 below 0.0005, three decimals below 10, one
      decimal below 1,000, otherwise no decimals. 0 has three decimals.
    - integer: all digits, with commas from 10,000
    - None, infinity and NaN: a dash
    - other values: as `str` writes them
    """
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)

    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if not isfinite(value):
        return "–"
    if value and abs(value) < 0.0005:
        return f"{value:.1e}"

    # the option `z` of the format writes -0.0 as 0.0
    if abs(value) < 10:
        return f"{value:z,.3f}"
    return f"{value:z,.1f}" if abs(value) < 1000 else f"{value:z,.0f}"


def format_tick(value: float) -> str:
    """Write a number without trailing zeros, for the ticks of an axis."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def format_p(p: float | None) -> str:
    """Write a p value with two digits, or a dash for None (no test was made)."""
    return "–" if p is None else f"{p:.2g}"


def format_mean_sd(values: Iterable[float]) -> str:
    """Write the mean and standard deviation of values, such as `0.412 ± 0.031`.

    A single value has no standard deviation. Without values the result is a dash.
    """
    values = list(values)
    if not values:
        return "–"
    text = f"{mean(values):.3f}"
    return f"{text} ± {stdev(values):.3f}" if len(values) > 1 else text


def tabulate_subjects(
    title: str,
    columns: Sequence[str],
    scores: Mapping[str, Mapping[str, float]],
    note: str = "",
    has_spread: bool = False,
) -> Table:
    """Make a table of a metric, with a row per subject and a column per seed or run.

    If there are several subjects, the last row has the mean and standard deviation.

    Args:
        title: Title of the table.
        columns: Headings of the seeds or runs.
        scores: Values of the metric, by subject and heading.
        note: Text below the table.
        has_spread: True for a last column with the mean and standard deviation.
    """
    rows: list[list[Value]] = []
    for subject, values in scores.items():
        cells = [values.get(column) for column in columns]
        rows.append([subject, *cells, format_mean_sd(values.values())])
    if len(rows) > 1:
        last_row: list[Value] = ["mean ± sd"]
        for column in columns:
            values_of_column = [
                values[column] for values in scores.values() if column in values
            ]
            last_row.append(format_mean_sd(values_of_column))
        means = [mean(values.values()) for values in scores.values()]
        rows.append([*last_row, format_mean_sd(means)])

    headings = ["subject", *columns, "mean ± sd"]
    if not has_spread:
        headings.pop()
        for row in rows:
            row.pop()
    return Table(title, headings, rows, note=note)


def render(table: Table) -> Any:
    """Turn a table into a `rich.console.Group` of its title and its cells.

    Long cells are folded if the terminal is too narrow. A `PLACEHOLDER` stands for each
    space at which they must not be folded.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    # rich would also break lines at no-break spaces
    rich_table = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    # Longest cell of a column that is never folded, in a table that keeps its columns.
    max_whole_letters = 18
    for index, heading in enumerate(table.columns):
        is_folded = table.folded in ("", heading)
        if table.keeps_columns:
            # keep short words whole if many columns share a narrow terminal
            letters = [len(format_cell(row[index])) for row in table.rows]
            is_folded = max(letters, default=0) > max_whole_letters
        text = bind_numbers(format_cell(heading), PLACEHOLDER)
        rich_table.add_column(Text(text), overflow="fold", no_wrap=not is_folded)
    for row in table.rows:
        texts = []
        for cell in row:
            texts.append(Text(bind_numbers(format_cell(cell), PLACEHOLDER)))
        is_grey = TableCell.from_value(row[0]).is_grey
        rich_table.add_row(*texts, style="dim" if is_grey else None)

    # rich would fold a title inside the table at the width of the table
    title = Text(table.title.translate(ONE_LINE_ESCAPES), style="bold")
    return Group(title, rich_table)


def write_as_list(table: Table, width: int) -> str:
    """Write a table as a list, for a terminal that is too narrow for the table.

    The first cell of each row is a line. The other cells follow in an indented
    paragraph, after their headings unless `is_list` is True. Cells without a value
    are left out.

    Args:
        table: Table with a title and perhaps a note.
        width: Largest number of characters in a line of a paragraph or note.

    Returns:
        Text that ends with an empty line.
    """
    headings = [format_cell(heading) for heading in table.columns[1:]]
    lines = [table.title.translate(ONE_LINE_ESCAPES)]
    # Indent of the second line and further lines of a row that is written as a list.
    indent = " " * 4
    for row in table.rows:
        cells = []
        for heading, cell in zip(headings, row[1:], strict=True):
            text = format_cell(cell)
            if text not in ("", "–"):
                cells.append(text if table.is_list else f"{heading} {text}")
        lines.append(format_cell(row[0]))

        cell_line = fill_lines(
            " · ".join(cells),
            width,
            initial_indent=indent,
            subsequent_indent=indent,
            break_on_hyphens=False,
        )
        lines.append(cell_line)
    if table.note:
        lines.append(fill_lines(table.note.translate(ONE_LINE_ESCAPES), width))

    lines += ["", ""]
    return "\n".join(lines)


def measure_table_width(table: Table) -> int:
    """Return the number of characters in the lines of a table in a terminal.

    A column that may be folded alone counts with at most 40.
    """
    widths = []
    # Smallest width of a column that is folded alone.
    min_folded_letters = 40
    for column in zip(table.columns, *table.rows, strict=True):
        width = max(len(format_cell(cell)) for cell in column)
        if table.folded and table.folded == column[0]:
            width = min(width, min_folded_letters)
        widths.append(width)
    return sum(widths) + 3 * (len(widths) - 1)  # gaps of three letters


def format_cell(cell: Any) -> str:
    """Write a cell as a single line of text."""
    if cell is None:
        return "–"
    if isinstance(cell, TableCell) and cell.small:
        return f"{cell} ({cell.small})".translate(ONE_LINE_ESCAPES)
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return str(cell).translate(ONE_LINE_ESCAPES)
