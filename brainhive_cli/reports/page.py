"""One self-contained HTML page of tables, drawings, pictures and clips."""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from brainhive_cli.core.artifacts import Artifact, Curve, Heatmap, Map, Media, Sheet, Tile
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.files import read_regular
from brainhive_cli.core.tables import Cell, Table, number
from brainhive_cli.reports.drawings import svg_of

HERE = Path(__file__).parent
DETAILS = "Details"
"""Heading of the groups that are shown on demand."""
ROWS_SHOWN = 4
"""Rows of a sheet that are shown; the others unfold."""
MAX_STACKED = 40
"""Cells up to which a phone shows a table row below row; it scrolls a larger one to the side."""
TILE_PX, WHOLE_PX = 200, 1200
"""Longest side of a tile of a sheet, and of a picture of its own."""
KEPT_BYTES = 6_000
"""A smaller file goes into the page as it is, unless it is a PNG."""
LARGEST_BYTES = 1 << 28
"""Size limit of a file that is shown; a page holds all of them."""
NUMERIC = re.compile(r"[-+±]?[\d.]|–?$")
"""Beginning of the text of a cell that is aligned to the right: a number, an interval, or nothing."""
CLIPS = {".mp4": "video/mp4", ".webm": "video/webm"}
PLAIN = {".svg": "image/svg+xml", ".gif": "image/gif", ".webp": "image/webp", ".png": "image/png"}


@dataclass(frozen=True)
class Figure:
    """Artifact, or the same one of several runs.

    Attributes:
        parts: Label of the run, its artifact, and the run's folder.
    """

    parts: Sequence[tuple[str, Artifact, Path]]


@dataclass(frozen=True)
class Group:
    """Tables and figures under one heading."""

    title: str
    blocks: Sequence[Table | Figure]

    @property
    def is_folded(self) -> bool:
        """Whether it is shown on demand."""
        return self.title == DETAILS


@dataclass(frozen=True)
class Text:
    """Text to unfold and to copy, as a recipe."""

    title: str
    text: str
    is_open: bool = False


@dataclass(frozen=True)
class Section:
    """Heading, with sentences, groups and texts below it."""

    title: str
    groups: Sequence[Group] = ()
    lead: Sequence[str] = ()
    texts: Sequence[Text] = ()


@dataclass(frozen=True)
class FirstScreen:
    """Pictures and headline at the top of a page.

    Attributes:
        headings: Names of the two rows of pictures, as `seen` and `brain`.
        pairs: A stimulus, and the picture that was drawn or retrieved for it.
        folder: Folder of the run with their files.
        headline: The most important metric, with its chance and intervals.
    """

    headings: tuple[str, str] = ("", "")
    pairs: Sequence[tuple[Tile, Tile]] = ()
    folder: Path = Path()
    headline: Curve | None = None


@dataclass(frozen=True)
class Page:
    """Page of a report: title, lead, warnings and sections.

    Attributes:
        title: Its heading.
        lead: The results, in sentences; the first one is the verdict.
        warnings: Sentences that a reader needs before any number.
        sections: Its body, in order; those without groups are folded.
        first: Pictures and figure next to the verdict.
    """

    title: str
    lead: Sequence[str] = ()
    warnings: Sequence[str] = ()
    sections: Sequence[Section] = ()
    first: FirstScreen = FirstScreen()

    def write(self, path: Path) -> None:
        """Write the page as one file that needs no other."""
        path.write_text(_Renderer().render(self), encoding="utf-8")


def groups_of(artifacts_of_runs: Sequence[tuple[str, Sequence[Artifact], Path]]) -> list[Group]:
    """Put artifacts under their headings; those of several runs with one title next to each other.

    Args:
        artifacts_of_runs: Label, artifacts and folder of each run.
    """
    # collect artifacts of equal title
    title_parts: dict[tuple[str, str, str], list[tuple[str, Artifact, Path]]] = {}
    for label, artifacts, folder in artifacts_of_runs:
        for artifact in artifacts:
            title = artifact.section, artifact.kind, artifact.title
            title_parts.setdefault(title, []).append((label, artifact, folder))

    # sort them into sections
    sections: dict[str, list[Table | Figure]] = {}
    for (section, _, _), parts in title_parts.items():
        sections.setdefault(section, []).append(Figure(parts))

    # sheets come first, which are as wide as the page: other blocks share rows
    for blocks in sections.values():
        blocks.sort(key=lambda block: isinstance(block, Table) or not isinstance(block.parts[0][1], Sheet))
    return [Group(title, blocks) for title, blocks in sections.items()]


