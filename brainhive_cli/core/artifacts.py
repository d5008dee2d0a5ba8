"""Artifacts of a run: curves, matrices, pictures, maps and tables for its page."""

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

ARTIFACTS_FILE = "artifacts.json"
"""File of a run that lists the artifacts. It lies next to the metrics."""
PICTURES_FOLDER = "artifacts"
"""Folder of a run with the pictures that `save_picture` writes."""
FILE_DESCRIPTION = "the file of an artifact,"
"""Beginning of the message for a file name that leads out of the run."""
SCHEMA = 3
"""Version of the list's format. Lists of other versions are rejected."""
MAX_SIDE_PX = 128
"""Longer side of a picture that is saved for a page."""
SIGNIFICANT_DIGITS = 4
"""Digits of the stored numbers. They are only drawn, so more are not needed."""
Value = Annotated[float, Field(ge=-1e100, le=1e100)]
"""Number that can be drawn. The limits of an axis exceed its values, and must be finite
too.
"""
OptionalValue = Value | None
"""Value in a plot. None is drawn as a gap."""
Mark = Value | tuple[Value, Value]
"""Position along an axis, or start and end of an interval."""


@dataclass(frozen=True)
class Titled:
    """Base of artifacts, with the fields that all have.

    Attributes:
        title: Title.
        section: Heading of the section of a page that shows the artifact.
        note: Note below the artifact.
    """

    title: str
    _: KW_ONLY
    section: str = ""
    note: str = ""


@dataclass(frozen=True)
class CurveLine:
    """Line or group of bars in a curve.

    Attributes:
        name: Name in the legend.
        values: Values [N].
        low: Lower ends [N] of 95 % intervals, or None without intervals.
        high: Upper ends [N] of 95 % intervals, or None without intervals.
        chance: Expected value of guesses, drawn as a broken line.
    """

    name: str
    values: Sequence[OptionalValue]
    low: Sequence[OptionalValue] | None = None
    high: Sequence[OptionalValue] | None = None
    chance: OptionalValue = None

    @classmethod
    def from_metrics(cls, name: str, metrics: Sequence[Metric]) -> Self:
        """Make a line of metrics, with the chance of the first metric."""
        return cls(
            name=name,
            values=[metric.value for metric in metrics],
            low=[metric.low for metric in metrics],
            high=[metric.high for metric in metrics],
            chance=metrics[0].chance,
        )


@dataclass(frozen=True)
class Curve(Titled):
    """Plot of values along an axis, as lines or bars.

    Attributes:
        axis: Label of the axis, with its unit.
        at: Positions [N] along the axis: numbers, or names (for bars only).
        lines: Lines or groups of bars.
        value: Label of the values, with their unit.
        style: `lines`, or `bars` in groups.
        is_logarithmic: Use a logarithmic axis with base 2.
        marks: Named positions and intervals along the axis, such as `onset: 0`.
        kind: Kind of the artifact.
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
        """Raise an error if a line has more or fewer values than the axis."""
        for line in self.lines:
            # a line without intervals is allowed
            for values in (line.values, line.low, line.high):
                if values is not None and len(values) != len(self.at):
                    raise ValueError(
                        f"{self.title}: {line.name} has {len(values)} values at "
                        f"{len(self.at)} positions"
                    )


@dataclass(frozen=True)
class Heatmap(Titled):
    """Matrix of values in colours.

    Without names and axes it is a plain picture, for example of slices of a volume.

    Attributes:
        values: Values [R, C].
        rows: Names [R] of the rows. Empty without names.
        columns: Names [C] of the columns. Empty without names.
        row_axis: Label of the rows.
        column_axis: Label of the columns.
        value: Label of the values, with their unit.
        low: Value of the first colour. None takes the lowest value.
        high: Value of the last colour. None takes the highest value.
        is_diverging: Use different colours for negative and positive values, from
            `-high` to `high`.
        kind: Kind of the artifact.
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
        """Raise an error if the matrix is not rectangular or does not fit its names."""
        widths = {len(row) for row in self.values}
        if len(widths) > 1:
            raise ValueError(
                f"{self.title}: the rows have different numbers of values, "
                f"{sorted(widths)}"
            )
        if self.rows and len(self.rows) != len(self.values):
            raise ValueError(
                f"{self.title}: there are {len(self.rows)} names for "
                f"{len(self.values)} rows"
            )
        if self.columns and {len(self.columns)} != widths:
            raise ValueError(
                f"{self.title}: there are {len(self.columns)} names for "
                f"{sorted(widths)} columns"
            )


@dataclass(frozen=True)
class SheetTile:
    """Picture or clip in a sheet.

    Attributes:
        file: File of the picture or clip, as a path below the run. Empty for a gap.
        lines: Lines of text below the picture.
        metrics: Metrics of the picture by name.
        verdict: `right` if the picture is the searched one, `wrong` if not, or empty.
            It decides the colour of the frame.
        poster: File of a still picture of a clip, as a path below the run.
    """

    file: str
    lines: Sequence[str] = ()
    metrics: dict[str, OptionalValue] = field(default_factory=dict)
    verdict: Literal["", "right", "wrong"] = ""
    poster: str = ""


@dataclass(frozen=True)
class SheetRow:
    """Row of a sheet.

    Attributes:
        query: Id of the stimulus. A comparison of runs puts rows with the same id side
            by side.
        tiles: Pictures [C].
    """

    query: str
    tiles: Sequence[SheetTile]


