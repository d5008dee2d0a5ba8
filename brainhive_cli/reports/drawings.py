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
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.artifacts import (
    Artifact,
    BrainMap,
    Curve,
    CurveLine,
    Evoked,
    Heatmap,
    Sheet,
    Topomap,
)
from brainhive_cli.core.tables import bind_numbers
from brainhive_cli.reports.brain_slices import (
    PANEL_INCH,
    choose_slices,
    draw_slices_at_peak,
    has_nilearn,
    read_brain_map,
)
from brainhive_cli.reports.sensor_plots import (
    BUTTERFLY_INCH,
    TOPOGRAPHY_INCH,
    draw_joint_plot,
    draw_topography,
)
from brainhive_cli.reports.tables import templates

if TYPE_CHECKING:  # importing it loads h5py
    from brainhive_cli.data.signals.spaces import Grid

Drawable = Curve | Heatmap | Topomap | Evoked | BrainMap

WIDTH_INCH = 3.5
"""Width of every figure: 89 mm, the column width of most journals. Letters stay
readable when the figure fills half a slide.
"""
HEIGHT_INCH = 1.4
"""Height of a plot of lines, and smallest height of a matrix with names."""
LAYOUT_HEIGHT_INCH = 8
"""Height of a figure during layout, with room for any title, legend and names."""
PNG_DPI = 600
"""Resolution of PNG files. A figure is 2,100 pixels wide, which journals ask for and
which is sharp on a slide of 1,920 pixels.
"""
LINE_INCH = 0.16
"""Height of a line of text above slices of the brain."""
BAR_INCH = 0.13
"""Height of a bar."""
DOT_ROW_INCH = 0.2
"""Height of the row of a dot."""
GROUP_GAP_INCH = 0.08
"""Height of the gap between groups of bars."""
MAX_SLICES = 12
"""Largest number of slices that are drawn of a volume."""
SLICES_PER_ROW = 4
"""Number of slices in a row of the mosaic."""
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
INK, SOFT, GRID = "#1c1f23", "#5d6570", "#d9dde2"
PAGE_COLOURS = {
    **{colour: f"var(--c{index})" for index, colour in enumerate(COLOURS)},
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    GRID: "var(--line)",
}
"""CSS variable of the page for each colour of a figure. The style sheet defines the
variables for light mode, dark mode and print.
"""
STYLE = Path(__file__).with_name("figures.mplstyle")
NAME_INCH = 0.15
"""Height of a matrix row, or of the name of a mark."""
SMALL_NAME_INCH = 0.09
"""Height of a matrix row whose name has small letters."""
MAX_NAMES = 24
"""Largest number of matrix rows that are named in letters of normal size."""
MAX_SMALL_NAMES = 72
"""Largest number of matrix rows that are named in small letters."""
MAX_LINE_LETTERS = 42
"""Largest number of letters per line of a title, a legend or an axis label."""
MAX_BAR_LETTERS = 24
"""Largest number of letters in the name of a group of bars."""
MAX_DOT_LETTERS = 30
"""Largest number of letters in the name of a dot."""
MAX_CELL_LETTERS = 18
"""Largest number of letters in the name of a matrix row or column."""
MAX_CELL_PT = 8
"""Largest font size of the texts in the cells of a matrix."""
LUMINANCE_WEIGHTS = (0.2126, 0.7152, 0.0722)
"""Weights of red, green and blue in the luminance of a colour (ITU-R BT.709)."""
MAX_DOTS = 24
"""Largest number of points of a line that are drawn as dots."""
SMALL = {"color": SOFT, "fontsize": "small"}
LEVEL_LINE: dict[str, Any] = {"color": "#d55e00", "linewidth": 3, "clip_on": False}
"""Style of the line between low and high cells of a matrix."""
BROKEN_LINE = {"color": SOFT, "linestyle": (0, (4, 3)), "linewidth": 1}
CONTROL_PREFIXES = ("shuffled", "guessing")
"""Beginnings of the names of control lines. A name that contains `on shuffled` is a
control, too.
"""
CELL_NAME = re.compile(r"sub-0*(\d+)_seed-(\d+)")
"""Name of a cell, which is a trained model of a subject and a seed."""
MAX_ZERO_SHARE = 0.6
"""Largest ratio of the lowest to the highest value for which an axis starts at 0."""
SIDE_INCH = 0.985
"""Side of a tile of a sheet: 128 pixels at `SHEET_DPI`."""
FONT_PT = 5.5
"""Font size of the text below a tile."""
SHEET_DPI = 130
"""Resolution of a sheet."""
LETTER_SHARE = 0.68
"""Width of a wide letter, as a share of the font size."""
DIGIT_SHARE = 0.64
"""Width of a digit, as a share of the font size."""
LINE_SHARE = 1.2
"""Height of a line of text, as a share of the font size."""
GAP_SHARE = 0.06
"""Gap between tiles, as a share of the side of a tile."""


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
    values = _to_numbers(list(chain(*rows)))
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
        The element. If `is_informative` returns False, a paragraph that says that all
        values are equal.
    """
    template = templates().get_template("drawing.html")
    if isinstance(artifact, BrainMap):
        artifact = artifact.locate(Path(folder))
    if not is_informative(artifact):
        return Markup(template.render())

    with draw_artifact(artifact) as figure:
        buffer = StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    view_box = re.search('viewBox="[^"]*"', svg)

    # drop the opening tag, the metadata and the ids
    shapes = re.sub(r"^.*?<svg[^>]*>", "", svg, flags=re.DOTALL)
    shapes = re.sub(r"<metadata>.*?</metadata>", "", shapes, flags=re.DOTALL)
    shapes = re.sub(r'<g id="[^"]*">', "<g>", shapes)

    # use the font and colours of the page, and cut coordinates to two decimals
    shapes = re.sub(r"'DejaVu Sans'(?:, [^;\"]*)?", "system-ui, sans-serif", shapes)
    shapes = re.sub(
        "#[0-9a-f]{6}", lambda match: PAGE_COLOURS.get(match[0], match[0]), shapes
    )
    shapes = re.sub(
        ' d="[^"]*"', lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), shapes
    )
    shapes = re.sub(r"\s*\n\s*([A-Z])", r"\1", shapes)
    view = view_box[0] if view_box else ""
    return Markup(template.render(view=view, title=artifact.title, shapes=shapes))


@contextmanager
def new_figure(title: str = "") -> Iterator[Any]:
    """Open an empty matplotlib figure, with the style of the package until the exit."""
    import matplotlib
    from matplotlib.figure import Figure  # pyplot would keep every figure in memory

    with matplotlib.rc_context(fname=STYLE):
        figure = Figure((WIDTH_INCH, LAYOUT_HEIGHT_INCH), layout="constrained")
        if title:
            figure.suptitle(_wrap(title), fontsize="medium")
        yield figure


@contextmanager
def draw_artifact(artifact: Drawable, title: str = "") -> Iterator[Any]:
    """Draw an artifact as a matplotlib figure in which no names overlap.

    The style of the package is active until the `with` block ends.

    Args:
        artifact: Curve, matrix or map of values on a head.
        title: Title above the figure. Empty for a figure without a title.

    Yields:
        The figure of matplotlib.
    """
    if isinstance(artifact, Evoked):
        with _draw_evoked(artifact, title) as figure:
            yield figure
        return
    if isinstance(artifact, BrainMap):
        if has_nilearn():
            with _draw_brain(artifact, title) as figure:
                yield figure
            return
        values, grid = read_brain_map(artifact)
        artifact = draw_slices(
            artifact.title,
            values,
            grid,
            f"{artifact.value} (without the anatomy, which needs nilearn)",
            is_diverging=artifact.is_diverging,
        )

    with new_figure(title) as figure:
        # the functions return the height that the axes should have
        axes = figure.subplots()
        match artifact:
            case Curve(style="bars"):
                plot_inch = _draw_bars(axes, artifact)
            case Curve(style="dots"):
                plot_inch = _draw_dots(axes, artifact)
            case Curve():
                plot_inch = _draw_lines(axes, artifact)
            case Heatmap():
                plot_inch = _draw_matrix(figure, axes, artifact)
            case Topomap():
                plot_inch = _draw_head(figure, axes, artifact)
        _add_legend(figure, axes)

        # correct the height of the figure by the error in the height of the axes
        layout = figure.get_layout_engine()
        layout.execute(figure)
        height_inch = figure.get_figheight() * axes.get_position(original=True).height
        figure.set_figheight(figure.get_figheight() + plot_inch - height_inch)

        # hide names that still overlap
        layout.execute(figure)
        for panel in figure.axes:
            for labels in (
                panel.get_xticklabels(),
                panel.get_yticklabels(),
                panel.texts,
            ):
                for label in _find_overlapping(labels):
                    label.set_visible(False)
        figure.set_layout_engine("none")
        yield figure


@contextmanager
def _draw_evoked(evoked: Evoked, title: str) -> Iterator[Any]:
    """Draw a butterfly plot below topographies, and below a title."""
    title_lines = _wrap(title)
    title_inch = LINE_INCH * (1 + title_lines.count("\n")) if title else 0
    n_topographies = len(evoked.topography_ms) if evoked.positions else 0
    body_inch = BUTTERFLY_INCH + (TOPOGRAPHY_INCH if n_topographies else 0)
    with new_figure() as figure:
        figure.set_layout_engine("none")
        figure.set_size_inches(WIDTH_INCH, title_inch + body_inch)
        figure.text(0, 1, title_lines, fontsize="medium", va="top")
        draw_joint_plot(figure, evoked, body_inch)
        yield figure


@contextmanager
def _draw_brain(brain_map: BrainMap, title: str) -> Iterator[Any]:
    """Draw slices of the brain on black, below their title and unit."""
    panel_inch = PANEL_INCH[choose_slices(brain_map)]
    with new_figure() as figure:
        figure.set_layout_engine("none")
        label = _wrap(brain_map.value)
        title_lines = _wrap(title)
        head_inch = LINE_INCH * (1 + label.count("\n"))
        if title:
            head_inch += LINE_INCH * (1 + title_lines.count("\n"))
        height_inch = head_inch + panel_inch
        figure.set_size_inches(WIDTH_INCH, height_inch)
        figure.text(0, 1, title_lines, fontsize="medium", va="top")
        share = 1 - head_inch / height_inch
        figure.text(0, share + 0.02, label, va="bottom", **SMALL)
        draw_slices_at_peak(figure, brain_map, share)
        yield figure


def _add_legend(figure: Any, axes: Any) -> None:
    """Add a legend of two or more names below the figure, in up to 4 columns."""
    if len(axes.get_legend_handles_labels()[1]) < 2:
        return
    for columns in (4, 3, 2, 1):
        legend = figure.legend(loc="outside lower left", ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def _find_overlapping(labels: Sequence[Any]) -> list[Any]:
    """List the labels to hide, because they overlap an earlier visible label.

    Args:
        labels: Text objects of matplotlib.
    """
    overlapping: list[Any] = []
    boxes: list[Any] = []
    for label in labels:
        box = label.get_window_extent()
        if label.get_text() and box.count_overlaps(boxes):
            overlapping.append(label)
            continue

        # keep 4 pixels between neighbours, along the direction of the axis
        width_px, height_px = (0, 4) if label.get_rotation() else (4, 0)
        boxes.append(box.padded(width_px, height_px))
    return overlapping


def _draw_lines(axes: Any, curve: Curve) -> float:
    """Draw lines with confidence bands, and return the height of the plot in inches."""
    positions = list(map(float, curve.at))
    labels = _label_lines(curve.lines)
    for line, (name, colour) in zip(curve.lines, labels, strict=True):
        axes.plot(
            positions,
            _to_numbers(line.values),
            linewidth=1.6,
            color=colour,
            label=name,
            marker="o" if len(positions) <= MAX_DOTS else "",
            markersize=3,
        )
        if line.low is not None and line.high is not None:
            axes.fill_between(
                positions,
                _to_numbers(line.low),
                _to_numbers(line.high),
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
    if 0 < low < MAX_ZERO_SHARE * high:
        low = 0

    # name each mark and shaded span on a line of its own, above all values
    centre = (positions[0] + positions[-1]) / 2 if positions else 0
    for row, (name, mark) in enumerate(curve.marks.items()):
        start, stop = mark if isinstance(mark, tuple) else (mark, None)
        if stop is not None:
            axes.axvspan(start, stop, color=SOFT, alpha=0.15, linewidth=0)
        axes.axvline(start, color=SOFT, linestyle=":", linewidth=1)
        axes.annotate(
            f" {name} ",
            (start, 1),
            xytext=(0, -row * NAME_INCH * 72),
            textcoords="offset points",
            xycoords=("data", "axes fraction"),
            ha="left" if start < centre else "right",  # towards the centre of the plot
            va="top",
            **SMALL,
        )
    names_inch = NAME_INCH * len(curve.marks)
    axes.set_ylim(low, high + (high - low) * names_inch / HEIGHT_INCH)

    axes.grid(axis="x", visible=False)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(_wrap(curve.axis))
    axes.set_title(_wrap(curve.value), **SMALL)
    return HEIGHT_INCH + names_inch


def _draw_bars(axes: Any, curve: Curve) -> float:
    """Draw a group of bars for each position, and return their height in inches."""
    n_lines = len(curve.lines)
    names = list(map(str, curve.at))
    group_inch = BAR_INCH * n_lines + GROUP_GAP_INCH
    labels = _label_lines(curve.lines)
    for index, (line, (name, colour)) in enumerate(
        zip(curve.lines, labels, strict=True)
    ):
        bars_from_centre = index - (n_lines - 1) / 2
        positions = np.arange(len(names)) + bars_from_centre * BAR_INCH / group_inch
        values = _to_numbers(line.values)
        axes.barh(
            positions,
            values,
            0.9 * BAR_INCH / group_inch,
            label=name,
            color=colour,
            ecolor=INK,
            error_kw={"linewidth": 1},
            xerr=_list_errors(line),
        )

    # draw a chance level that several lines share once
    levels = [line.chance for line in curve.lines if line.chance]
    for level in dict.fromkeys(levels):
        axes.axvline(level, **BROKEN_LINE)

    axes.axvline(0, color=SOFT, linewidth=1)
    _label_rows(axes, curve, MAX_BAR_LETTERS)
    axes.set_title(_wrap(curve.axis) if len(names) > 1 else "", **SMALL)
    return group_inch * len(names)


def _draw_dots(axes: Any, curve: Curve) -> float:
    """Draw a dot with its interval for each name, and return the height in inches.

    Each line has the values of some names, such as results and excluded methods.
    """
    names = list(map(str, curve.at))
    for index, line in enumerate(curve.lines):
        values = _to_numbers(line.values)
        colour = COLOURS[0] if index == 0 else CONTROL_COLOUR
        axes.errorbar(
            values,
            range(len(names)),
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
    _label_rows(axes, curve, MAX_DOT_LETTERS)
    return DOT_ROW_INCH * len(names)


def _list_errors(line: CurveLine) -> Float64 | None:
    """List the distances [2, N] of values from the ends of their intervals, or None."""
    if line.low is None or line.high is None:
        return None
    values = _to_numbers(line.values)
    low_errors = values - _to_numbers(line.low)
    high_errors = _to_numbers(line.high) - values
    return np.maximum([low_errors, high_errors], 0)


def _label_rows(axes: Any, curve: Curve, max_letters: int) -> None:
    """Name the positions of a curve as rows, the first at the top, and its values.

    Args:
        axes: Axes of matplotlib.
        curve: Curve with names as positions.
        max_letters: Largest number of letters of a name.
    """
    names = list(map(str, curve.at))
    axes.set_yticks(range(len(names)), _shorten(names, max_letters))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(_wrap(curve.value))


def _draw_matrix(figure: Any, axes: Any, matrix: Heatmap) -> float:
    """Draw a matrix with a colour bar, and return the height of the plot in inches.

    A matrix without names and axis labels is drawn as a picture.
    """
    values = np.array(list(map(_to_numbers, matrix.values)))  # [rows, columns]
    axes.grid(visible=False)
    is_picture = not (
        matrix.rows or matrix.columns or matrix.row_axis or matrix.column_axis
    )
    axes.set_facecolor("none" if is_picture else "#a0a0a0")  # colour of missing values
    colour_map, colour_range = _choose_colours(
        values, matrix.is_diverging, matrix.low, matrix.high
    )
    image = axes.imshow(
        values,
        colour_map,
        aspect="equal" if is_picture else "auto",
        interpolation="none",
    )
    image.set_clim(colour_range)

    if matrix.level is not None:
        _draw_level(axes, values, matrix.level)

    axes.tick_params(length=0)
    axes.set(xlabel=_wrap(matrix.column_axis), ylabel=_wrap(matrix.row_axis))
    axes.spines[:].set_visible(False)
    if not matrix.texts:  # they hold the values
        _add_colour_bar(figure, axes, image, matrix.value)

    # show at most seven numbers, or as many names as fit in small letters
    for names, axis in ((matrix.rows, axes.yaxis), (matrix.columns, axes.xaxis)):
        max_labels = 7 if _are_numbers(names) else MAX_SMALL_NAMES
        step = max(1, ceil(len(names) / max_labels))
        labels = _shorten(names[::step], MAX_CELL_LETTERS)
        axis.set_ticks(range(0, len(names), step), labels=labels)
    if len(matrix.rows) > MAX_NAMES and not _are_numbers(matrix.rows):
        axes.tick_params(axis="y", labelsize="xx-small")

    # rotate column names that overlap, and shrink them if the columns are narrow
    figure.get_layout_engine().execute(figure)
    if not _are_numbers(matrix.columns) and _find_overlapping(axes.get_xticklabels()):
        is_narrow = axes.bbox.width / figure.dpi < NAME_INCH * len(axes.get_xticks())
        axes.tick_params(
            axis="x", rotation=90, labelsize="xx-small" if is_narrow else "medium"
        )

    n_rows, n_columns = values.shape
    if is_picture:
        return min(WIDTH_INCH * n_rows / n_columns, WIDTH_INCH)
    if matrix.texts:
        figure.get_layout_engine().execute(figure)
        cell_inch = axes.bbox.width / figure.dpi / n_columns
        text_inch = _write_cells(axes, matrix, image, cell_inch)
        return max(HEIGHT_INCH, n_rows * text_inch)
    if n_rows == n_columns and n_rows > MAX_NAMES:
        return WIDTH_INCH * 0.7
    row_inch = NAME_INCH if n_rows <= MAX_NAMES else SMALL_NAME_INCH
    return max(HEIGHT_INCH, min(n_rows, MAX_SMALL_NAMES) * row_inch)


def _draw_level(axes: Any, values: Float64, level: float) -> None:
    """Draw a line between the cells below a level and the others.

    Args:
        axes: Axes with a matrix.
        values: Values [R, C] of the cells.
        level: Value of the line.
    """
    is_high = values >= level
    for row, column in np.argwhere(is_high[:, 1:] != is_high[:, :-1]):
        axes.plot([column + 0.5] * 2, [row - 0.5, row + 0.5], **LEVEL_LINE)
    for row, column in np.argwhere(is_high[1:] != is_high[:-1]):
        axes.plot([column - 0.5, column + 0.5], [row + 0.5] * 2, **LEVEL_LINE)


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
    font_pt = min(MAX_CELL_PT, cell_inch * 72 / (DIGIT_SHARE * (max_letters + 0.5)))
    for row, row_texts in enumerate(matrix.texts):
        for column, text in enumerate(row_texts):
            # write in white on dark cells, and in black on light cells
            colour = image.cmap(image.norm(matrix.values[row][column] or 0))
            luminance = np.dot(colour[:3], LUMINANCE_WEIGHTS)
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


def _are_numbers(names: Sequence[str]) -> bool:
    """Return True if all names are numbers, such as `-0.5`."""
    return all(re.fullmatch(r"-?[\d.]+", name) for name in names)


def _draw_head(figure: Any, axes: Any, head: Topomap) -> float:
    """Draw values on a head with a colour bar, and return the height in inches."""
    values = _to_numbers([point.value for point in head.points])  # [C]
    colour_map, colour_range = _choose_colours(values, head.is_diverging)
    positions = np.array([[point.x, point.y] for point in head.points])  # [C, 2]
    mappable, positions_m = draw_topography(
        axes, positions, values, colour_map, colour_range
    )

    # name each sensor in black
    for point, position in zip(head.points, positions_m, strict=True):
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
    _add_colour_bar(figure, axes, mappable, head.value)
    return WIDTH_INCH * 0.8


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


def _add_colour_bar(figure: Any, axes: Any, mappable: Any, label: str) -> None:
    """Add a colour bar below the plot."""
    from matplotlib.ticker import MaxNLocator

    bar = figure.colorbar(
        mappable, ax=axes, location="bottom", aspect=40, pad=0.015, format="{x:g}"
    )
    bar.set_label(_wrap(label))
    bar.locator = MaxNLocator(4)
    bar.update_ticks()
    bar.outline.set_visible(False)


def _label_lines(lines: Sequence[CurveLine]) -> list[tuple[str, str]]:
    """Choose the legend name and the colour of each line.

    Controls, such as results on shuffled signals, are grey.
    """
    labels = []
    n_coloured = 0
    for line in lines:
        name = CELL_NAME.sub(r"subject \1, seed \2", line.name)
        name = name.replace("all_seed-", "all subjects, seed ")
        if line.name.startswith(CONTROL_PREFIXES) or "on shuffled" in line.name:
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


def _to_numbers(values: Sequence[Any]) -> Any:
    """Convert values to a float array, with NaN for None."""
    return np.array([np.nan if value is None else value for value in values], float)


def draw_slices(
    title: str,
    values: Float64,
    grid: "Grid",
    unit: str,
    low: float | None = None,
    is_diverging: bool = False,
) -> Heatmap:
    """Draw voxel values on up to `MAX_SLICES` axial slices, from bottom to top.

    Args:
        title: Title of the figure.
        values: Values [V] of the voxels.
        grid: Positions of the voxels in a volume.
        unit: Unit of the values.
        low: Value of the first colour. The default is the lowest value.
        is_diverging: True for different colours of negative and positive values.
    """
    import nibabel

    # index of the voxel at each position, or -1; x points right, y front and z up
    voxel_indices = np.full(grid.shape, -1)
    voxel_indices[tuple(grid.indices.T)] = np.arange(len(values))
    voxel_indices = nibabel.apply_orientation(
        voxel_indices, nibabel.io_orientation(grid.affine)
    )

    # crop the volume to the voxels
    positions = np.argwhere(voxel_indices >= 0)  # [V, 3]
    ranges = map(slice, positions.min(0), positions.max(0) + 1)
    voxel_indices = voxel_indices[tuple(ranges)]

    # divide the slices that hold voxels into equal parts, and take the middle of each
    depth = voxel_indices.shape[2]
    all_heights = np.flatnonzero((voxel_indices >= 0).any((0, 1)))
    n_slices = min(MAX_SLICES, len(all_heights))
    middles = ((np.arange(n_slices) + 0.5) * len(all_heights) / n_slices).astype(int)
    heights = all_heights[middles]

    # each slice has an empty pixel to the right and below
    padded_values = np.append(values, np.nan)  # index -1 gives NaN
    slices = []
    for height in heights:
        picture = padded_values[voxel_indices[:, ::-1, height].T]
        slices.append(np.pad(picture, (0, 1), constant_values=np.nan))

    # fill the last row of the mosaic with empty slices
    n_columns = min(len(heights), SLICES_PER_ROW)
    slices += [np.full_like(slices[0], np.nan)] * (-len(slices) % n_columns)
    starts = range(0, len(slices), n_columns)
    mosaic = np.block([slices[start : start + n_columns] for start in starts])
    pixels = mosaic.astype(object)
    pixels[np.isnan(mosaic)] = None

    is_complete = n_slices == depth
    selection = "Axial slices" if is_complete else f"{n_slices} of {depth} axial slices"
    note = f"{selection} from bottom to top. The nose is up, and left is left."
    return Heatmap(
        title,
        pixels.tolist(),
        value=unit,
        low=low,
        is_diverging=is_diverging,
        note=note,
    )


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

    # lengths without unit are in sides of a tile
    row_widths = [sum(tile.sides + GAP_SHARE for tile in row) for row in rows]
    width = GAP_SHARE + max(row_widths, default=1)
    side_inch = width_inch / width or SIDE_INCH
    letters_per_side = side_inch * 72 / (LETTER_SHARE * FONT_PT)
    line_height = LINE_SHARE * FONT_PT / 72 / side_inch

    with new_figure() as figure:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        title_row = [DrawnTile(None, [title], sides=int(width))]
        top = GAP_SHARE
        for row in [title_row] + list(rows):
            left = GAP_SHARE
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
                    fontsize=FONT_PT,
                    va="top",
                    linespacing=LINE_SHARE,
                )
                text_bottom = text_top + line_height * len(text.splitlines())
                row_bottom = max(row_bottom, text_bottom)
                left += tile.sides + GAP_SHARE
            top = row_bottom + GAP_SHARE

        axes.axis("off")
        axes.set(xlim=(0, width), ylim=(top, 0), aspect="auto")
        figure.set_size_inches(width_inch or width * side_inch, top * side_inch)
        write_figure(figure, path, dpi)
