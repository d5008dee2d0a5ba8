"""One self-contained HTML page of tables, drawings, pictures and clips."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup

from brainhive_cli.core import artifacts
from brainhive_cli.core.artifacts import Artifact, Curve, Heatmap, Map, Media, Sheet, Tile
from brainhive_cli.core.console import Table
from brainhive_cli.reports import curve_drawing
from brainhive_cli.reports.numbers import number
from brainhive_cli.reports.page_media import WHOLE_PX, Pictures
from brainhive_cli.reports.planes import draw_map, draw_matrix

HERE = Path(__file__).parent
DETAILS = "Details"
"""The heading of what is shown on demand."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What is read.
        small: What stands below it, as an interval.
        sort: By what the column sorts; None for the text.
        is_best: Whether it is the best of its column.
        mark: What follows it, as a sign of significance.
    """

    text: str
    small: str = ""
    sort: float | str | None = None
    is_best: bool = False
    mark: str = ""


@dataclass(frozen=True)
class Grid:
    """A table of a page, whose cells are `Cell`s or plain values."""

    title: str
    columns: Sequence[str]
    cells: Sequence[Sequence[Any]]
    note: str = ""

    @classmethod
    def of(cls, table: Table | artifacts.Table) -> "Grid":
        """Take over a table of a terminal, or of a run."""
        return cls(table.title, table.columns, table.rows, getattr(table, "note", ""))

    @cached_property
    def rows(self) -> list[list[Cell]]:
        """All cells, with what is read of them."""
        return [[_cell(cell) for cell in row] for row in self.cells]

    @cached_property
    def numeric(self) -> set[int]:
        """The columns that hold numbers."""
        columns = list(zip(*self.rows, strict=True))
        return {
            place for place, some in enumerate(columns) if any(isinstance(cell.sort, float) for cell in some)
        }


@dataclass(frozen=True)
class Figure:
    """An artifact, or the same one of several runs.

    Attributes:
        parts: Label of the run, its artifact, and the run's folder.
    """

    parts: Sequence[tuple[str, Artifact, Path]]


@dataclass(frozen=True)
class Group:
    """Tables and figures that stand under one heading."""

    title: str
    blocks: Sequence[Grid | Figure]

    @property
    def is_folded(self) -> bool:
        """Whether it is shown on demand."""
        return self.title == DETAILS


@dataclass(frozen=True)
class Text:
    """A text to unfold and to copy, as a recipe."""

    title: str
    text: str
    is_open: bool = False


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it."""

    title: str
    groups: Sequence[Group] = ()
    lead: Sequence[str] = ()
    texts: Sequence[Text] = ()


@dataclass(frozen=True)
class Page:
    """What a page says before its sections, and these.

    Attributes:
        title: Its heading.
        lead: What was found, in sentences.
        warnings: What every reader must know first.
        sections: Its body, in order.
    """

    title: str
    lead: Sequence[str] = ()
    warnings: Sequence[str] = ()
    sections: Sequence[Section] = ()

    def write(self, path: Path) -> None:
        """Write the page as one file that needs no other."""
        path.write_text(_Renderer().render(self), encoding="utf-8")


def groups_of(artifacts_of_runs: Sequence[tuple[str, Sequence[Artifact], Path]]) -> list[Group]:
    """Put artifacts under their headings; those of several runs with one title next to each other.

    Args:
        artifacts_of_runs: Label, artifacts and folder of each run.
    """
    found: dict[tuple[str, str, str], list[tuple[str, Artifact, Path]]] = {}
    for label, some, folder in artifacts_of_runs:
        for each in some:
            found.setdefault((each.section, each.kind, each.title), []).append((label, each, folder))
    sections: dict[str, list[Grid | Figure]] = {}
    for (section, _, _), parts in found.items():
        sections.setdefault(section, []).append(Figure(parts))
    return [Group(title, blocks) for title, blocks in sections.items()]


@dataclass
class _Renderer:
    pictures: Pictures = field(default_factory=Pictures)

    @cached_property
    def environment(self) -> Any:
        from jinja2 import Environment, FileSystemLoader

        made = Environment(
            autoescape=True, loader=FileSystemLoader(HERE), trim_blocks=True, lstrip_blocks=True
        )
        made.filters["number"] = number
        made.globals["media"] = self.media
        return made

    @cached_property
    def macros(self) -> Any:
        return self.environment.get_template("blocks.html").module

    def render(self, page: Page) -> str:
        read = {kind: Markup((HERE / f"page.{kind}").read_text(encoding="utf-8")) for kind in ("css", "js")}
        template = self.environment.get_template("page.html")
        shown: str = template.render(
            **vars(page), **read, draw=self.draw, pictures=lambda: self.pictures.loose
        )
        return shown

    def draw(self, block: Grid | Figure) -> Markup:
        if isinstance(block, Grid):
            return self._macro("table", block)
        if all(isinstance(each, Sheet) for _, each, _ in block.parts):
            return self._sheet(block)
        return Markup("\n").join(self._figure(*part) for part in block.parts)

    def _figure(self, label: str, shown: Artifact, folder: Path) -> Markup:
        match shown:
            case Curve():
                return self._macro("figure", shown, label, curve_drawing.draw(shown), "")
            case Heatmap():
                return self._macro("figure", shown, label, draw_matrix(shown), "")
            case Map():
                drawn = draw_map(shown, lambda name: self.pictures.reference(folder / name))
                return self._macro("figure", shown, label, drawn, "")
            case Media():
                poster = folder / shown.poster if shown.poster else None
                drawn = self.pictures.element(folder / shown.file, shown.title, poster, WHOLE_PX)
                return self._macro(
                    "figure", shown, label, drawn, "drawing media" if shown.is_drawing else "media"
                )
            case artifacts.Table():
                title = f"{shown.title} ({label})" if label else shown.title
                return self._macro("table", Grid(title, shown.columns, shown.rows, shown.note))
        return Markup("")

    def _sheet(self, block: Figure) -> Markup:
        """Show sheets; the rows of several that are of one query, as one row with its stimulus once."""
        shown = [(label, each, folder) for label, each, folder in block.parts if isinstance(each, Sheet)]
        queries = list(dict.fromkeys(row.query for _, sheet, _ in shown for row in sheet.rows))
        is_shared = len(shown) > 1
        rows = []
        for query in queries:
            parts: list[dict[str, Any]] = []
            for label, sheet, folder in shown:
                for row in (row for row in sheet.rows if row.query == query):
                    tiles = list(zip(sheet.columns, row.tiles, strict=False))
                    named = [(heading, tile, place == 0) for place, (heading, tile) in enumerate(tiles)]
                    if is_shared and not parts:
                        seen = Tile(named[0][1].file, named[0][1].lines[:1], poster=named[0][1].poster)
                        parts.append({"label": "", "files": folder, "tiles": [(named[0][0], seen, True)]})
                    own = named[1:] if is_shared else named
                    parts.append({"label": label if is_shared else "", "files": folder, "tiles": own})
            rows.append(parts)
        first = shown[0][1]
        return self._macro("sheet", first.title, rows, first.note)

    def media(self, folder: Path, name: str, poster: str, words: str) -> Markup:
        return self.pictures.element(folder / name, words, folder / poster if poster else None)

    def _macro(self, name: str, *values: Any) -> Markup:
        return Markup(getattr(self.macros, name)(*values))


def _cell(value: Any) -> Cell:
    if isinstance(value, Cell):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(number(value), sort=float(value) if is_number else None)
