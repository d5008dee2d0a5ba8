"""Artifacts of a run: curves, matrices, pictures, maps and tables for its HTML page."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter

from brainhive_cli.core.base import BrainhiveError, Table
from brainhive_cli.core.files import documents, resolve_below
from brainhive_cli.core.results import Metric

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from brainhive_cli.core.runs.run_folder import RunFolder

ARTIFACTS_FILE = "artifacts.json"
"""File of a run that holds the list of artifacts. It lies next to the metrics."""
FILE_DESCRIPTION = "the file of an artifact,"
"""Beginning of the error message for a file name that leads out of the run."""
SCHEMA = 3
"""Version of the list's format. Lists of other versions are rejected."""
Value = Annotated[float, Field(ge=-1e100, le=1e100)]
"""Number that can be drawn. Its size is limited, because a plot computes the ends of an
axis from the numbers, and these ends must be finite.
"""
OptionalValue = Value | None
"""Number in a plot, or None for a gap."""
Mark = Value | tuple[Value, Value]
"""Position along an axis, or start and end of an interval."""


@dataclass(frozen=True, repr=False)
class Titled:
    """Base class of artifacts, with the fields that all artifacts have.

    Attributes:
        title: Text above the artifact.
        section: Heading above the artifact's section of the page.
        note: Text below the artifact.
    """

    title: str
    _: KW_ONLY
    section: str = ""
    note: str = ""

    def __repr__(self) -> str:
        """Return the type and the title, without the values."""
        return f"<{type(self).__name__} {self.title!r}>"


@dataclass(frozen=True)
class CurveLine:
    """Line of a plot, or group of bars that have the same colour.

    Attributes:
        name: Name in the legend.
        values: Values [N] at the positions along the axis.
        low: Lower ends [N] of the 95 % intervals, or None.
        high: Upper ends [N] of the 95 % intervals, or None.
        chance: Expected value of guessing, drawn as a broken line, or None.
    """

    name: str
    values: Sequence[OptionalValue]
    low: Sequence[OptionalValue] | None = None
    high: Sequence[OptionalValue] | None = None
    chance: OptionalValue = None

    @classmethod
    def from_metrics(cls, name: str, metrics: Sequence[Metric]) -> Self:
        """Make a line from metrics with their intervals.

        Args:
            name: Name in the legend.
            metrics: Metrics [N] along the axis. The first has the value of `chance`.
        """
        return cls(
            name=name,
            values=[metric.value for metric in metrics],
            low=[metric.low for metric in metrics],
            high=[metric.high for metric in metrics],
            chance=metrics[0].chance,
        )


@dataclass(frozen=True, repr=False)
class Curve(Titled):
    """Plot of values along an axis, as lines or bars.

    Attributes:
        axis: Label of the horizontal axis, with the unit.
        at: Positions [N] along the horizontal axis: numbers, or names of bars.
        lines: Lines, or groups of bars, with N values each.
        value: Label of the vertical axis, with the unit.
        style: Lines, bars next to each other, or a dot for each named position.
        is_logarithmic: True if the horizontal axis is logarithmic, with base 2.
        marks: Marked positions or intervals by name, as in `onset: 0`.
        kind: Type in the stored list.
    """

    axis: str
    at: Sequence[Value] | Sequence[str]
    lines: Sequence[CurveLine]
    value: str = ""
    style: Literal["lines", "bars", "dots"] = "lines"
    is_logarithmic: bool = False
    marks: dict[str, Mark] = field(default_factory=dict)
    kind: Literal["curve"] = "curve"

    def __post_init__(self) -> None:
        """Raise an error if a line has more or fewer values than the axis."""
        for line in self.lines:
            for values in (line.values, line.low, line.high):
                if values is not None and len(values) != len(self.at):
                    raise ValueError(
                        f"{self.title}: {line.name} has {len(values)} values at "
                        f"{len(self.at)} positions"
                    )


