"""Self-contained HTML page of tables, figures, pictures and clips."""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from brainhive_cli.core.base import MissingData, Table, TableCell, bind_numbers
from brainhive_cli.core.files import read_regular
from brainhive_cli.core.runs import (
    Artifact,
    BrainMap,
    Curve,
    Evoked,
    Heatmap,
    Sheet,
    SheetTile,
    Topomap,
)
from brainhive_cli.reports.figures import is_informative, render_svg, write_view
from brainhive_cli.reports.templates import templates

HERE = Path(__file__).parent
FINDING = "Finding"
"""Heading of the figures that stand at the top of the page of a single run."""
DETAILS = "Details"
"""Heading of tables and figures that are folded away."""
BY_HAND = "Each step by hand"
"""Title of the text that is open when the page loads."""
MAX_SHEET_ROWS = 3
"""Largest number of rows of a sheet that are not folded away."""
TILE_PX = 200
"""Longest side of a picture in a sheet."""
MAX_FILE_BYTES = 1 << 28
"""Largest file that a page can contain, because the page is built in memory."""
CLIP_TYPES = {".mp4": "video/mp4", ".webm": "video/webm"}
"""Media types of clips by suffix."""
Figure = Sequence[tuple[str, Artifact, Path]]
"""An artifact, with the label and the folder of its run. Artifacts of several runs with
the same title make a single figure.
"""
PageGroup = tuple[str, Sequence[Table | Figure]]
"""Heading, and the tables and figures below it."""


@dataclass(frozen=True)
class PicturePair:
    """Stimulus and the picture that was decoded from its signal.

    Attributes:
        seen: The stimulus.
        decoded: The picture that was retrieved first or drawn from the signal.
        rank: Rank of the stimulus among the candidates, from 1, or None.
        n_candidates: Number of candidates, or None without a rank.
    """

    seen: SheetTile
    decoded: SheetTile
    rank: int | None = None
    n_candidates: int | None = None

    @property
    def verdict(self) -> str:
        """`right` or `wrong` by the rank, in which ties count as misses, or "".

        Without a rank, the verdict is the verdict of the decoded picture.
        """
        if self.rank is None:
            return self.decoded.verdict
        return "right" if self.rank == 1 else "wrong"


@dataclass(frozen=True)
class PicturePairs:
    """Pairs of pictures at the top of a page.

    Attributes:
        seen_heading: Name of the first picture of a pair, such as `seen`.
        decoded_heading: Name of the second picture, such as `retrieved first`.
        pairs: The pairs, in the order of the page.
        folder: Folder of the picture files.
        note: Sentences on the choice of the stimuli, and on the ranks.
    """

    seen_heading: str
    decoded_heading: str
    pairs: Sequence[PicturePair]
    folder: Path
    note: str = ""

    @property
    def n_columns(self) -> int:
        """Number of pairs side by side, which fills one or more rows evenly."""
        # Largest number of pairs of pictures side by side.
        n_rows = ceil(len(self.pairs) / 5)
        return ceil(len(self.pairs) / n_rows)


@dataclass(frozen=True)
class PageSection:
    """Section of a page.

    Attributes:
        title: Heading of the section.
        groups: Subheadings, each with its tables and figures.
        lead: Sentences below the heading.
        texts: Titles and texts to copy, such as a recipe.
        footnotes: Explanation of the footnote signs in the section.
    """

    title: str
    groups: Sequence[PageGroup] = ()
    lead: Sequence[str] = ()
    texts: Sequence[tuple[str, str]] = ()
    footnotes: str = ""


