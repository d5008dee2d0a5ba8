"""Cards: compact HTML of an object, which a notebook shows as the output of a cell."""

from collections.abc import Sequence
from html import escape
from typing import Any

from brainhive_cli.core.base import CELL_ESCAPES, format_number

MAX_CARD_ROWS = 6
"""Largest number of rows of a table in a card."""


def draw_card(
    title: str,
    sentences: Sequence[str] = (),
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[Any]] = (),
    notes: Sequence[str] = (),
    link: str = "",
) -> str:
    """Write a card as HTML, with all texts escaped.

    Args:
        title: Kind and name of the object, in small letters.
        sentences: Paragraphs below the title.
        columns: Headings [C] of the table.
        rows: Values [R, C] of the table. Only `MAX_CARD_ROWS` rows are shown.
        notes: Paragraphs below the table, in small letters.
        link: Path or address of a page, or "".
    """
    small_style = "margin: .3em 0; font-size: .85em; opacity: .8"
    lines = [f'<div style="{small_style}">{_escape(title)}</div>']
    for sentence in sentences:
        lines.append(f'<p style="margin: .3em 0">{_escape(sentence)}</p>')

    if rows:
        lines.append(
            _write_row(
                "th", columns, '<table style="border: 0; font-size: .9em"><thead>'
            )
        )
        lines.append("</thead><tbody>")
        for row in rows[:MAX_CARD_ROWS]:
            lines.append(_write_row("td", row))
        lines.append("</tbody></table>")
    n_hidden = len(rows) - MAX_CARD_ROWS
    shown_notes = [f"… {n_hidden:,} more rows"] if n_hidden > 0 else []
    for note in shown_notes + list(notes):
        lines.append(f'<p style="{small_style}">{_escape(note)}</p>')
    if link:
        target = escape(link, quote=True)
        lines.append(f'<p style="margin: .3em 0"><a href="{target}">page</a></p>')

    # Style of a card. It sets no colour of text or background, so that the colours of a
    # light or dark notebook stay.
    card_style = (
        "border: 1px solid rgba(128, 128, 128, .4); border-radius: 6px;"
        " padding: .6em .9em; max-width: 46em; line-height: 1.45; "
        "overflow-x: auto"
    )
    return f'<div style="{card_style}">' + "\n".join(lines) + "</div>"


def _write_row(tag: str, values: Sequence[Any], prefix: str = "") -> str:
    """Write a row of a table.

    Args:
        tag: `th` for headings, `td` for values.
        values: Values [C] of the row.
        prefix: HTML before the row.
    """
    cells = []
    cell_style = "padding: .15em .9em .15em 0; text-align: left; vertical-align: top"
    # Largest number of characters of a cell that is not broken.
    max_short_text = 20
    for value in values:
        text = format_number(value)
        # Style of long texts, such as names of pictures, which may break at any letter.
        wrapping = (
            "white-space: nowrap"
            if len(text) <= max_short_text
            else "overflow-wrap: anywhere; min-width: 9em"
        )
        style = f"{cell_style}; {wrapping}"
        cells.append(f'<{tag} style="{style}">{_escape(text)}</{tag}>')
    return f"{prefix}<tr>{''.join(cells)}</tr>"


def _escape(text: str) -> str:
    """Escape a text for HTML, and make invisible characters visible."""
    return escape(text.translate(CELL_ESCAPES))
