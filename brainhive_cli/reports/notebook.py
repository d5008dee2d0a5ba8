"""Pages and tables as notebooks show them."""

from collections.abc import Sequence

from brainhive_cli.core.tables import Cell, Table
from brainhive_cli.reports.page import Page
from brainhive_cli.reports.templates import templates

HEIGHT_PX = 700
"""Height of the frame, in which the page scrolls."""


def frame_page(page: Page) -> str:
    """Write a page as a frame whose document is the page itself, as nilearn shows its documents.

    Its style and its script stay in it, and the notebook's stay out.
    """
    frame = templates().get_template("frame.html")
    return str(frame.render(page=page.html(), height_px=HEIGHT_PX, title=page.title))


def write_table(table: Table, notes: Sequence[str] = ()) -> str:
    """Write a table as HTML: the title as its caption, the best in bold, signs of p after values."""
    # plain values become cells, which have marks and bold
    rows = [[Cell.of(cell) for cell in row] for row in table.rows]
    template = templates().get_template("notebook_table.html")
    return str(template.render(table=table, rows=rows, notes=[table.note, *notes]))