@dataclass(frozen=True)
class Page:
    """Page of a report.

    Attributes:
        title: Heading of the page.
        lead: Sentences at the top: the finding of a run, or the differences of runs.
        warnings: Sentences that a reader needs before any number.
        sections: Sections in their order.
        pictures: Pairs of stimuli and decoded pictures at the top, or None.
        headlines: Figures at the top, which show the main result.
        examples: Sheet of a picture of each category at the top with the folder of its
            files, or None.
        missing: Metrics that were not measured, with the reasons.
    """

    title: str
    lead: Sequence[str] = ()
    warnings: Sequence[str] = ()
    sections: Sequence[PageSection] = ()
    pictures: PicturePairs | None = None
    headlines: Sequence[Curve | Heatmap | Topomap | Evoked | BrainMap] = ()
    examples: tuple[Sheet, Path] | None = None
    missing: Sequence[str] = ()

    def write(self, path: Path) -> None:
        """Write the page as a single HTML file."""
        path.write_text(self.html(path.parent), encoding="utf-8")

    def html(self, folder: Path | None = None) -> str:
        """Return a single HTML document with the style, script and pictures.

        Args:
            folder: Folder of the page, in which views of brain maps are written. None
                for a page without such files, such as in a notebook.
        """
        style = (HERE / "page.css").read_text(encoding="utf-8")
        script = (HERE / "page.js").read_text(encoding="utf-8")
        n_sections = sum(bool(section.groups) for section in self.sections)
        page = templates().get_template("page.html")
        html = page.render(
            **vars(self),
            css=Markup(style),
            js=Markup(script),
            embed=partial(embed, {}),  # `embed` collects the ids of files in the dict
            render_svg=render_svg,
            write_view=partial(_write_view, folder),
            read_cells=read_cells,
            # Smallest number of sections with figures on a page with many sections.
            has_many_sections=n_sections >= 5,
            DETAILS=DETAILS,
            BY_HAND=BY_HAND,
            # Largest number of titles in the line that unfolds more tables and figures.
            MAX_FOLDED_TITLES=3,
            # Largest number of tables, sheets and other figures below a heading that
            # stay open. The outer key is True for a page with many sections.
            MAX_BLOCKS={
                False: {"table": 2, "sheet": 1, "figure": 3},
                True: {"table": 1, "sheet": 1, "figure": 1},
            },
            # Largest number of sections that are not folded away on a page
            # with many sections.
            MAX_OPEN_SECTIONS=3,
            MAX_SHEET_ROWS=MAX_SHEET_ROWS,
            # Longest side of a picture outside of a sheet.
            WHOLE_PX=1200,
        )
        return bind_numbers_of_html(str(html))


def bind_numbers_of_html(html: str) -> str:
    """Keep numbers and units on one line in the text of an HTML document.

    Tags, scripts, styles and texts to copy are left as they are.
    """
    # Parts of a document that hold no text, or text that users copy.
    unbound_html = re.compile(
        r"(<(?:pre|script|style)\b.*?</(?:pre|script|style)>|<[^>]*>)", re.S
    )
    # odd parts are the separators
    parts = unbound_html.split(html)
    parts[::2] = map(bind_numbers, parts[::2])
    return "".join(parts)


def group_artifacts(
    artifacts_of_runs: Sequence[tuple[str, Sequence[Artifact], Path]],
) -> list[PageGroup]:
    """Group the figures, tables and media of runs by section of a page.

    Artifacts with the same section, kind and title become a single figure. Artifacts
    for which `is_informative` is False are left out.

    Args:
        artifacts_of_runs: Label, artifacts and folder of each run.

    Returns:
        Heading and figures of each section, in the order of the first artifacts. Sheets
        of pictures come first in a section.
    """
    figures: dict[tuple[str, str, str], list[tuple[str, Artifact, Path]]] = {}
    for label, artifacts, folder in artifacts_of_runs:
        for artifact in filter(is_informative, artifacts):
            key = (artifact.section, artifact.kind, artifact.title)
            figures.setdefault(key, []).append((label, artifact, folder))

    sections: dict[str, list[Figure]] = {}
    for (section, _, _), figure in figures.items():
        sections.setdefault(section, []).append(figure)

    # sheets are as wide as the page, while other figures share rows
    for section_figures in sections.values():
        section_figures.sort(key=lambda figure: not isinstance(figure[0][1], Sheet))
    return list(sections.items())


def read_cells(table: Table) -> tuple[list[list[TableCell]], set[int]]:
    """Return the cells of a table by row, and the indices of its numeric columns."""
    rows = [list(map(TableCell.from_value, values)) for values in table.rows]
    numeric_columns = set()
    for index, column in enumerate(zip(*rows, strict=True)):
        # Beginning of the text of a right-aligned cell: a number, an interval
        # or a dash.
        if all(re.match(r"[-+±]?[\d.]|–?$", cell.text) for cell in column):
            numeric_columns.add(index)
    return rows, numeric_columns


