"""Figures of artifacts, drawn with matplotlib for pages and for papers."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from itertools import chain, pairwise
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from brainhive_cli.core.base import Float64, MissingExtra, bind_numbers, install_line
from brainhive_cli.core.runs import (
    Artifact,
    BrainMap,
    Curve,
    CurveLine,
    Evoked,
    Heatmap,
    Sheet,
    Topomap,
)
from brainhive_cli.reports.figures.brain_slices import (
    choose_slices,
    draw_slices_at_peak,
    has_nilearn,
)
from brainhive_cli.reports.figures.sensor_plots import (
    INK,
    SOFT,
    draw_evoked,
    draw_mark,
    draw_topography,
)
from brainhive_cli.reports.templates import templates

Drawable = Curve | Heatmap | Topomap | Evoked | BrainMap

WIDTH_INCH = 3.5
"""Width of every figure: 89 mm, the column width of most journals. Letters stay
readable when the figure fills half a slide.
"""
HEIGHT_INCH = 1.4
"""Height of a plot of lines, and smallest height of a matrix with names."""
PNG_DPI = 600
"""Resolution of PNG files. A figure is 2,100 pixels wide, which journals ask for and
which is sharp on a slide of 1,920 pixels.
"""
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
"""Colours of series. Most are from Okabe and Ito (2008), whose palette colour-blind
readers can distinguish.
"""
CONTROL_COLOUR = COLOURS[-1]
GRID = "#d9dde2"
PAGE_COLOURS = {
    **{colour: f"var(--c{index})" for index, colour in enumerate(COLOURS)},
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    GRID: "var(--line)",
}
"""CSS variable of the page for each colour of a figure. The style sheet defines the
variables for light mode, dark mode and print.
"""
NAME_INCH = 0.15
"""Height of a matrix row, of the name of a mark, or of a line of a title."""
MAX_LINE_LETTERS = 42
"""Largest number of letters per line of a title, a legend or an axis label."""
BROKEN_LINE = {"color": SOFT, "linestyle": (0, (4, 3)), "linewidth": 1}
SIDE_INCH = 0.985
"""Side of a tile of a sheet: 128 pixels at `SHEET_DPI`."""
SHEET_DPI = 130
"""Resolution of a sheet."""
LINE_SHARE = 1.2
"""Height of a line of text, as a share of the font size."""


def save_figure(artifact: Drawable, path: Path) -> None:
    """Save an artifact with its title, on white.

    Args:
        artifact: Curve, matrix or map of values on a head.
        path: File to write. The suffix selects the format: pdf, svg or png.
    """
    with draw_artifact(artifact, artifact.title) as figure:
        write_figure(figure, path, PNG_DPI)


def write_figure(figure: Any, path: Path, dpi: int) -> None:
    """Write a matplotlib figure, without a date in SVG and PDF files.

    Args:
        figure: Figure of matplotlib.
        path: File to write. The suffix selects the format.
        dpi: Resolution in pixels per inch.
    """
    no_dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    figure.savefig(path, facecolor="white", dpi=dpi, metadata=no_dates.get(path.suffix))


def make_rank_bars(title: str, ranks: Any, n_candidates: int, value: str) -> Curve:
    """Make bars of the share of ranks in bins that double, and of the same by chance.

    Args:
        title: Title of the figure.
        ranks: Ranks [N] of the seen stimuli, from 1.
        n_candidates: Number of candidates, which is the last rank.
        value: Label of the shares.
    """
    # bins of the ranks 1, 2–3, 4–7 and so on
    edges = (2 ** np.arange(n_candidates.bit_length())).tolist()
    edges.append(n_candidates + 1)
    names = []
    chance_shares = []
    for start, stop in pairwise(edges):
        names.append(str(start) if stop == start + 1 else f"{start}–{stop - 1}")
        chance_shares.append((stop - start) / n_candidates)
    shares = (np.histogram(ranks, edges)[0] / len(ranks)).tolist()
    return Curve(
        title,
        axis=f"rank among {n_candidates:,}",
        at=names,
        lines=[CurveLine("measured", shares), CurveLine("chance", chance_shares)],
        value=value,
        style="bars",
    )


def is_informative(artifact: Artifact) -> bool:
    """Return True if a figure, table or clip of a run is worth showing.

    - Bars, matrix, map: at least two finite values differ.
    - Line plot: as above, and it has at least two positions.
    - Sheet of pictures: it has rows.
    - Other artifacts: always.
    """
    match artifact:
        case Curve(style="lines", at=at) if len(at) < 2:
            return False
        case Curve(lines=lines):
            rows = [line.values for line in lines]
        case Heatmap():
            rows = list(artifact.values)
        case Topomap(points=points):
            rows = [[point.value for point in points]]
        case Sheet():
            return bool(artifact.rows)
        case _:
            return True
    values = np.array(list(chain(*rows)), float)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return False
    return float(np.ptp(values)) > 1e-9 * float(np.abs(values).max())


def render_svg(artifact: Drawable, folder: Path | str = "") -> Markup:
    """Draw an artifact as an SVG element in the colours of the page.

    Args:
        artifact: Curve, matrix, or map of a head or brain.
        folder: Folder of the files of the artifact.

    Returns:
        The element. A paragraph instead if all values are equal, or if nilearn is
        needed and not installed.
    """
    template = templates().get_template("drawing.html")
    if not is_informative(artifact):
        return Markup(template.render(note="All values are equal."))
    if isinstance(artifact, BrainMap):
        if not has_nilearn():
            note = f"Slices of the brain need nilearn: {install_line('maps')}"
            return Markup(template.render(note=note))
        artifact = artifact.locate(Path(folder))

    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with draw_artifact(artifact) as figure:
        buffer = StringIO()
        figure.savefig(buffer, format="svg", metadata=no_metadata)

    # the opening tag with addresses of namespaces is replaced by the template's
    _, _, element = buffer.getvalue().partition("<svg")
    _, _, shapes = element.partition(">")
    width_pt, height_pt = 72 * figure.get_size_inches()
    for colour, page_colour in PAGE_COLOURS.items():
        shapes = shapes.replace(colour, page_colour)
    view = f"0 0 {width_pt:g} {height_pt:g}"
    return Markup(template.render(title=artifact.title, view=view, shapes=shapes))


@contextmanager
def new_figure(title: str = "") -> Iterator[Any]:
    """Open an empty matplotlib figure, with the style of the package until the exit."""
    import matplotlib
    from matplotlib.figure import Figure  # pyplot would keep every figure in memory

    style = Path(__file__).with_name("figures.mplstyle")
    with matplotlib.rc_context(fname=style):
        # Height of a figure before the space of its labels is known.
        figure = Figure((WIDTH_INCH, 8))
        if title:
            figure.suptitle(_wrap(title))
        yield figure


@contextmanager
def draw_artifact(artifact: Drawable, title: str = "") -> Iterator[Any]:
    """Draw an artifact as a matplotlib figure.

    The style of the package is active until the `with` block ends.

    Args:
        artifact: Curve, matrix, or map of a head or brain.
        title: Title above the figure. Empty for a figure without a title.

    Yields:
        The figure of matplotlib.

    Raises:
        MissingExtra: if a map of the brain is drawn without nilearn.
    """
    with new_figure(title) as figure:
        match artifact:
            case Curve(style="bars"):
                _draw_bars(figure.subplots(), artifact)
            case Curve(style="dots"):
                _draw_dots(figure.subplots(), artifact)
            case Curve():
                _draw_lines(figure.subplots(), artifact)
            case Heatmap():
                _draw_matrix(figure.subplots(), artifact)
            case Topomap():
                _draw_head(figure.subplots(), artifact)
            case Evoked():
                draw_evoked(figure, artifact)
                title_inch = NAME_INCH * len(_wrap(title).splitlines())
                figure.set_figheight(figure.get_figheight() + title_inch)
            case BrainMap():
                _draw_brain(figure.subplots(), artifact)
        yield figure


def _set_plot_height(axes: Any, height_inch: float) -> None:
    """Set the height of the figure so that axes have a height between all labels."""
    figure = axes.figure
    figure.get_layout_engine().execute(figure)
    plot_inch = figure.get_figheight() * axes.get_position(original=True).height
    figure.set_figheight(figure.get_figheight() + height_inch - plot_inch)


def _draw_brain(axes: Any, brain_map: BrainMap) -> None:
    """Draw slices of the brain on black, below their unit."""
    if not has_nilearn():
        raise MissingExtra("slices of the brain need nilearn", install_line("maps"))
    axes.axis("off")
    axes.set_title(_wrap(brain_map.value))
    # Height of the slices by nilearn's name of their arrangement.
    panel_inch = {"ortho": 1.3, "x": 1.8, "y": 1.8, "z": 1.8}
    _set_plot_height(axes, panel_inch[choose_slices(brain_map)])

    # nilearn divides the axes, whose position must be final
    figure = axes.figure
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")
    draw_slices_at_peak(axes, brain_map)


def _add_legend(axes: Any) -> None:
    """Add a legend of two or more names below the figure, in up to 4 columns."""
    _, names = axes.get_legend_handles_labels()
    if len(names) > 1:
        n_letters = max(len(line) for name in names for line in name.split("\n"))
        # Number of small letters that fit into a row of the legend.
        legend_letters = 62
        # Width of a sign in the legend with its gaps, in letters.
        sign_letters = 9
        n_columns = legend_letters // (n_letters + sign_letters)
        axes.figure.legend(loc="outside lower left", ncols=min(max(1, n_columns), 4))


def _draw_lines(axes: Any, curve: Curve) -> None:
    """Draw lines with confidence bands."""
    positions = list(map(float, curve.at))
    labels = _label_lines(curve.lines)
    for line, (name, colour) in zip(curve.lines, labels, strict=True):
        axes.plot(
            positions,
            np.array(line.values, float),
            color=colour,
            label=name,
            # Largest number of points of a line that are drawn as dots.
            marker="o" if len(positions) <= 24 else "",
        )
        if line.low is not None and line.high is not None:
            axes.fill_between(
                positions,
                np.array(line.low, float),
                np.array(line.high, float),
                color=colour,
                alpha=0.2,
                linewidth=0,
            )

    # draw a chance level that several lines share once
    levels = [line.chance for line in curve.lines if line.chance is not None]
    for level in dict.fromkeys(levels):
        axes.axhline(level, label="chance", **BROKEN_LINE)

    # start the values at 0 unless all of them are far above it
    if curve.is_logarithmic:
        axes.set_xscale("log", base=2)
        axes.set_xticks(positions, list(map("{:g}".format, positions)))
    axes.margins(x=0.02)
    low, high = axes.get_ylim()
    # Largest ratio of the lowest to the highest value for which an axis starts at 0.
    if 0 < low < 0.6 * high:
        low = 0

    # name each mark and shaded span on a line of its own, above all values
    plot_inch = HEIGHT_INCH + NAME_INCH * len(curve.marks)
    axes.set_ylim(low, low + (high - low) * plot_inch / HEIGHT_INCH)
    centre = (positions[0] + positions[-1]) / 2 if positions else 0
    for row, (name, mark) in enumerate(curve.marks.items()):
        draw_mark(axes, mark)
        start = mark[0] if isinstance(mark, tuple) else mark
        axes.text(
            start,
            1 - row * NAME_INCH / plot_inch,
            f" {name} ",
            transform=axes.get_xaxis_transform(),
            ha="left" if start < centre else "right",  # towards the centre of the plot
            va="top",
            color=SOFT,
            fontsize="small",
        )

    axes.grid(axis="x", visible=False)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(_wrap(curve.axis))
    axes.set_title(_wrap(curve.value))
    _add_legend(axes)
    _set_plot_height(axes, plot_inch)


def _draw_bars(axes: Any, curve: Curve) -> None:
    """Draw a group of bars for each position."""
    n_lines = len(curve.lines)
    # Height of a bar.
    bar_inch = 0.13
    # Height of the gap between groups of bars.
    group_inch = bar_inch * n_lines + 0.08
    labels = _label_lines(curve.lines)
    for index, (line, (name, colour)) in enumerate(
        zip(curve.lines, labels, strict=True)
    ):
        bars_from_centre = index - (n_lines - 1) / 2
        offset = bars_from_centre * bar_inch / group_inch
        axes.barh(
            np.arange(len(curve.at)) + offset,
            np.array(line.values, float),
            0.9 * bar_inch / group_inch,
            label=name,
            color=colour,
            ecolor=INK,
            error_kw={"linewidth": 1},
            xerr=_list_errors(line),
        )

        if line.chance:
            axes.axvline(line.chance, **BROKEN_LINE)

    axes.axvline(0, color=SOFT, linewidth=1)
    axes.set_title(_wrap(curve.axis) if len(curve.at) > 1 else "")
    # Largest number of letters in the name of a group of bars.
    max_bar_letters = 24
    _label_rows(axes, curve, max_bar_letters, group_inch)


def _draw_dots(axes: Any, curve: Curve) -> None:
    """Draw a dot with its interval for each name.

    Each line has the values of some names, such as results and excluded methods.
    """
    for index, line in enumerate(curve.lines):
        colour = COLOURS[0] if index == 0 else CONTROL_COLOUR
        axes.errorbar(
            np.array(line.values, float),
            range(len(curve.at)),
            xerr=_list_errors(line),
            fmt="o",
            markersize=4,
            markerfacecolor=colour if index == 0 else "none",
            color=colour,
            elinewidth=1.2,
            label=line.name,
        )
        if line.chance is not None:
            axes.axvline(line.chance, **BROKEN_LINE)

    axes.set_xlim(left=min(0, axes.get_xlim()[0]))
    # Largest number of letters in the name of a dot.
    max_dot_letters = 30
    # Height of the row of a dot.
    _label_rows(axes, curve, max_dot_letters, 0.2)


def _list_errors(line: CurveLine) -> Float64 | None:
    """List the distances [2, N] of values from the ends of their intervals, or None."""
    if line.low is None or line.high is None:
        return None
    values = np.array(line.values, float)
    low_errors = values - np.array(line.low, float)
    high_errors = np.array(line.high, float) - values
    return np.maximum([low_errors, high_errors], 0)


def _label_rows(axes: Any, curve: Curve, max_letters: int, row_inch: float) -> None:
    """Name the positions of a curve as rows, the first at the top, and its values.

    Args:
        axes: Axes of matplotlib.
        curve: Curve with names as positions.
        max_letters: Largest number of letters of a name.
        row_inch: Height of a row.
    """
    names = list(map(str, curve.at))
    axes.set_yticks(range(len(names)), _shorten(names, max_letters))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(_wrap(curve.value))
    _add_legend(axes)
    _set_plot_height(axes, row_inch * len(names))


def _draw_matrix(axes: Any, matrix: Heatmap) -> None:
    """Draw a matrix with a colour bar, or with texts in its cells."""
    values = np.array(matrix.values, float)  # [R, C]
    n_rows, n_columns = values.shape
    axes.grid(visible=False)
    axes.set_facecolor("#a0a0a0")  # colour of missing values
    axes.spines[:].set_visible(False)
    colour_map, colour_range = _choose_colours(
        values, matrix.is_diverging, matrix.low, matrix.high
    )
    image = axes.imshow(values, colour_map, aspect="auto", interpolation="none")
    image.set_clim(colour_range)
    if matrix.level is not None:
        _draw_level(axes, values, matrix.level)

    # name as many rows and columns as have room; the names of columns are upright if
    # they do not fit side by side
    axes.set(xlabel=_wrap(matrix.column_axis), ylabel=_wrap(matrix.row_axis))
    # Largest number of matrix rows that are named in small letters.
    max_small_names = 72
    row_names = _thin_out(matrix.rows, max_small_names)
    # Largest number of matrix rows that are named in letters of normal size.
    max_large_names = 24
    has_small_rows = len(row_names) > max_large_names
    axes.set_yticks(
        list(row_names),
        list(row_names.values()),
        fontsize="xx-small" if has_small_rows else "medium",
    )
    # Largest number of matrix columns that are named in small letters.
    column_names = _thin_out(matrix.columns, 24)
    n_letters = max(map(len, column_names.values()), default=0) + 1
    axes.set_xticks(
        list(column_names),
        list(column_names.values()),
        # Largest number of matrix columns that are named in letters of normal size.
        fontsize="xx-small" if len(column_names) > 12 else "medium",
        rotation=90 if n_letters * len(column_names) > MAX_LINE_LETTERS else 0,
    )

    # Height of a matrix row whose name has small letters.
    row_inch = 0.09 if has_small_rows else NAME_INCH
    plot_inch = min(n_rows, max_small_names) * row_inch
    if n_rows == n_columns and n_rows > max_large_names:
        plot_inch = WIDTH_INCH * 0.7
    if matrix.texts:  # they hold the values
        figure = axes.figure
        figure.get_layout_engine().execute(figure)
        cell_inch = axes.bbox.width / figure.dpi / n_columns
        plot_inch = n_rows * _write_cells(axes, matrix, image, cell_inch)
    else:
        _add_colour_bar(axes, image, matrix.value)
    _set_plot_height(axes, max(HEIGHT_INCH, plot_inch))


def _thin_out(names: Sequence[str], max_names: int) -> dict[int, str]:
    """Choose names of rows or columns at equal distances, by their index.

    Args:
        names: Names in their order.
        max_names: Largest number of names. There are at most 6 numbers.
    """
    are_numbers = all(re.fullmatch(r"-?[\d.]+", name) for name in names)
    # Largest number of matrix rows or columns with a number.
    step = max(1, ceil(len(names) / (6 if are_numbers else max_names)))
    indices = range(0, len(names), step)
    # Largest number of letters in the name of a matrix row or column.
    max_cell_letters = 18
    labels = _shorten(names[::step], max_cell_letters)
    return dict(zip(indices, labels, strict=True))


def _draw_level(axes: Any, values: Float64, level: float) -> None:
    """Draw a line between the cells below a level and the others.

    Args:
        axes: Axes with a matrix.
        values: Values [R, C] of the cells.
        level: Value of the line.
    """
    is_high = values >= level
    rows, columns = np.nonzero(is_high[:, 1:] != is_high[:, :-1])
    # Style of the line between low and high cells of a matrix.
    level_line: dict[str, Any] = {
        "color": "#d55e00",
        "linewidth": 3,
        "capstyle": "projecting",
        "clip_on": False,
    }
    axes.vlines(columns + 0.5, rows - 0.5, rows + 0.5, **level_line)
    rows, columns = np.nonzero(is_high[1:] != is_high[:-1])
    axes.hlines(rows + 0.5, columns - 0.5, columns + 0.5, **level_line)


def _write_cells(axes: Any, matrix: Heatmap, image: Any, cell_inch: float) -> float:
    """Write the texts of a matrix into its cells, and return the height of a row.

    Args:
        axes: Axes with the matrix.
        matrix: Matrix with texts.
        image: Matrix as drawn by matplotlib.
        cell_inch: Width of a cell in inches.
    """
    lines = list(chain(*(text.split("\n") for text in chain(*matrix.texts))))
    max_letters = max(map(len, lines))
    # Largest font size of the texts in the cells of a matrix.
    max_cell_pt = 8
    # Width of a digit, as a share of the font size.
    font_pt = min(max_cell_pt, cell_inch * 72 / (0.64 * (max_letters + 0.5)))
    for (row, column), text in np.ndenumerate(matrix.texts):
        # write in white on dark cells, and in black on light cells
        colour = image.cmap(image.norm(matrix.values[row][column] or 0))
        # Weights of red, green and blue in the luminance of a colour (ITU-R BT.709).
        luminance = np.dot(colour[:3], (0.2126, 0.7152, 0.0722))
        axes.text(
            column,
            row,
            text,
            color="black" if luminance > 0.45 else "white",
            fontsize=font_pt,
            ha="center",
            va="center",
            linespacing=1.1,
        )
    n_lines = max(text.count("\n") + 1 for text in chain(*matrix.texts))
    return (n_lines + 0.7) * LINE_SHARE * font_pt / 72


def _draw_head(axes: Any, head: Topomap) -> None:
    """Draw values on a head with a colour bar."""
    points = [point for point in head.points if point.value is not None]
    values = [point.value for point in points]
    colour_map, colour_range = _choose_colours(values, head.is_diverging)
    mappable = draw_topography(axes, points, colour_map, colour_range)
    _add_colour_bar(axes, mappable, head.value)
    _set_plot_height(axes, WIDTH_INCH * 0.8)


def _choose_colours(
    values: Any, is_diverging: bool, low: float | None = None, high: float | None = None
) -> tuple[str, tuple[float, float]]:
    """Choose a colour map and the values of its first and last colour.

    Args:
        values: Values that are drawn. They may contain NaN.
        is_diverging: True for a range that is symmetric around 0, which is white.
        low: Value of the first colour. The default is the lowest value.
        high: Value of the last colour. The default is the highest value.

    Returns:
        Name of a colour map of matplotlib, and the range of values that it covers.
    """
    if low is None:
        low = float(np.nanmin(values))
    if high is None:
        high = float(np.nanmax(values))
    if is_diverging:
        largest = max(abs(low), abs(high))
        return "RdBu_r", (-largest, largest)
    return "viridis", (low, high)


def _add_colour_bar(axes: Any, mappable: Any, label: str) -> None:
    """Add a colour bar below the plot."""
    from matplotlib.ticker import MaxNLocator

    bar = axes.figure.colorbar(
        mappable,
        ax=axes,
        location="bottom",
        aspect=40,
        pad=0.015,
        ticks=MaxNLocator(4),
        format="{x:g}",
        label=_wrap(label),
    )
    bar.outline.set_visible(False)


def _label_lines(lines: Sequence[CurveLine]) -> list[tuple[str, str]]:
    """Choose the legend name and the colour of each line.

    Controls, such as results on shuffled signals, are grey.
    """
    labels = []
    n_coloured = 0
    for line in lines:
        # Name of a cell, which is a trained model of a subject and a seed.
        name = re.sub(r"sub-0*(\d+)_seed-(\d+)", r"subject \1, seed \2", line.name)
        name = name.replace("all_seed-", "all subjects, seed ")
        # Beginnings of the names of control lines. A name that contains `on shuffled`
        # is a control, too.
        if line.name.startswith(("shuffled", "guessing")) or "on shuffled" in line.name:
            colour = CONTROL_COLOUR
        else:
            colour = COLOURS[n_coloured % (len(COLOURS) - 1)]
            n_coloured += 1
        labels.append((_wrap(name), colour))
    return labels


def _wrap(text: str) -> str:
    """Break a text into lines of at most `MAX_LINE_LETTERS` letters."""
    return textwrap.fill(bind_numbers(text), MAX_LINE_LETTERS)


def _shorten(names: Sequence[str], max_letters: int) -> list[str]:
    """Cut out the middle of names that are longer than `max_letters`."""
    half = max_letters // 2
    short_names = []
    for name in names:
        is_long = len(name) > max_letters
        short_names.append(f"{name[: half - 1]}…{name[-half:]}" if is_long else name)
    return short_names


@dataclass(frozen=True)
class DrawnTile:
    """Tile of a sheet: a picture with text below it, or only text.

    Attributes:
        picture: Pillow image or array [H, W, 3], shown as a square. None for only text.
        lines: Lines of text. Long lines are broken.
        frame: Colour of the frame of the picture.
        sides: Width of the tile, in multiples of the width of a picture.
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
    """Save a sheet: rows of tiles below a title.

    Args:
        title: Title above all rows.
        rows: Tiles of each row, from top to bottom. A row without tiles is a gap.
        path: File to write. The suffix selects the format: png, pdf or svg.
        width_inch: Width of the sheet, or 0 for tiles of `SIDE_INCH`.
        dpi: Resolution in pixels per inch.
    """
    from matplotlib.patches import Rectangle

    # Gap between tiles, as a share of the side of a tile.
    gap_share = 0.06
    # lengths without unit are in sides of a tile
    row_widths = [sum(tile.sides + gap_share for tile in row) for row in rows]
    width = gap_share + max(row_widths, default=1)
    side_inch = width_inch / width or SIDE_INCH
    # Font size of the text below a tile.
    text_pt = 5.5
    # Width of a wide letter, as a share of the font size.
    letters_per_side = side_inch * 72 / (0.68 * text_pt)
    line_height = LINE_SHARE * text_pt / 72 / side_inch

    with new_figure() as figure:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        title_row = [DrawnTile(None, [title], sides=int(width))]
        top = gap_share
        for row in [title_row] + list(rows):
            left = gap_share
            row_bottom = top
            for tile in row:
                text_top = top
                if tile.picture is not None:
                    text_top += 1
                    axes.imshow(tile.picture, extent=(left, left + 1, text_top, top))
                    axes.add_patch(
                        Rectangle((left, top), 1, 1, fill=False, edgecolor=tile.frame)
                    )

                max_letters = int(tile.sides * letters_per_side)
                text = "\n".join(
                    textwrap.fill(line, max_letters) for line in tile.lines
                )
                axes.text(
                    left,
                    text_top + line_height / 4,
                    text,
                    fontsize=text_pt,
                    va="top",
                    linespacing=LINE_SHARE,
                )
                text_bottom = text_top + line_height * len(text.splitlines())
                row_bottom = max(row_bottom, text_bottom)
                left += tile.sides + gap_share
            top = row_bottom + gap_share

        axes.axis("off")
        axes.set(xlim=(0, width), ylim=(top, 0), aspect="auto")
        figure.set_size_inches(width_inch or width * side_inch, top * side_inch)
        write_figure(figure, path, dpi)
