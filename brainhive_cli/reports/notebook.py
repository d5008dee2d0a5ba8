"""Pages and tables as notebooks show them."""

from collections.abc import Sequence

from markupsafe import Markup, escape

from brainhive_cli.core.tables import Cell, Table, number
from brainhive_cli.reports.page import Page

FRAME = Markup('<iframe srcdoc="{}" width="100%" height="{}" frameborder="0" title="{}"></iframe>')
"""The frame of a page: its style and its script stay in it, and the notebook's stay out."""
HEIGHT_PX = 700
"""Height of the frame, in which the page scrolls."""


def frame_page(page: Page, height_px: int = HEIGHT_PX) -> str:
    """Write a page as a frame whose document is the page itself, as nilearn shows its documents."""
    return str(FRAME.format(page.html(), height_px, page.title))


def write_table(table: Table, notes: Sequence[str] = ()) -> str:
    """Write a table as HTML: the title as its caption, the best in bold, signs of p after values."""
    # the head and the rows
    head = Markup("").join(Markup("<th>{}</th>").format(column) for column in table.columns)
    rows = []
    for row in table.rows:
        cells = []
        for cell in row:
            shown = cell if isinstance(cell, Cell) else Cell(number(cell))
            text = Markup("<b>{}</b>").format(shown.text) if shown.is_best else escape(shown.text)
            small = Markup("<br><small>{}</small>").format(shown.small) if shown.small else Markup("")
            cells.append(Markup("<td>{}{}{}</td>").format(text, shown.mark, small))
        rows.append(Markup("<tr>{}</tr>").format(Markup("").join(cells)))

    # the caption says what the values are and what a reader must know of them
    lines = Markup("").join(Markup("<p>{}</p>").format(note) for note in [table.note, *notes] if note)
    body = Markup("\n").join(rows)
    caption = Markup('<caption style="caption-side: bottom; text-align: left">{}</caption>').format(
        table.title
    )
    whole = Markup("<table>{}<thead><tr>{}</tr></thead><tbody>{}</tbody></table>{}")
    return str(whole.format(caption, head, body, lines))
