"""Figures of artifacts, by matplotlib: as SVG in the colours of a page, or as files for
papers.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.artifacts import (
    Artifact,
    Curve,
    CurveLine,
    Heatmap,
    Sheet,
    Topomap,
)
from brainhive_cli.reports.tables import templates

if TYPE_CHECKING:  # which loads h5py
    from brainhive_cli.data.signals.spaces import Grid

Drawable = Curve | Heatmap | Topomap

WIDTH_INCH, HEIGHT_INCH = 3.5, 1.4
"""Width of every figure, on a page and as a file: 89 mm, the column of most journals,
whose letters are still large on half a slide; height of a plot of lines, and the least
of a matrix with names.
"""
TALL_INCH = 8
"""Height of a figure until its plot has its own, with room for any title, legend and
names.
"""
PNG_DPI = 600
"""Pixels an inch: 2100 across, which journals ask for and a slide of 1920 pixels shows
sharply.
"""
BAR_INCH, GROUP_INCH = 0.13, 0.08
"""Height of a bar, and of the gap between groups of bars."""
MAX_SLICES, SLICES_IN_ROW = 12, 4
"""Slices of a volume that are drawn, and slices in a row of the mosaic."""
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#8a6d00",
    "#56b4e9",
    "#6a51a3",
    "#7f7f7f",
)
"""Colours of series: Okabe and Ito (2008), which colour-blind readers distinguish, and
two more.
"""
CONTROL_COLOUR = COLOURS[-1]
INK, SOFT, GRID = "#1c1f23", "#5d6570", "#d9dde2"
PAGE_COLOURS = {
    **{colour: f"var(--c{index})" for index, colour in enumerate(COLOURS)},
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    GRID: "var(--line)",
}
"""The page's variable for each colour of a figure; its style sheet has them for light,
dark and print.
"""
STYLE = Path(__file__).with_name("figures.mplstyle")
NAME_INCH, SMALL_NAME_INCH = 0.15, 0.09
"""Height of a named row of a matrix, and of a mark's name, in letters of usual and of
small size.
"""
MAX_NAMES, MAX_SMALL_NAMES = 24, 72
"""Rows of a matrix that are named in letters of usual and of small size."""
LINE_LETTERS, BAR_LETTERS, CELL_LETTERS = 42, 24, 18
"""Letters in a line of a title, a legend, and the label of an axis; of the name of a
bar, and of a row.
"""
MAX_DOTS = 24
"""Points up to which each point of a line has a dot."""
SMALL = {"color": SOFT, "fontsize": "small"}
BROKEN = {"color": SOFT, "linestyle": (0, (4, 3)), "linewidth": 1}
CONTROLS = ("shuffled", "guessing")
"""Beginnings of the names of lines that show no effect; `on shuffled` inside a name
marks one too.
"""
CELL = re.compile(r"sub-0*(\d+)_seed-(\d+)")
"""The name of a subject's cell."""
HEAD_M, MIN_SENSORS = 0.095, 4
"""Radius of mne's head, and the fewest values that it interpolates."""
ZERO_SHARE = 0.6
"""An axis starts at 0 unless its lowest value is above this share of its highest."""
SIDE_INCH, FONT_PT, SHEET_DPI = 0.985, 5.5, 130
"""Side of a tile, size of its letters, and pixels an inch of a sheet: tiles of 128
pixels.
"""
LETTER_SHARE, LINE_SHARE, GAP_SHARE = 0.68, 1.2, 0.06
"""Width of a wide letter and height of its line, as shares of the size of the font; gap
between tiles, as a share of their side.
"""


def save_figure(artifact: Drawable, path: Path) -> None:
    """Save an artifact as a file, by the path's suffix: pdf, svg, png; with its title,
    on white paper.
    """
    with drawn(artifact, artifact.title) as figure:
        write_figure(figure, path, PNG_DPI)


def write_figure(figure: Any, path: Path, dpi: int) -> None:
    """Write a figure of matplotlib by the path's suffix; equal figures are equal
    files.
    """
    # no dates in files
    dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
    figure.savefig(path, facecolor="white", dpi=dpi, metadata=dates)