def embed(
    ids: dict[tuple[str, int], str],
    path: Path,
    poster: Path | None = None,
    side_px: int = TILE_PX,
) -> dict[str, Any]:
    """Read a picture or clip for a page, which holds the data of each file once.

    Args:
        ids: Ids by the SHA-256 digest of a file and `side_px`. A new file is added.
        path: The picture or clip.
        poster: Still picture of a clip, or None.
        side_px: Longest side of the picture on the page, in pixels.

    Returns:
        `id` of the file, `url` with its data (empty if `ids` had the file), `poster`
        with the data of the still picture or empty, and `is_clip`.
    """
    content = _read_file(path)
    key = (hashlib.sha256(content).hexdigest(), side_px)
    is_new = key not in ids
    file_id = ids.setdefault(key, f"p{len(ids)}")

    is_clip = path.suffix in CLIP_TYPES
    url = ""
    if is_new and is_clip:
        media_type = CLIP_TYPES[path.suffix]
        url = f"data:{media_type};base64,{base64.b64encode(content).decode()}"
    elif is_new:
        url = _shrink_picture(path, side_px)
    poster_url = _shrink_picture(poster, TILE_PX) if poster else ""
    return {"id": file_id, "url": url, "poster": poster_url, "is_clip": is_clip}


def _write_view(
    page_folder: Path | None, brain_map: BrainMap, folder: Path | str
) -> str:
    """Write a view of a brain map next to a page.

    Args:
        page_folder: Folder of the page, or None for a page without such files.
        brain_map: Map of voxels.
        folder: Folder of the files of the map.

    Returns:
        Name of the file, or "" if there is none.
    """
    if page_folder is None:
        return ""
    return write_view(brain_map.locate(Path(folder)), page_folder)


def _shrink_picture(path: Path, side_px: int) -> str:
    """Write a picture as a data URL, scaled down if it has fewer bytes then.

    SVG, animations, and small files other than PNG are never scaled down.

    Args:
        path: The picture.
        side_px: Longest side of the scaled picture, in pixels.
    """
    content = _read_file(path)
    # Media types of pictures by suffix. A picture with another suffix is a JPEG.
    picture_types = {
        ".svg": "image/svg+xml",
        ".gif": "image/gif",
        ".webp": "image/webp",
        ".png": "image/png",
    }
    media_type = picture_types.get(path.suffix, "image/jpeg")
    # Size above which a picture is scaled down. A PNG file of any size is scaled down.
    min_shrunk_bytes = 6_000
    is_large = len(content) > min_shrunk_bytes and path.suffix not in (".svg", ".gif")
    if path.suffix == ".png" or is_large:
        # replace a still picture by WebP of quality 80, if that is smaller
        is_still, picture = open_picture(path)
        picture.thumbnail((side_px, side_px))
        webp = BytesIO()
        picture.save(webp, "WEBP", quality=80, method=4)
        if is_still and webp.tell() < len(content):
            content = webp.getvalue()
            media_type = "image/webp"
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def open_picture(path: Path) -> tuple[bool, Image.Image]:
    """Open a picture.

    Returns:
        True for a still picture, False for an animation, and the first frame in RGB.

    Raises:
        MissingData: if the file is not a readable picture.
    """
    try:
        with Image.open(BytesIO(read_regular(path, MAX_FILE_BYTES))) as image:
            is_still = getattr(image, "n_frames", 1) == 1
            return is_still, image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MissingData(
            f"{path} is damaged or not a picture", "run the command that made it again"
        ) from error


def _read_file(path: Path) -> bytes:
    """Read a file, or raise `MissingData` if it does not exist."""
    if not path.is_file():
        raise MissingData(
            f"{path} is missing, but the report needs it",
            "run the command that made it again",
        )
    return read_regular(path, MAX_FILE_BYTES)


def frame_table(table: Table, notes: list[str]) -> str:
    """Return a table as HTML for a notebook.

    Args:
        table: The table. Its title becomes the caption.
        notes: Sentences below the table.
    """
    template = templates().get_template("notebook_table.html")
    return bind_numbers_of_html(str(template.render(table=table, notes=notes)))