@dataclass
class Pictures:
    """Pictures and clips of a page, by digest of the file.

    Attributes:
        named: Id of each picture.
        loose: Data URLs by id, of pictures that no element of the page holds.
    """

    named: dict[str, str] = field(default_factory=dict)
    loose: dict[str, str] = field(default_factory=dict)
    _known: dict[Path, str] = field(default_factory=dict)

    def element(self, path: Path, words: str, poster: Path | None = None, side_px: int = TILE_PX) -> Markup:
        """Write the element of a picture, or of a clip that can be played.

        Args:
            path: The file.
            words: Description for readers who do not see it.
            poster: A still picture of a clip.
            side_px: Longest side.
        """
        # a file is embedded once; later elements refer to the first one
        digest, is_clip = f"{self._digest(path)}-{side_px}", path.suffix in CLIPS
        if known_id := self.named.get(digest):
            source = Markup('data-same="{}"').format(known_id)
        else:
            known_id = self.named[digest] = f"p{len(self.named)}"
            if is_clip:
                url = f"data:{CLIPS[path.suffix]};base64,{base64.b64encode(_read(path)).decode()}"
            else:
                url = _shrink_picture(path, side_px)
            source = Markup('id="{}" src="{}"').format(known_id, Markup(url))

        # the element, with a still picture if a clip has one
        if not is_clip:
            return Markup('<img alt="{}" {}>').format(words, source)
        still = Markup(' poster="{}"').format(Markup(_shrink_picture(poster, TILE_PX))) if poster else ""
        clip = '<video controls loop muted playsinline aria-label="{}"{} {}></video>'
        return Markup(clip).format(words, still, source)

    def reference(self, path: Path) -> str:
        """Return the id of a picture that is shown on demand, and embed it if it is new."""
        digest = f"{self._digest(path)}-{TILE_PX}"
        if digest not in self.named:
            self.named[digest] = f"p{len(self.named)}"
            self.loose[self.named[digest]] = _shrink_picture(path, TILE_PX)
        return self.named[digest]

    def _digest(self, path: Path) -> str:
        if path not in self._known:
            self._known[path] = hashlib.sha256(_read(path)).hexdigest()
        return self._known[path]