def shows_something(artifact: Artifact) -> bool:
    """Whether an artifact shows a difference: values that are not all one, at several
    positions of an axis.

    A sheet without rows shows nothing.
    """
    match artifact:
        case Curve(style="lines", at=at) if len(at) < 2:
            return False
        case Curve(lines=lines):
            rows = [line.values for line in lines]
        case Heatmap():
            rows = [*artifact.values]
        case Topomap(points=points):
            rows = [[point.value for point in points]]
        case Sheet():
            return bool(artifact.rows)
        case _:
            return True
    values = _numbers([*chain(*rows)])
    values = values[np.isfinite(values)]
    return len(values) > 1 and float(np.ptp(values)) > 1e-9 * float(
        np.abs(values).max()
    )


def svg_of(artifact: Drawable) -> Markup:
    """Draw an artifact as an SVG element whose colours are the page's variables.

    An artifact that shows nothing is not drawn.
    """
    template = templates().get_template("drawing.html")
    if not shows_something(artifact):
        return Markup(template.render())

    # let matplotlib write the figure, and split its root element from the shapes
    with drawn(artifact) as figure:
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    head, _, shapes = text.getvalue().partition("<svg")[2].partition(">")

    # drop ids, take the page's font and colours, and round coordinates to two decimals
    view = re.search('viewBox="[^"]*"', head)
    shapes = re.sub(r"<metadata>.*?</metadata>", "", shapes, flags=re.DOTALL)
    shapes = re.sub(r'<g id="[^"]*">', "<g>", shapes)  # the same ids in each figure
    shapes = re.sub(r"'DejaVu Sans'(?:, [^;\"]*)?", "system-ui, sans-serif", shapes)
    shapes = re.sub(
        "#[0-9a-f]{6}", lambda colour: PAGE_COLOURS.get(colour[0], colour[0]), shapes
    )
    shapes = re.sub(
        ' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), shapes
    )
    return Markup(
        template.render(
            view=view[0] if view else "", title=artifact.title, shapes=shapes
        )
    )


@contextmanager
def new_figure(title: str = "") -> Iterator[Any]:
    """Open a figure of matplotlib in the style of all figures, and keep that style
    until the block ends.
    """
    import matplotlib
    from matplotlib.figure import Figure  # no pyplot: it keeps figures

    # the style is the block's alone, so that a notebook's figures keep theirs
    with matplotlib.rc_context(fname=STYLE):
        figure = Figure((WIDTH_INCH, TALL_INCH), layout="constrained")
        if title:
            figure.suptitle(_wrap(title), fontsize="medium")
        yield figure


@contextmanager
def drawn(artifact: Drawable, title: str = "") -> Iterator[Any]:
    """Draw an artifact as a figure, in the style of all figures until the block ends;
    no names touch.
    """
    with new_figure(title) as figure:
        axes = figure.subplots()
        match artifact:
            case Curve(style="bars"):
                plot_inch = _draw_bars(axes, artifact)
            case Curve():
                plot_inch = _draw_lines(axes, artifact)
            case Heatmap():
                plot_inch = _draw_matrix(figure, axes, artifact)
            case Topomap():
                plot_inch = _draw_head(figure, axes, artifact)
        _add_legend(figure, axes)

        # the plot has its height, whatever stands around it
        layout = figure.get_layout_engine()
        layout.execute(figure)
        height_inch = figure.get_figheight() * axes.get_position(original=True).height
        figure.set_figheight(figure.get_figheight() + plot_inch - height_inch)

        # names that still touch are left out
        layout.execute(figure)
        for part in figure.axes:
            for texts in (part.get_xticklabels(), part.get_yticklabels(), part.texts):
                for text in _find_touching(texts):
                    text.set_visible(False)
        figure.set_layout_engine("none")
        yield figure