@dataclass(frozen=True, repr=False)
class Heatmap(Titled):
    """Matrix of values that are shown as colours.

    Attributes:
        values: Matrix [R, C].
        rows: Names [R] of the rows, or empty.
        columns: Names [C] of the columns, or empty.
        row_axis: Label of the vertical axis.
        column_axis: Label of the horizontal axis.
        value: Label of the colour bar, with the unit.
        low: Value with the first colour, or None for the lowest value.
        high: Value with the last colour, or None for the highest value.
        is_diverging: True for different colours of negative and positive values.
        texts: Texts [R, C] that are written in the cells, with `\\n` between lines, or
            empty.
        level: Value of a line between lower and higher cells, or None.
        kind: Type in the stored list.
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
    texts: Sequence[Sequence[str]] = ()
    level: OptionalValue = None
    kind: Literal["heatmap"] = "heatmap"

    def __post_init__(self) -> None:
        """Raise an error unless rows are equally long, and have all names or none."""
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
        if self.texts and [len(row) for row in self.texts] != [
            len(row) for row in self.values
        ]:
            raise ValueError(f"{self.title}: the texts do not have the matrix's shape")
        if self.columns and {len(self.columns)} != widths:
            raise ValueError(
                f"{self.title}: there are {len(self.columns)} names for "
                f"{sorted(widths)} columns"
            )


@dataclass(frozen=True)
class SheetTile:
    """Picture or video clip in a sheet of pictures.

    Attributes:
        file: Path of the picture or clip below the run, or "" for a gap.
        lines: Lines of text below the picture.
        metrics: Values of the picture's metrics, by name.
        verdict: `right` or `wrong` if the picture was retrieved, or "".
        poster: Path below the run of a still picture of a clip.
    """

    file: str
    lines: Sequence[str] = ()
    metrics: dict[str, OptionalValue] = field(default_factory=dict)
    verdict: Literal["", "right", "wrong"] = ""
    poster: str = ""


@dataclass(frozen=True)
class SheetRow:
    """Row of a sheet of pictures.

    Attributes:
        query: Id of the seen stimulus, by which a page aligns rows of runs.
        tiles: Pictures of the row, at most one for each column of the sheet.
        rank: Rank of the seen stimulus among the candidates, from 1, or None.
        n_candidates: Number of candidates, or None without a rank.
    """

    query: str
    tiles: Sequence[SheetTile]
    rank: int | None = None
    n_candidates: int | None = None


@dataclass(frozen=True)
class Sample:
    """Random choice of the stimuli on a sheet, in the order of its rows.

    Attributes:
        n_tested: Number of tested stimuli, from which the rows were drawn.
        noun: Name of the stimuli in the plural, such as `test pictures`.
        seed: Seed of the draw.
        subject: Subject whose signals were decoded, such as `sub-01`, or "".
    """

    n_tested: int
    noun: str
    seed: int
    subject: str = ""


@dataclass(frozen=True, repr=False)
class Sheet(Titled):
    """Sheet of pictures, with a row for each stimulus that was seen.

    Attributes:
        columns: Headings [C]. The first column shows the stimulus, the others show
            retrieved or generated pictures.
        rows: Rows of the sheet, from top to bottom.
        sample: Choice of the rows, or None if they were not drawn at random.
        ranked_by: Metric behind the ranks of reconstructions, such as `CLIP`, or "".
        kind: Type in the stored list.
    """

    columns: Sequence[str]
    rows: Sequence[SheetRow]
    sample: Sample | None = None
    ranked_by: str = ""
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
    """Sensor in a map of the head, a circle of radius 1 around 0 with the nose up.

    Attributes:
        x: Coordinate from left to right.
        y: Coordinate from bottom to top.
        name: Name of the sensor.
        value: Value that decides the colour, or None.
    """

    x: Value
    y: Value
    name: str = ""
    value: OptionalValue = None


@dataclass(frozen=True, repr=False)
class Topomap(Titled):
    """Map of sensors on a head.

    Attributes:
        points: Sensors with their positions and values.
        value: Label of the colour bar, with the unit.
        is_diverging: True for different colours of negative and positive values.
        kind: Type in the stored list.
    """

    points: Sequence[Point]
    value: str = ""
    is_diverging: bool = False
    kind: Literal["map"] = "map"


@dataclass(frozen=True, repr=False)
class Evoked(Titled):
    """Evoked response of all channels, with topographies at some times.

    Attributes:
        times_ms: Times [T] after onset.
        channels: Names [C] of the channels.
        values: Response [C, T].
        positions: Position [C, 3] of each channel in metres, or empty if unknown. x, y
            and z point to the right, to the front and to the top.
        value: Unit of the response.
        topography_ms: Times [K] of the topographies, each of them in `times_ms`.
        marks: Marked times or intervals by name, as in `onset: 0`.
        kind: Type in the stored list.
    """

    times_ms: Sequence[Value]
    channels: Sequence[str]
    values: Sequence[Sequence[Value]]
    positions: Sequence[Sequence[Value]] = ()
    value: str = ""
    topography_ms: Sequence[Value] = ()
    marks: dict[str, Mark] = field(default_factory=dict)
    kind: Literal["evoked"] = "evoked"

    def __post_init__(self) -> None:
        """Raise an error if a channel has more or fewer values than times."""
        lengths = {len(values) for values in self.values}
        if lengths != {len(self.times_ms)} or len(self.values) != len(self.channels):
            raise ValueError(
                f"{self.title}: {len(self.channels)} channels have {sorted(lengths)} "
                f"values at {len(self.times_ms)} times"
            )


@dataclass(frozen=True, repr=False)
class BrainMap(Titled):
    """Map of voxels on slices of the brain.

    Attributes:
        volume: Path below the run of a NIfTI file with the values, and NaN elsewhere.
        peak_mm: Position at which the slices cross, in the space of the volume.
        underlay: Path below the run of a NIfTI file with the anatomy, or "".
        value: Label of the colour bar, with the unit.
        threshold: Smallest absolute value that is drawn, or None for all values.
        is_diverging: True for different colours of negative and positive values.
        kind: Type in the stored list.
    """

    volume: str
    peak_mm: tuple[Value, Value, Value]
    underlay: str = ""
    value: str = ""
    threshold: OptionalValue = None
    is_diverging: bool = False
    kind: Literal["brain"] = "brain"

    def locate(self, folder: "Path") -> Self:
        """Replace the paths below a run by paths of files.

        Args:
            folder: Folder of the run.
        """
        underlay = str(folder / self.underlay) if self.underlay else ""
        return replace(self, volume=str(folder / self.volume), underlay=underlay)


@dataclass(frozen=True, repr=False)
class Media(Titled):
    """Picture or video clip in a file.

    Attributes:
        file: Path below the run of a PNG, JPEG, WebP, GIF, SVG, MP4 or WebM file.
        poster: Path below the run of a still picture of a clip.
        kind: Type in the stored list.
    """

    file: str
    poster: str = ""
    kind: Literal["media"] = "media"


Artifact = Curve | Heatmap | Sheet | Topomap | Evoked | BrainMap | Media | Table
ARTIFACT_LIST = TypeAdapter(
    list[Annotated[Artifact, Field(discriminator="kind")]],
    config=ConfigDict(extra="forbid"),
)
"""Type of the stored list of artifacts, which pydantic checks. The key `kind` selects
the class of an artifact. Unknown keys are rejected.
"""


def write(run_folder: "RunFolder", artifacts: Iterable[Artifact]) -> None:
    """Write the list of the artifacts of a run, before the run is finished.

    Args:
        run_folder: Folder with the results of the run.
        artifacts: Artifacts in their order on the page, whose picture files exist.

    Raises:
        BrainhiveError: if a file is missing or outside of the run folder.
    """
    plain_artifacts = []
    # Fields of a table that are not stored, because they lay out its text.
    table_options = ("is_list", "is_copied", "has_results", "folded", "keeps_columns")
    for artifact in artifacts:
        for name in list_files(artifact):
            file = resolve_below(run_folder.path, name, source=FILE_DESCRIPTION)
            if not file.is_file():
                raise BrainhiveError(
                    f"artifact {name} is missing in {run_folder.path}",
                    "write the file first",
                )

        # leave out options of tables, most of which are for terminals
        fields = asdict(artifact)
        for option in table_options:
            fields.pop(option, None)
        plain_artifacts.append(_plain(fields))

    # without indentation, large matrices are written ten times faster
    document = {"schema": SCHEMA, "artifacts": plain_artifacts}
    run_folder.write_json(ARTIFACTS_FILE, document, indent=None)


def read(run_folder: "RunFolder") -> list[Artifact]:
    """Read the artifacts of a run.

    Args:
        run_folder: Folder with the results of the run.

    Returns:
        Artifacts in their order on the page. Empty if the run has no list of artifacts.

    Raises:
        BrainhiveError: if the list is damaged or of another version, or if an artifact
            names a file outside of the run folder.
    """
    path = run_folder.path / ARTIFACTS_FILE
    if not path.is_file():
        return []
    document: dict[str, Any] = run_folder.read_json(ARTIFACTS_FILE)
    documents.require_schema(document, SCHEMA, f"{path} is")
    artifacts = documents.check(
        document.get("artifacts"), f"{path}: artifacts", ARTIFACT_LIST
    )

    # a run from a stranger could name a private file, or a link to such a file
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
    """List the pictures, clips and volumes of an artifact, as paths below the run."""
    names = []
    if isinstance(artifact, Media):
        names = [artifact.file, artifact.poster]
    elif isinstance(artifact, BrainMap):
        names = [artifact.volume, artifact.underlay]
    elif isinstance(artifact, Sheet):
        for row in artifact.rows:
            for tile in row.tiles:
                names += [tile.file, tile.poster]
    for name in names:
        if name:
            yield name


def save_picture(run_folder: "RunFolder", name: str, picture: "Image") -> str:
    """Save a small copy of a picture in a run, for its HTML page.

    Args:
        run_folder: Folder with the results of the run.
        name: Path of the new file below `artifacts`, without the suffix.
        picture: Picture. Its longer side is reduced to at most 128 px.

    Returns:
        Path of the new WebP file, relative to the run folder.
    """
    # the page embeds its pictures
    thumbnail = picture.convert("RGB")
    # Longer side of a picture that is saved for a page.
    max_side_px = 128
    thumbnail.thumbnail((max_side_px, max_side_px))
    # Folder of a run with the pictures that `save_picture` writes.
    file = f"artifacts/{name}.webp"
    run_folder.replace(
        file, lambda path: thumbnail.save(path, "WEBP", quality=80, method=4)
    )
    return file


def _plain(value: Any) -> Any:
    """Convert a value for JSON: round floats, and replace NaN and infinity by None."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        if not isfinite(value):
            return None
        # Number of stored digits. The numbers are only drawn, so more are not needed.
        significant_digits = 4
        return float(f"{value:.{significant_digits}g}")
    return value
