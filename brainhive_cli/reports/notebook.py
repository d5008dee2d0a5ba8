"""Pages and tables as notebooks show them."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from brainhive_cli.core.tables import Table
from brainhive_cli.reports.page import Page, to_cell

FRAME = Markup('<iframe srcdoc="{}" width="100%" height="{}" frameborder="0" title="{}"></iframe>')
"""The frame of a page: its style and its script stay in it, and the notebook's stay out."""
HEIGHT_PX = 700
"""Height of the frame, in which the page scrolls."""


def frame_page(page: Page) -> str:
    """Write a page as a frame whose document is the page itself, as nilearn shows its documents."""
    return str(FRAME.format(page.html(), HEIGHT_PX, page.title))


def write_table(table: Table, notes: Sequence[str] = ()) -> str:
    """Write a table as HTML: the title as its caption, the best in bold, signs of p after values."""
    from jinja2 import Environment, FileSystemLoader

    # the notes say what the values are, and what a reader must know of them
    environment = Environment(autoescape=True, loader=FileSystemLoader(Path(__file__).parent))
    environment.filters["cell"] = to_cell
    template = environment.get_template("notebook_table.html")
    return template.render(table=table, notes=[table.note, *notes])