class _Renderer:
    def __init__(self) -> None:
        from jinja2 import Environment, FileSystemLoader

        self.pictures = Pictures()
        loader = FileSystemLoader(HERE)
        self.environment = Environment(autoescape=True, loader=loader, trim_blocks=True, lstrip_blocks=True)
        self.environment.filters["number"] = number
        self.environment.globals |= {"media": self.media, "svg_of": svg_of, "MAX_STACKED": MAX_STACKED}
        self.macros: Any = self.environment.get_template("blocks.html").module

    def render(self, page: Page) -> str:
        files = {kind: Markup((HERE / f"page.{kind}").read_text(encoding="utf-8")) for kind in ("css", "js")}
        template = self.environment.get_template("page.html")
        return template.render(**vars(page), **files, draw=self.draw, pictures=lambda: self.pictures.loose)

    def draw(self, block: Table | Figure) -> Markup:
        if isinstance(block, Table):
            return self._table(block)
        if all(isinstance(artifact, Sheet) for _, artifact, _ in block.parts):
            return self._sheet(block)
        return Markup("\n").join(self._figure(*part) for part in block.parts)

    def _figure(self, label: str, shown: Artifact, folder: Path) -> Markup:
        points: list[tuple[str, str]] = []
        match shown:
            case Curve() | Heatmap() | Map():
                drawing = svg_of(shown)
                for point in shown.points if isinstance(shown, Map) else ():
                    value = "" if point.value is None else number(point.value)
                    words = ", ".join(filter(None, [point.name, point.group, value]))
                    points.append((words, self.pictures.reference(folder / point.file) if point.file else ""))
            case Media():
                poster = folder / shown.poster if shown.poster else None
                drawing = self.pictures.element(folder / shown.file, shown.title, poster, WHOLE_PX)
            case Table():
                title = f"{shown.title} {label}" if label.startswith("[") else f"{shown.title} ({label})"
                return self._table(replace(shown, title=title) if label else shown)
            case _:
                return Markup("")
        return Markup(self.macros.figure(shown, label, drawing, points))

    def _table(self, table: Table) -> Markup:
        rows = [[_to_cell(value) for value in row] for row in table.rows]

        # columns of numbers alone are aligned to the right
        columns = enumerate(zip(*rows, strict=True))
        numeric = {index for index, cells in columns if all(NUMERIC.match(cell.text) for cell in cells)}
        return Markup(self.macros.table(table, rows, numeric))

    def _sheet(self, block: Figure) -> Markup:
        """Show sheets; rows of several sheets that have one query share a row, with its stimulus once."""
        sheets = [(label, sheet, folder) for label, sheet, folder in block.parts if isinstance(sheet, Sheet)]
        is_shared = len(sheets) > 1

        # collect, query by query, the tiles of each sheet under their headings
        rows = []
        for query in dict.fromkeys(row.query for _, sheet, _ in sheets for row in sheet.rows):
            parts: list[dict[str, Any]] = []
            for label, sheet, folder in sheets:
                for row in (row for row in sheet.rows if row.query == query):
                    tiles = zip(sheet.columns, row.tiles, strict=False)
                    named = [(heading, tile, index == 0) for index, (heading, tile) in enumerate(tiles)]
                    # the first part of a shared row is the stimulus alone
                    if is_shared and not parts:
                        seen = Tile(named[0][1].file, named[0][1].lines[:1], poster=named[0][1].poster)
                        parts.append({"label": "", "files": folder, "tiles": [(named[0][0], seen, True)]})
                    named = named[1:] if is_shared else named
                    parts.append({"label": label if is_shared else "", "files": folder, "tiles": named})
            rows.append(parts)

        # the first rows are shown, the others unfold
        shown_rows, folded_rows = rows[:ROWS_SHOWN], rows[ROWS_SHOWN:]
        label, sheet = ("", sheets[0][1]) if is_shared else sheets[0][:2]
        return Markup(self.macros.sheet(sheet.title, label, shown_rows, folded_rows, sheet.note))

    def media(self, folder: Path, name: str, poster: str, words: str) -> Markup:
        return self.pictures.element(folder / name, words, folder / poster if poster else None)


def _to_cell(value: Any) -> Cell:
    if isinstance(value, Cell):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(number(value), value=float(value) if is_number else None)


def _shrink_picture(path: Path, side_px: int) -> str:
    """Write a picture as a data URL, as WebP if that is smaller; drawings and animations stay as they are."""
    # PNG files and other large pictures are scaled down, but no drawings and animations
    content, kind = _read(path), PLAIN.get(path.suffix, "image/jpeg")
    if path.suffix == ".png" or (len(content) > KEPT_BYTES and path.suffix not in (".svg", ".gif")):
        try:
            with Image.open(BytesIO(content)) as opened:
                is_still = getattr(opened, "n_frames", 1) == 1
                small = opened.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise MissingData(f"{path} is no whole picture", "run the command that made it again") from error

        # WebP of quality 80 replaces a still file that is larger
        small.thumbnail((side_px, side_px))
        webp = BytesIO()
        small.save(webp, "WEBP", quality=80, method=4)
        if is_still and webp.tell() < len(content):
            content, kind = webp.getvalue(), "image/webp"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise MissingData(
            f"{path} is missing, and an artifact shows it", "run the command that made it again"
        )
    return read_regular(path, LARGEST_BYTES)
