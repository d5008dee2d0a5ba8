"""One self-contained HTML page of tables, drawings, pictures and clips, also in a
notebook.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from brainhive_cli.core.artifacts import (
    Artifact,
    Curve,
    Heatmap,
    Sheet,
    SheetTile,
    Topomap,
)
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.files import read_regular
from brainhive_cli.core.tables import Table, TableCell
from brainhive_cli.reports.drawings import is_informative, render_svg
from brainhive_cli.reports.tables import templates

HERE = Path(__file__).parent
FINDING = "Finding"
"""Heading of the figures that stand next to the first sentence of a page on one run."""
DETAILS = "Details"
"""Heading of the groups of tables and figures that are shown on demand."""
BY_HAND = "Each step by hand"
"""Title of the text that is unfolded from the beginning."""
NAMED = 3
"""Titles of folded tables and figures that are named where they unfold."""
ROWS_SHOWN = 3
"""Rows of a sheet that are shown; the others unfold."""
SHOWN = {
    False: {"table": 2, "sheet": 1, "figure": 3},
    True: {"table": 1, "sheet": 1, "figure": 1},
}
"""Tables, sheets and other figures that are shown below a heading, by whether the page
has many sections; the others unfold.
"""
MANY, OPEN_SECTIONS = 5, 3
"""Sections with figures from which a page has many, and those of them that are not
folded.
"""
TILE_PX, WHOLE_PX = 200, 1200
"""Longest side of a tile of a sheet, and of a picture of its own."""
KEPT_BYTES = 6_000
"""A smaller file goes into the page as it is, unless it is a PNG."""
LARGEST_BYTES = 1 << 28
"""Size limit of a file that is shown; a page holds all of them."""
NUMERIC = re.compile(r"[-+±]?[\d.]|–?$")
"""Beginning of the text of a cell that is aligned to the right: a number, an interval,
or nothing.
"""
FRAME_PX = 700
"""Height of the frame of a notebook, in which the page scrolls."""
CLIPS = {".mp4": "video/mp4", ".webm": "video/webm"}
PLAIN = {
    ".svg": "image/svg+xml",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".png": "image/png",
}
"""Media types of clips, and of pictures that are no JPEG, by suffix."""
Figure = Sequence[tuple[str, Artifact, Path]]
"""An artifact, or those of several runs that are shown together: label of the run,
artifact, folder.
"""
PageGroup = tuple[str, Sequence[Table | Figure]]
"""A heading, with the tables and figures below it."""
PictureRow = tuple[str, Sequence[SheetTile], Path]
"""A heading, the pictures next to each other, and the folder of their files."""


@dataclass(frozen=True)
class PageSection:
    """Heading, with sentences, groups and texts below it.

    Attributes:
        title: The heading.
        groups: Headings, with their tables and figures.
        lead: Sentences below the heading.
        texts: Titles and texts to unfold and to copy, as a recipe.
        footnotes: Caveats of the numbers below the heading, behind their sign.
    """

    title: str
    groups: Sequence[PageGroup] = ()
    lead: Sequence[str] = ()
    texts: Sequence[tuple[str, str]] = ()
    footnotes: str = ""


@dataclass(frozen=True)
class Page:
    """Page of a report: title, lead, warnings and sections.

    Attributes:
        title: Its heading.
        lead: The finding, or the differences of runs, in sentences.
        warnings: Sentences that a reader needs before any number.
        sections: Its body, in order; those without groups are folded.
        pictures: Rows of pictures next to the verdict: stimuli, and what was drawn or
            retrieved for them.
        headlines: Figures next to the verdict: those of the finding, or the most
            important metric with its chance and intervals.
        missing: Metrics that were not measured, with reasons; they unfold.
        chosen: How the pictures next to the verdict were chosen.
    """

    title: str
    lead: Sequence[str] = ()
    warnings: Sequence[str] = ()
    sections: Sequence[PageSection] = ()
    pictures: Sequence[PictureRow] = ()
    headlines: Sequence[Curve | Heatmap | Topomap] = ()
    missing: Sequence[str] = ()
    chosen: str = ""

    def write(self, path: Path) -> None:
        """Write the page as one file that needs no other."""
        path.write_text(self.html(), encoding="utf-8")

    def html(self) -> str:
        """Write the page as one document that needs no file."""
        # functions and limits of the templates; the ids of embedded files are those of
        # this page
        names: dict[str, Any] = {
            "embed": partial(embed, {}),
            "render_svg": render_svg,
            "cells_of": cells_of,
        }
        names |= {
            "DETAILS": DETAILS,
            "BY_HAND": BY_HAND,
            "NAMED": NAMED,
            "SHOWN": SHOWN,
        }
        names |= {
            "OPEN_SECTIONS": OPEN_SECTIONS,
            "ROWS_SHOWN": ROWS_SHOWN,
            "WHOLE_PX": WHOLE_PX,
        }
        names["is_of_many"] = (
            sum(bool(section.groups) for section in self.sections) >= MANY
        )

        # style sheet and script go into the page
        files = {
            kind: Markup((HERE / f"page.{kind}").read_text(encoding="utf-8"))
            for kind in ("css", "js")
        }
        return str(
            templates().get_template("page.html").render(**vars(self), **files, **names)
        )


def groups_of(
    artifacts_of_runs: Sequence[tuple[str, Sequence[Artifact], Path]],
) -> list[PageGroup]:
    """Put artifacts under their headings; those of several runs with one title next to
    each other.

    Args:
        artifacts_of_runs: Label, artifacts and folder of each run.
    """
    # collect artifacts of equal title
    title_figures: dict[tuple[str, str, str], list[tuple[str, Artifact, Path]]] = {}
    for label, artifacts, folder in artifacts_of_runs:
        for artifact in filter(is_informative, artifacts):
            title = artifact.section, artifact.kind, artifact.title
            title_figures.setdefault(title, []).append((label, artifact, folder))

    # sort them into sections
    sections: dict[str, list[Figure]] = {}
    for (section, _, _), figure in title_figures.items():
        sections.setdefault(section, []).append(figure)

    # sheets come first, which are as wide as the page: other figures share rows
    for figures in sections.values():
        figures.sort(key=lambda figure: not isinstance(figure[0][1], Sheet))
    return list(sections.items())


def cells_of(table: Table) -> tuple[list[list[TableCell]], set[int]]:
    """Give the cells of a table, and its columns of numbers alone, which are aligned to
    the right.
    """
    rows = [list(map(TableCell.of, values)) for values in table.rows]
    columns = enumerate(zip(*rows, strict=True))
    return rows, {
        index
        for index, cells in columns
        if all(NUMERIC.match(cell.text) for cell in cells)
    }


def embed(
    ids: dict[tuple[str, int], str],
    path: Path,
    poster: Path | None = None,
    side_px: int = TILE_PX,
) -> dict[str, Any]:
    """Read a picture or clip for the template: id in the page, data URL, poster,
    whether it is a clip.

    A file is embedded once; later elements, which have no URL, refer to the first one.
    `ids` has those of the page by digest and longest side, to which new ones are added.
    """
    # equal files have one id
    content = _read_file(path)
    key = (hashlib.sha256(content).hexdigest(), side_px)
    is_new = key not in ids
    file_id = ids.setdefault(key, f"p{len(ids)}")

    # its content, where no element of the page has it
    is_clip = path.suffix in CLIPS
    url = ""
    if is_new and is_clip:
        url = f"data:{CLIPS[path.suffix]};base64,{base64.b64encode(content).decode()}"
    elif is_new:
        url = _shrink_picture(path, side_px)
    still = _shrink_picture(poster, TILE_PX) if poster else ""
    return {"id": file_id, "url": url, "poster": still, "is_clip": is_clip}


def _shrink_picture(path: Path, side_px: int) -> str:
    """Write a picture as a data URL, as WebP if that is smaller; drawings and
    animations stay as they are.
    """
    # PNG files and other large pictures are scaled down, but no drawings and animations
    content = _read_file(path)
    kind = PLAIN.get(path.suffix, "image/jpeg")
    if path.suffix == ".png" or (
        len(content) > KEPT_BYTES and path.suffix not in (".svg", ".gif")
    ):
        is_still, small = open_picture(path)

        # WebP of quality 80 replaces a still file that is larger
        small.thumbnail((side_px, side_px))
        webp = BytesIO()
        small.save(webp, "WEBP", quality=80, method=4)
        if is_still and webp.tell() < len(content):
            content = webp.getvalue()
            kind = "image/webp"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def open_picture(path: Path) -> tuple[bool, Image.Image]:
    """Open a picture of a run in RGB; also say whether it is a still one."""
    try:
        with Image.open(BytesIO(read_regular(path, LARGEST_BYTES))) as opened:
            # of an animation the first frame is converted
            return getattr(opened, "n_frames", 1) == 1, opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MissingData(
            f"{path} is no whole picture", "run the command that made it again"
        ) from error


def _read_file(path: Path) -> bytes:
    # an artifact's file may have been deleted since the run
    if not path.is_file():
        raise MissingData(
            f"{path} is missing, and an artifact shows it",
            "run the command that made it again",
        )
    return read_regular(path, LARGEST_BYTES)


def frame_page(page: Page) -> str:
    """Write a page as a frame of a notebook whose document is the page itself, as those
    of nilearn are.

    Its style and its script stay in it, and the notebook's stay out.
    """
    frame = templates().get_template("frame.html")
    return str(frame.render(page=page.html(), height_px=FRAME_PX, title=page.title))


def frame_table(table: Table, notes: list[str]) -> str:
    """Write a table for a notebook: the title as its caption, the best in bold, signs
    of p after values.
    """
    return str(
        templates().get_template("notebook_table.html").render(table=table, notes=notes)
    )