def _add_legend(figure: Any, axes: Any) -> None:
    """Name lines and groups below the figure where there are several, in as many
    columns as fit.
    """
    # a legend of one name says nothing
    if len(axes.get_legend_handles_labels()[1]) < 2:
        return
    for columns in (4, 3, 2, 1):
        legend = figure.legend(loc="outside lower left", ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def _find_touching(texts: Sequence[Any]) -> list[Any]:
    """List the texts that touch an earlier one, which is not listed itself."""
    touching: list[Any] = []
    boxes: list[Any] = []
    for text in texts:
        box = text.get_window_extent()
        if text.get_text() and box.count_overlaps(boxes):
            touching.append(text)
        else:
            boxes.append(box.padded(*((0, 4) if text.get_rotation() else (4, 0))))
    return touching


def _draw_lines(axes: Any, curve: Curve) -> float:
    # draw each line with its confidence band
    at = [float(position) for position in curve.at]
    for line, (name, colour) in zip(
        curve.lines, _label_lines(curve.lines), strict=True
    ):
        marker = "o" if len(at) <= MAX_DOTS else ""
        axes.plot(
            at,
            _numbers(line.values),
            linewidth=1.6,
            color=colour,
            label=name,
            marker=marker,
            markersize=3,
        )
        if line.low is not None and line.high is not None:
            ends = _numbers(line.low), _numbers(line.high)
            axes.fill_between(at, *ends, color=colour, alpha=0.2, linewidth=0)

    # draw each chance level once
    for level in dict.fromkeys(
        line.chance for line in curve.lines if line.chance is not None
    ):
        axes.axhline(level, label="chance", **BROKEN)

    # scale the axes; values start at 0 unless all of them are far above it
    if curve.is_logarithmic:
        axes.set_xscale("log", base=2)
        axes.set_xticks(at, [f"{tick:g}" for tick in at])
    axes.margins(x=0.02)
    low, high = axes.get_ylim()
    low = 0 if 0 < low < ZERO_SHARE * high else low

    # name marks and shaded spans, one name below the other, above all values
    for row, (name, mark) in enumerate(curve.marks.items()):
        start = mark[0] if isinstance(mark, tuple) else mark
        if isinstance(mark, tuple):
            axes.axvspan(*mark, color=SOFT, alpha=0.15, linewidth=0)
        axes.axvline(start, color=SOFT, linestyle=":", linewidth=1)
        # into the drawing, not out of it
        side = "left" if start < (at[0] + at[-1]) / 2 else "right"
        axes.annotate(
            f" {name} ",
            (start, 1),
            xytext=(0, -row * NAME_INCH * 72),
            textcoords="offset points",
            xycoords=("data", "axes fraction"),
            ha=side,
            va="top",
            **SMALL,
        )
    names_inch = NAME_INCH * len(curve.marks)
    axes.set_ylim(low, high + (high - low) * names_inch / HEIGHT_INCH)

    # label the axes
    axes.grid(axis="x", visible=False)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(_wrap(curve.axis))
    axes.set_title(_wrap(curve.value), **SMALL)
    return HEIGHT_INCH + names_inch


def _draw_bars(axes: Any, curve: Curve) -> float:
    # draw the bars of each line, side by side within the group of each name
    count = len(curve.lines)
    names = [str(name) for name in curve.at]
    step = BAR_INCH * count + GROUP_INCH
    for index, (name, colour) in enumerate(_label_lines(curve.lines)):
        line = curve.lines[index]
        at = np.arange(len(names)) + (index - (count - 1) / 2) * BAR_INCH / step
        values = _numbers(line.values)
        errors = None
        if line.low is not None and line.high is not None:
            errors = np.maximum(
                [values - _numbers(line.low), _numbers(line.high) - values], 0
            )
        axes.barh(
            at,
            values,
            0.9 * BAR_INCH / step,
            label=name,
            color=colour,
            ecolor=INK,
            error_kw={"linewidth": 1},
            xerr=errors,
        )

    # draw each chance level once
    for level in dict.fromkeys(line.chance for line in curve.lines if line.chance):
        axes.axvline(level, **BROKEN)

    # list the names from top to bottom
    axes.set_yticks(range(len(names)), _shorten(names, BAR_LETTERS))
    axes.set_ylim(len(names) - 0.5, -0.5)

    # mark zero and label the axes
    axes.axvline(0, color=SOFT, linewidth=1)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(_wrap(curve.value))
    axes.set_title(_wrap(curve.axis) if len(names) > 1 else "", **SMALL)
    return step * len(names)


def _draw_matrix(figure: Any, axes: Any, matrix: Heatmap) -> float:
    # colour the cells
    values = np.array([_numbers(row) for row in matrix.values])  # [rows, columns]
    axes.grid(visible=False)
    is_picture = not (
        matrix.rows or matrix.columns or matrix.row_axis or matrix.column_axis
    )
    axes.set_facecolor("none" if is_picture else "#a0a0a0")  # where there is no value
    colours, span = _colours_of(values, matrix.is_diverging, matrix.low, matrix.high)
    shown = axes.imshow(
        values, colours, aspect="equal" if is_picture else "auto", interpolation="none"
    )
    shown.set_clim(span)

    # label the axes and the colours
    axes.tick_params(length=0)
    axes.set(xlabel=_wrap(matrix.column_axis), ylabel=_wrap(matrix.row_axis))
    axes.spines[:].set_visible(False)
    _add_colour_bar(figure, axes, shown, matrix.value)

    # name seven numbers at most, or as many names as may fit in small letters
    for names, axis in ((matrix.rows, axes.yaxis), (matrix.columns, axes.xaxis)):
        are_numbers = all(re.fullmatch(r"-?[\d.]+", name) for name in names)
        step = -(-len(names) // (7 if are_numbers else MAX_SMALL_NAMES)) or 1
        axis.set_ticks(
            range(0, len(names), step), labels=_shorten(names[::step], CELL_LETTERS)
        )
        if axis is axes.yaxis and len(names) > MAX_NAMES and not are_numbers:
            axes.tick_params(axis="y", labelsize="xx-small")

    # turn names of columns that touch, in small letters where columns are narrow
    figure.get_layout_engine().execute(figure)
    if not are_numbers and _find_touching(axes.get_xticklabels()):
        is_narrow = axes.bbox.width / figure.dpi < NAME_INCH * len(axes.get_xticks())
        axes.tick_params(
            axis="x", rotation=90, labelsize="xx-small" if is_narrow else "medium"
        )

    # a picture keeps its proportions, and named rows have the height of their letters
    rows, columns = values.shape
    if is_picture:
        return min(WIDTH_INCH * rows / columns, WIDTH_INCH)
    if rows == columns > MAX_NAMES:
        return WIDTH_INCH * 0.7
    return max(
        HEIGHT_INCH,
        min(rows, MAX_SMALL_NAMES)
        * (NAME_INCH if rows <= MAX_NAMES else SMALL_NAME_INCH),
    )


def _draw_head(figure: Any, axes: Any, head: Topomap) -> float:
    """Draw values on a head, nose up: interpolated by mne, or as dots where values are
    few or not finite.
    """
    import mne
    from matplotlib.patches import Circle

    # sensors below the ears would lie outside of the circle: the outermost one lies on
    # it
    positions = np.array([[point.x, point.y] for point in head.points])  # [C, 2]
    positions *= HEAD_M / max(1, np.linalg.norm(positions, axis=1).max())

    # interpolate between sensors where there are enough of them, which do not lie on
    # one line or circle, as those of a headband do; else draw the outline of the head
    # alone, and the sensors as dots
    values = _numbers([point.value for point in head.points])  # [C]
    colours, span = _colours_of(values, head.is_diverging)
    # onto a paraboloid
    lifted = np.column_stack([positions, np.square(positions).sum(1)])
    is_area = np.linalg.matrix_rank(lifted - lifted.mean(0), tol=1e-6) == 3
    is_map = (
        len(positions) >= MIN_SENSORS and is_area and bool(np.isfinite(values).all())
    )
    with mne.use_log_level("ERROR"):
        shown, contours = mne.viz.plot_topomap(
            values if is_map else np.zeros(4),
            positions
            if is_map
            else HEAD_M * np.array(((0, 1), (1, 0), (0, -1), (-0.5, 0))),
            axes=axes,
            show=False,
            sensors=False,
            cmap=colours,
            vlim=span,
            contours=4,
            res=200,
            sphere=(0, 0, 0, HEAD_M),
            extrapolate="local",  # nothing is drawn where no sensor was
        )
    for artist in filter(None, (shown, contours)):
        artist.set_clip_path(Circle((0, 0), HEAD_M, transform=axes.transData))
    if not is_map:
        shown.remove()
        shown = axes.scatter(*positions.T, c=values, s=60, cmap=colours)
        shown.set_clim(span)

    # a dot and a name for each sensor, black on what the values have coloured
    axes.scatter(*positions.T, s=3, color="black")
    for point, position in zip(head.points, positions, strict=True):
        axes.annotate(
            point.name,
            position,
            (0, 2),
            textcoords="offset points",
            ha="center",
            fontsize="xx-small",
            color="black",
            in_layout=False,
            bbox={"color": "white", "alpha": 0.6, "pad": 0.2, "linewidth": 0},
        )
    _add_colour_bar(figure, axes, shown, head.value)
    return WIDTH_INCH * 0.8


def _colours_of(
    values: Any, is_diverging: bool, low: float | None = None, high: float | None = None
) -> tuple[str, tuple[float, float]]:
    """Choose a colour map, and the values of its first and last colour: around 0 for
    differences.
    """
    # differences are centred at 0, so that white is no difference
    low = float(np.nanmin(values)) if low is None else low
    high = float(np.nanmax(values)) if high is None else high
    largest = max(abs(low), abs(high))
    return ("RdBu_r", (-largest, largest)) if is_diverging else ("viridis", (low, high))


def _add_colour_bar(figure: Any, axes: Any, shown: Any, words: str) -> None:
    from matplotlib.ticker import MaxNLocator

    # a bar below the plot, which keeps the width of a column
    bar = figure.colorbar(
        shown, ax=axes, location="bottom", aspect=40, pad=0.015, format="{x:g}"
    )
    bar.set_label(_wrap(words))
    bar.locator = MaxNLocator(4)
    bar.update_ticks()
    bar.outline.set_visible(False)


def _label_lines(lines: Sequence[CurveLine]) -> list[tuple[str, str]]:
    """Choose the name of each line in the legend, and its colour: that of controls is
    grey.
    """
    labels = []
    index = 0
    for line in lines:
        # `sub-01_seed-2025` is subject 1, seed 2025
        name = CELL.sub(r"subject \1, seed \2", line.name).replace(
            "all_seed-", "all subjects, seed "
        )
        is_control = line.name.startswith(CONTROLS) or "on shuffled" in line.name
        colour = CONTROL_COLOUR if is_control else COLOURS[index % (len(COLOURS) - 1)]
        labels.append((_wrap(name), colour))
        index += not is_control
    return labels


def _wrap(text: str) -> str:
    """Break a text into lines that are no wider than a figure."""
    return textwrap.fill(text, LINE_LETTERS)


def _shorten(names: Sequence[str], letters: int) -> list[str]:
    """Leave out the middle of long names, whose beginnings are often alike."""
    half = letters // 2
    return [
        name if len(name) <= letters else f"{name[: half - 1]}…{name[-half:]}"
        for name in names
    ]


def _numbers(values: Sequence[Any]) -> Any:
    return np.array([np.nan if value is None else value for value in values], float)


def draw_slices(
    title: str, values: Float64, grid: "Grid", unit: str, low: float | None = None
) -> Heatmap:
    """Draw values of voxels on axial slices from bottom to top, nose up, left is left.

    Args:
        title: Title of the figure.
        values: [V].
        grid: Positions of the voxels.
        unit: Unit of the values.
        low: Value of the first colour; None for the lowest.
    """
    import nibabel

    # row of the voxel at each position, -1 where there is none; x to the right, y to
    # the front, z to the top
    rows = np.full(grid.shape, -1)
    rows[tuple(grid.indices.T)] = np.arange(len(values))
    rows = nibabel.apply_orientation(rows, nibabel.io_orientation(grid.affine))
    for axis in range(3):
        held = np.flatnonzero((rows >= 0).any(tuple({0, 1, 2} - {axis})))
        rows = rows.take(range(held[0], held[-1] + 1), axis)

    # of the slices that hold voxels, the middle ones of up to a dozen equal parts, in
    # rows of four
    depth = rows.shape[2]
    heights = np.flatnonzero((rows >= 0).any((0, 1)))
    parts = min(MAX_SLICES, len(heights))
    heights = heights[((np.arange(parts) + 0.5) * len(heights) / parts).astype(int)]
    columns = min(len(heights), SLICES_IN_ROW)

    # put the values into a mosaic of the slices, one empty pixel between them
    with_none = np.append(values, np.nan)  # the last value is that of row -1
    slices = [
        np.pad(with_none[rows[:, ::-1, z].T], (0, 1), constant_values=np.nan)
        for z in heights
    ]
    slices += [np.full_like(slices[0], np.nan)] * (-len(slices) % columns)
    mosaic = np.block(
        [slices[row : row + columns] for row in range(0, len(slices), columns)]
    )

    # describe the figure
    pixels = [
        [None if np.isnan(value) else value for value in line]
        for line in mosaic.tolist()
    ]
    shown = "" if len(heights) == depth else f"{len(heights)} of {depth} slices, "
    note = f"Axial: {shown}from bottom to top; nose up, left is left."
    return Heatmap(title, pixels, value=unit, low=low, note=note)


@dataclass(frozen=True)
class DrawnTile:
    """Part of a row of a sheet: a picture with text below it, or text alone.

    Attributes:
        picture: Of Pillow, or [H, W, 3], shown as a square; None for none.
        lines: Text below it, each of them broken where it is wider than its tile.
        frame: Colour of its frame.
        sides: Width of the tile, in sides of a picture.
    """

    picture: Any
    lines: Sequence[str] = ()
    frame: str = GRID
    sides: int = 1


def save_sheet(
    title: str,
    rows: Sequence[Sequence[DrawnTile]],
    path: Path,
    width_inch: float = 0,
    dpi: int = SHEET_DPI,
) -> None:
    """Save tiles in rows below a title, by the path's suffix: png, pdf, svg.

    Args:
        title: Above all rows.
        rows: From top to bottom; one without tiles is a gap.
        path: The file.
        width_inch: Width of the sheet, which tiles fill; 0 for tiles of 128 pixels.
        dpi: Pixels an inch.
    """
    from matplotlib.patches import Rectangle

    # the width of the sheet in sides of a tile, and the letters that fit into one
    width = GAP_SHARE + max(
        (sum(tile.sides + GAP_SHARE for tile in row) for row in rows), default=1
    )
    side_inch = width_inch / width or SIDE_INCH
    letters = side_inch * 72 / (LETTER_SHARE * FONT_PT)
    line = LINE_SHARE * FONT_PT / 72 / side_inch

    with new_figure() as figure:
        # data are sides of a tile, from the upper left corner
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        top = GAP_SHARE
        for row in ([DrawnTile(None, [title], sides=int(width))], *rows):
            left = GAP_SHARE
            bottom = top
            # a tile: picture with its frame, and text below
            for tile in row:
                below = top
                if tile.picture is not None:
                    below += 1
                    axes.imshow(tile.picture, extent=(left, left + 1, below, top))
                    axes.add_patch(
                        Rectangle((left, top), 1, 1, fill=False, edgecolor=tile.frame)
                    )
                text = "\n".join(
                    textwrap.fill(words, int(tile.sides * letters))
                    for words in tile.lines
                )
                axes.text(
                    left,
                    below + line / 4,
                    text,
                    fontsize=FONT_PT,
                    va="top",
                    linespacing=LINE_SHARE,
                )
                bottom = max(bottom, below + line * len(text.splitlines()))
                left += tile.sides + GAP_SHARE
            top = bottom + GAP_SHARE

        # a row has room for its pictures, and for the longest text below them
        axes.axis("off")
        axes.set(xlim=(0, width), ylim=(top, 0), aspect="auto")
        figure.set_size_inches(width_inch or width * side_inch, top * side_inch)
        write_figure(figure, path, dpi)