@dataclass(frozen=True)
class Sheet(Titled):
    """Sheet of stimuli, each in a row with its retrieved or generated pictures.

    Attributes:
        columns: Headings [C] of the columns. The first column has the stimuli.
        rows: Rows, each for a stimulus.
        kind: Kind of the artifact.
    """

    columns: Sequence[str]
    rows: Sequence[SheetRow]
    kind: Literal["sheet"] = "sheet"

    def __post_init__(self) -> None:
        """Raise an error if a row has more tiles than there are columns."""
        for row in self.rows:
            if len(row.tiles) > len(self.columns):
                raise ValueError(
                    f"{self.title}: row {row.query} has {len(row.tiles)} tiles, but "
                    f"there are {len(self.columns)} columns"
                )


@dataclass(frozen=True)
class Point:
    """Sensor of a map.

    The head is a circle of radius 1 around the origin. The nose is up.

    Attributes:
        x: Position from left to right.
        y: Position from bottom to top.
        name: Name of the sensor.
        value: Value that decides the colour.
    """

    x: Value
    y: Value
    name: str = ""
    value: OptionalValue = None


@dataclass(frozen=True)
class Topomap(Titled):
    """Map of sensors on a head.

    Attributes:
        points: Sensors.
        value: Label of the values, with their unit.
        is_diverging: Use different colours for negative and positive values.
        kind: Kind of the artifact.
    """

    points: Sequence[Point]
    value: str = ""
    is_diverging: bool = False
    kind: Literal["map"] = "map"


@dataclass(frozen=True)
class Media(Titled):
    """Picture or clip in a file.

    Attributes:
        file: PNG, JPEG, WebP, GIF, SVG, MP4 or WebM file, as a path below the run.
        poster: File of a still picture of a clip, as a path below the run.
        kind: Kind of the artifact.
    """

    file: str
    poster: str = ""
    kind: Literal["media"] = "media"


Artifact = Curve | Heatmap | Sheet | Topomap | Media | Table
ARTIFACT_LIST = TypeAdapter(
    list[Annotated[Artifact, Field(discriminator="kind")]],
    config=ConfigDict(extra="forbid"),
)
"""Type of the list in the document. The key `kind` selects the class of an artifact.
Unknown keys are rejected.
"""


def write(run_folder: "RunFolder", artifacts: Iterable[Artifact]) -> None:
    """Write the list of a run's artifacts, before the run is finished.

    Args:
        run: Run.
        artifacts: Artifacts in their order on the page. Their files must be in the run
            already.

    Raises:
        BrainhiveError: if a file is missing or outside of the run.
    """
    plain_artifacts = []
    for artifact in artifacts:
        for name in list_files(artifact):
            if not resolve_below(
                run_folder.path, name, source=FILE_DESCRIPTION
            ).is_file():
                raise BrainhiveError(
                    f"artifact {name} is missing in {run_folder.path}",
                    "write the file first",
                )

        # options that only a terminal uses are not stored
        fields = asdict(artifact)
        fields.pop("is_list", None)
        fields.pop("is_copied", None)
        plain_artifacts.append(_plain(fields))

    # without line breaks, a matrix is written ten times as fast
    document = {"schema": SCHEMA, "artifacts": plain_artifacts}
    run_folder.write_json(ARTIFACTS_FILE, document, indent=None)


def read(run_folder: "RunFolder") -> list[Artifact]:
    """Read the artifacts of a run.

    Returns:
        Artifacts in their order on the page. Empty if the run has no list of artifacts.

    Raises:
        BrainhiveError: if the list is damaged, has another schema, or names a file
            outside of the run.
    """
    path = run_folder.path / ARTIFACTS_FILE
    if not path.is_file():
        return []
    document: dict[str, Any] = run_folder.read_json(ARTIFACTS_FILE)
    documents.require_schema(document, SCHEMA, f"{path} is")
    artifacts = documents.check(
        document.get("artifacts"), f"{path}: artifacts", ARTIFACT_LIST
    )

    # a run from elsewhere must not show files from outside of it, not even by a link
    folder = run_folder.path.resolve()
    for artifact in artifacts:
        for name in list_files(artifact):
            file = resolve_below(
                run_folder.path, name, source=FILE_DESCRIPTION
            ).resolve()
            if not file.is_relative_to(folder):
                raise BrainhiveError(
                    f"{run_folder.path / name} is a link that leads out of the run",
                    "remove it",
                )
    return artifacts


def read_tables(run_folder: "RunFolder") -> tuple[Table, ...]:
    """Read the tables among the artifacts of a run."""
    return tuple(
        artifact for artifact in read(run_folder) if isinstance(artifact, Table)
    )


def list_files(artifact: Artifact) -> Iterator[str]:
    """List the files of an artifact, with the posters of clips.

    Yields:
        Paths below the run.
    """
    names = []
    if isinstance(artifact, Media):
        names = [artifact.file, artifact.poster]
    elif isinstance(artifact, Sheet):
        for row in artifact.rows:
            for tile in row.tiles:
                names += [tile.file, tile.poster]
    yield from filter(None, names)


def save_picture(run_folder: "RunFolder", name: str, picture: "Image") -> str:
    """Save a small copy of a picture for a page, as WebP.

    Args:
        run: Run.
        name: Path of the file below the folder `artifacts`, without suffix.
        picture: Picture. It is never enlarged.

    Returns:
        Path of the file below the run.
    """
    # a page embeds its pictures, so they must be small
    thumbnail = picture.convert("RGB")
    thumbnail.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    file = f"{PICTURES_FOLDER}/{name}.webp"
    run_folder.replace(
        file, lambda path: thumbnail.save(path, "WEBP", quality=80, method=4)
    )
    return file


def _plain(value: Any) -> Any:
    """Convert a value for JSON: round numbers, and replace NaN and infinity by None."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        if not isfinite(value):
            return None
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
    return value
