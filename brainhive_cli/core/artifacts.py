"""Data that a run shows besides its metrics: curves, matrices, sheets, maps, media and
tables.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter

from brainhive_cli.core import documents
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.files import resolve_below
from brainhive_cli.core.measurements import Metric
from brainhive_cli.core.tables import Table

if TYPE_CHECKING:
    from PIL.Image import Image

    from brainhive_cli.core.runs import RunFolder

NAME = "artifacts.json"
"""The document of a run that lists its artifacts; it lies next to the metrics."""
FOLDER = "artifacts"
"""Folder of the pictures of artifacts in a run, unless they lie there under a name of
their own.
"""
SOURCE = "the file of an artifact,"
"""Beginning of the error of a name that leads out of the run."""
SCHEMA = 3
SIDE_PX = 128
"""Longer side of a picture that is saved for a page."""
DIGITS = 4
"""Significant digits of the numbers of an artifact, which are drawn and not computed
with.
"""
Value = Annotated[float, Field(ge=-1e100, le=1e100)]
"""A number that can be drawn: axes reach further than their values, and must be
finite.
"""
OptionalValue = Value | None
"""A value; None where there is none, which is drawn as a gap."""
Mark = Value | tuple[Value, Value]
"""Position along an axis, or start and end of a span."""


@dataclass(frozen=True)
class Titled:
    """Fields of all artifacts.

    Attributes:
        title: What is shown.
        section: The heading under which a page shows it.
        note: What its reader must know.
    """

    title: str
    _: KW_ONLY
    section: str = ""
    note: str = ""


@dataclass(frozen=True)
class CurveLine:
    """One line, or one group of bars, of a curve.

    Attributes:
        name: What the legend calls it.
        values: [N] values.
        low: [N] lower ends of 95 % intervals; None where there are none.
        high: [N] upper ends.
        chance: The value expected of guessing, drawn as a broken line.
    """

    name: str
    values: Sequence[OptionalValue]
    low: Sequence[OptionalValue] | None = None
    high: Sequence[OptionalValue] | None = None
    chance: OptionalValue = None

    @classmethod
    def of(cls, name: str, metrics: Sequence[Metric]) -> Self:
        """Draw metrics with their intervals, and the chance of the first."""
        low = [metric.low for metric in metrics]
        high = [metric.high for metric in metrics]
        return cls(
            name, [metric.value for metric in metrics], low, high, metrics[0].chance
        )


@dataclass(frozen=True)
class Curve(Titled):
    """Values along an axis, as lines or as bars.

    Attributes:
        axis: What `at` is, with its unit.
        at: [N] positions along the axis: numbers, or names (bars only).
        lines: What is drawn.
        value: What the values are, with their unit.
        style: Lines, or bars in groups.
        is_logarithmic: Whether equal steps along the axis are doublings.
        marks: Places and spans along the axis that have a name, as `onset: 0`.
    """

    axis: str
    at: Sequence[Value] | Sequence[str]
    lines: Sequence[CurveLine]
    value: str = ""
    style: Literal["lines", "bars"] = "lines"
    is_logarithmic: bool = False
    marks: dict[str, Mark] = field(default_factory=dict)
    kind: Literal["curve"] = "curve"

    def __post_init__(self) -> None:
        """Refuse lines of another length than the axis."""
        for line in self.lines:
            # intervals may be absent, but have an end for each value
            for values in (line.values, line.low, line.high):
                if values is not None and len(values) != len(self.at):
                    raise ValueError(
                        f"{self.title}: {line.name} has {len(values)} values at "
                        f"{len(self.at)} positions"
                    )


@dataclass(frozen=True)
class Heatmap(Titled):
    """A matrix of values in colours; without names and axes it is a picture, as of
    slices of a volume.

    Attributes:
        values: [R, C] values.
        rows: [R] names of rows; empty for none.
        columns: [C] names of columns.
        row_axis: What rows are.
        column_axis: What columns are.
        value: What the values are, with their unit.
        low: Value of the first colour; None for the lowest.
        high: Value of the last colour; None for the highest.
        is_diverging: Whether colours differ by sign, from `-high` to `high`.
    """

    values: Sequence[Sequence[OptionalValue]]
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    row_axis: str = ""
    column_axis: str = ""
    value: str = ""
    low: OptionalValue = None
    high: OptionalValue = None
    is_diverging: bool = False
    kind: Literal["heatmap"] = "heatmap"

    def __post_init__(self) -> None:
        """Refuse rows of different lengths, and names that are not of these rows and
        columns.
        """
        # a rectangular matrix [R, C], with a name for each row and column or none
        widths = {len(row) for row in self.values}
        if len(widths) > 1:
            raise ValueError(f"{self.title}: its rows have {sorted(widths)} values")
        if self.rows and len(self.rows) != len(self.values):
            raise ValueError(
                f"{self.title}: {len(self.rows)} names of {len(self.values)} rows"
            )
        if self.columns and {len(self.columns)} != widths:
            raise ValueError(
                f"{self.title}: {len(self.columns)} names of columns, not "
                f"{sorted(widths)}"
            )


@dataclass(frozen=True)
class SheetTile:
    """One picture or clip of a sheet.

    Attributes:
        file: Its file, by name within the run; empty for a gap.
        lines: Text below it.
        metrics: Its metrics by name.
        verdict: Whether it is what was looked for; decides the frame.
        poster: A still picture of a clip, by name within the run.
    """

    file: str
    lines: Sequence[str] = ()
    metrics: dict[str, OptionalValue] = field(default_factory=dict)
    verdict: Literal["", "right", "wrong"] = ""
    poster: str = ""


@dataclass(frozen=True)
class SheetRow:
    """One row of a sheet.

    Attributes:
        query: The stimulus id that it is of; a comparison puts rows of several runs
            side by side by it.
        tiles: [C] pictures.
    """

    query: str
    tiles: Sequence[SheetTile]


@dataclass(frozen=True)
class Sheet(Titled):
    """Pictures in rows: stimuli with what was retrieved, or generated, for them.

    Attributes:
        columns: [C] headings, the first one of the stimuli.
        rows: One for each query.
    """

    columns: Sequence[str]
    rows: Sequence[SheetRow]
    kind: Literal["sheet"] = "sheet"

    def __post_init__(self) -> None:
        """Refuse a row with more tiles than there are columns."""
        for row in self.rows:
            if len(row.tiles) > len(self.columns):
                raise ValueError(
                    f"{self.title}: row {row.query} has {len(row.tiles)} tiles"
                )


@dataclass(frozen=True)
class Point:
    """One sensor of a map.

    Attributes:
        x: Position from left to right; the head is a circle of radius 1 around the
            origin.
        y: Position from bottom to top, nose up.
        name: Its name.
        value: What its colour says.
    """

    x: Value
    y: Value
    name: str = ""
    value: OptionalValue = None


@dataclass(frozen=True)
class Topomap(Titled):
    """Sensors on a head.

    Attributes:
        points: The sensors.
        value: What values are, with their unit.
        is_diverging: Whether colours of values differ by sign.
    """

    points: Sequence[Point]
    value: str = ""
    is_diverging: bool = False
    kind: Literal["map"] = "map"


@dataclass(frozen=True)
class Media(Titled):
    """One picture or clip in a file.

    Attributes:
        file: PNG, JPEG, WebP, GIF, SVG, MP4 or WebM, by name within the run.
        poster: A still picture of a clip, by name within the run.
    """

    file: str
    poster: str = ""
    kind: Literal["media"] = "media"


Artifact = Curve | Heatmap | Sheet | Topomap | Media | Table
LISTED = TypeAdapter(
    list[Annotated[Artifact, Field(discriminator="kind")]],
    config=ConfigDict(extra="forbid"),
)
"""Artifacts in a document; `kind` says which, and they hold no other fields."""


def write(run: "RunFolder", artifacts: Iterable[Artifact]) -> None:
    """Write the list of a run's artifacts, before the run is finished.

    Args:
        run: The run.
        artifacts: What is shown, in order; their files lie in the run already.

    Raises:
        BrainhiveError: if a file is missing, or does not lie in the run.
    """
    # every file that an artifact names is in the run
    listed = list(artifacts)  # read twice
    for name in {name for artifact in listed for name in files(artifact)}:
        if not resolve_below(run.path, name, source=SOURCE).is_file():
            raise BrainhiveError(
                f"artifact {name} is missing in {run.path}", "write the file first"
            )

    # numbers that are drawn need few digits
    shown_only = ("is_list", "is_copied")  # how a terminal shows a table
    plain = [
        {
            key: _plain(value)
            for key, value in asdict(artifact).items()
            if key not in shown_only
        }
        for artifact in listed
    ]
    # in one line: a matrix is written ten times as fast
    run.write_json(NAME, {"schema": SCHEMA, "artifacts": plain}, indent=None)


def read(run: "RunFolder") -> list[Artifact]:
    """Read the artifacts of a run; none of a run that has no list of them.

    Raises:
        BrainhiveError: if the list is damaged, of another schema, or names a file
            outside of the run.
    """
    # the list, of this schema
    path = run.path / NAME
    if not path.is_file():
        return []
    document: dict[str, Any] = run.read_json(NAME)
    documents.require_schema(document, SCHEMA, f"{path} is")

    # names of files lead nowhere else, be it by a link: a page could show any file
    listed = documents.check(document.get("artifacts"), f"{path}: artifacts", LISTED)
    for name in (name for artifact in listed for name in files(artifact)):
        if (
            not resolve_below(run.path, name, source=SOURCE)
            .resolve()
            .is_relative_to(run.path.resolve())
        ):
            raise BrainhiveError(
                f"{run.path / name} is a link that leads out of the run", "remove it"
            )
    return listed


def read_tables(run: "RunFolder") -> tuple[Table, ...]:
    """Read the tables among the artifacts of a run."""
    return tuple(artifact for artifact in read(run) if isinstance(artifact, Table))


def files(artifact: Artifact) -> Iterator[str]:
    """List the files of an artifact, by name within the run."""
    match artifact:
        # a clip has a poster, which is a file too
        case Sheet(rows=rows):
            names = [
                name
                for row in rows
                for tile in row.tiles
                for name in (tile.file, tile.poster)
            ]
        case Media(file=file, poster=poster):
            names = [file, poster]
        case _:
            names = []
    yield from filter(None, names)


def save_picture(run: "RunFolder", name: str, picture: "Image") -> str:
    """Save a small copy of a picture for pages, as WebP.

    Args:
        run: The run.
        name: Its name below `artifacts/`, without ending; slashes make folders.
        picture: What is saved; a smaller picture keeps its size.

    Returns:
        The file's name within the run.
    """
    # a page embeds its pictures, so they are small
    small = picture.convert("RGB")
    small.thumbnail((SIDE_PX, SIDE_PX))  # never enlarges
    file = f"{FOLDER}/{name}.webp"
    run.replace(file, lambda part: small.save(part, "WEBP", quality=80, method=4))
    return file


def _plain(value: Any) -> Any:
    """Round numbers, and write those that are not finite as None: JSON has no word for
    them.
    """
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    # DIGITS are enough to draw; JSON has neither NaN nor infinity
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if isfinite(value) else None
    return value
