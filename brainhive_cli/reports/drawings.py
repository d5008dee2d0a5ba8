"""Figures of artifacts, by matplotlib: as SVG in the colours of a page, or as files for papers."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

from brainhive_cli.core.arrays import Float64
from brainhive_cli.core.artifacts import Curve, Heatmap, Line, Map

if TYPE_CHECKING:  # which loads h5py
    from brainhive_cli.data.spaces import Grid

Drawable = Curve | Heatmap | Map


FONT_PT = 8.5
"""Size of the letters."""
WIDTH_INCH, HEIGHT_INCH, SQUARE_INCH = 3.5, 2.3, 3.5
"""Width of every figure, on a page and as a file: 89 mm, the column of most journals, whose letters are still
large on half a slide; height of lines, and of matrices, maps and heads."""
PNG_DPI = 600
"""Pixels an inch: 2100 across, which journals ask for and a slide of 1920 pixels shows sharply."""
BAR_INCH, GROUP_INCH = 0.13, 0.08
"""Height of a bar, and of the gap between groups of bars."""
MAX_SLICES, SLICES_IN_ROW = 12, 4
"""Slices of a volume that are drawn, and slices in a row of the mosaic."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#6a51a3", "#7f7f7f")
"""Colours of series: Okabe and Ito (2008), which colour-blind readers distinguish, and two more."""
CONTROL_COLOUR = COLOURS[-1]
INK, SOFT, GRID = "#1c1f23", "#5d6570", "#d9dde2"
PAGE_COLOURS = {
    **{colour: f"var(--c{index})" for index, colour in enumerate(COLOURS)},
    **{INK: "var(--ink)", SOFT: "var(--soft)", GRID: "var(--line)"},
}
"""The page's variable for each colour of a figure; its style sheet has them for light, dark and print."""
STYLE = Path(__file__).with_name("figures.mplstyle")
LEGEND_INCH, NAME_INCH, SMALL_NAME_INCH = 0.17, 0.13, 0.085
"""Height of a line of a legend, and of a named row of a matrix in letters of usual and of small size."""
MAX_NAMES, MAX_SMALL_NAMES, MAX_LETTERS = 24, 72, 24
"""Names of rows or columns that can be read next to a matrix, those of rows that can in small letters, and
letters of a name."""
MAX_DOTS = 24
"""Points up to which each point of a line has a dot."""
SMALL = {"color": SOFT, "fontsize": "small"}
BROKEN = {"color": SOFT, "linestyle": (0, (4, 3)), "linewidth": 1}
CONTROLS = ("shuffled", "guessing")
"""Beginnings of the names of lines that show no effect; `on shuffled` inside a name marks one too."""
LEGEND_LETTERS, SAMPLE_LETTERS = 56, 9
"""Letters in one line of a legend, and width of a line's sample with the gaps around it."""
LETTER_SHARE, LINE_SHARE = 0.55, 1.2
"""Width of a letter of a title and height of its line, as shares of the size of the font."""
CELL = re.compile(r"sub-0*(\d+)_seed-(\d+)")
"""The name of a subject's cell."""
HEAD_M, MIN_SENSORS = 0.095, 4
"""Radius of mne's head, and the fewest values that it interpolates."""
MARK_SHARE = 0.13
"""Height of the name of a mark, as a share of the height of the values."""
ZERO_SHARE = 0.6
"""An axis starts at 0 unless its lowest value is above this share of its highest."""


def save_figure(artifact: Drawable, path: Path) -> None:
    """Save an artifact as a file, by the path's suffix: pdf, svg, png; with its title, on white paper."""
    with _drawn(artifact) as figure:
        write_figure(figure, artifact.title, path)


def write_figure(figure: Any, title: str, path: Path) -> None:
    """Write a figure of matplotlib by the path's suffix, below its title; equal figures are equal files."""
    # the title above all, in lines that fit; the figure grows by them
    lines = textwrap.wrap(title, int(WIDTH_INCH * 72 / (FONT_PT * LETTER_SHARE))) or [""]
    figure.set_figheight(figure.get_figheight() + len(lines) * LINE_SHARE * FONT_PT / 72)
    figure.suptitle("\n".join(lines), fontsize="medium")

    # no dates in files
    dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
    figure.savefig(path, facecolor="white", dpi=PNG_DPI, metadata=dates)


def has_values(artifact: Drawable) -> bool:
    """Whether there is anything to draw."""
    match artifact:
        case Curve(lines=lines):
            return any(value is not None for line in lines for value in line.values)
        case Heatmap(values=values):
            return any(value is not None for row in values for value in row)
        case _:
            return bool(artifact.points)


def svg_of(artifact: Drawable) -> Markup:
    """Draw an artifact as an SVG element whose colours are the page's variables.

    The points of a map without a head are links to `#0`, `#1` …, in the order of the artifact. Of an artifact
    without any value nothing is drawn.
    """
    # write a note instead where nothing was measured
    if not has_values(artifact):
        return Markup('<p class="note">no values</p>')

    # let matplotlib write the figure, and split its root element from the shapes
    with _drawn(artifact) as figure:
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    head, _, drawn = text.getvalue().partition("<svg")[2].partition(">")

    # drop ids, take the page's font and colours, and round coordinates to two decimals
    view = re.search('viewBox="[^"]*"', head)
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'<g id="[^"]*">', "<g>", drawn)  # the same ids in each figure
    drawn = re.sub(r"'DejaVu Sans'(?:, [^;\"]*)?", "system-ui, sans-serif", drawn)
    drawn = re.sub("#[0-9a-f]{6}", lambda colour: PAGE_COLOURS.get(colour[0], colour[0]), drawn)
    drawn = re.sub(' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), drawn)
    return Markup(f'<svg {view[0] if view else ""} role="img" aria-label="{escape(artifact.title)}">{drawn}')


@contextmanager
def new_figure(height_inch: float) -> Iterator[Any]:
    """Open a figure of matplotlib in the style of all figures, and keep that style until the block ends."""
    import matplotlib
    from matplotlib.figure import Figure  # no pyplot: it keeps figures

    style = matplotlib.rc_params_from_file(STYLE, use_default_template=False)
    with matplotlib.rc_context({**style, "font.size": FONT_PT}):
        yield Figure((WIDTH_INCH, height_inch), layout="constrained")


@contextmanager
def _drawn(artifact: Drawable) -> Iterator[Any]:
    with new_figure(_height_inch(artifact)) as figure:
        axes = figure.subplots()
        match artifact:
            case Curve(style=style, lines=lines):
                (_draw_bars if style == "bars" else _draw_lines)(axes, artifact)
                if len(lines) > 1 or (style == "lines" and lines[0].chance is not None):
                    figure.legend(loc="outside lower left", ncols=_legend_columns(artifact))
            case Heatmap():
                _draw_matrix(figure, axes, artifact)
            case Map(outline="head"):
                _draw_head(figure, axes, artifact)
            case Map():
                _draw_points(figure, axes, artifact)
        yield figure


def _height_inch(artifact: Drawable) -> float:
    match artifact:
        case Curve(style=style, lines=lines, at=at):
            # bars grow downwards with their number; rows of the legend are added to the height of the plot
            bars_inch = 0.7 + (BAR_INCH * len(lines) + GROUP_INCH) * len(at)
            has_chance = style == "lines" and any(line.chance is not None for line in lines)
            legend_rows = -(-(len(lines) + has_chance) // _legend_columns(artifact))
            return (bars_inch if style == "bars" else HEIGHT_INCH) + LEGEND_INCH * legend_rows
        case Heatmap(values=values, rows=[], columns=[], row_axis="", column_axis=""):
            # a picture keeps its aspect ratio; 0.6 inch hold the colour bar
            return 0.6 + min(WIDTH_INCH * len(values) / len(values[0]), SQUARE_INCH)
        case Heatmap(values=values) if len(values) != len(values[0]):
            # named rows need the height of their letters
            row_inch = NAME_INCH if len(values) <= MAX_NAMES else SMALL_NAME_INCH
            rows_inch = row_inch * min(len(values), MAX_SMALL_NAMES)
            return max(HEIGHT_INCH, 1.1 + rows_inch)
    return SQUARE_INCH


def _draw_lines(axes: Any, curve: Curve) -> None:
    # draw each line with its confidence band
    at = [float(position) for position in curve.at]
    for line, (name, colour) in zip(curve.lines, _label_lines(curve.lines), strict=True):
        marker = "o" if len(at) <= MAX_DOTS else ""
        axes.plot(
            at, _numbers(line.values), linewidth=1.6, color=colour, label=name, marker=marker, markersize=3
        )
        if line.low is not None and line.high is not None:
            ends = _numbers(line.low), _numbers(line.high)
            axes.fill_between(at, *ends, color=colour, alpha=0.2, linewidth=0)

    # draw each chance level once
    for level in dict.fromkeys(line.chance for line in curve.lines if line.chance is not None):
        axes.axhline(level, label="chance", **BROKEN)

    # name marks and shaded spans at the top, one name below the other
    for row, (name, mark) in enumerate(curve.marks.items()):
        start = mark[0] if isinstance(mark, tuple) else mark
        if isinstance(mark, tuple):
            axes.axvspan(*mark, color=SOFT, alpha=0.15, linewidth=0)
        axes.axvline(start, color=SOFT, linestyle=":", linewidth=1)
        side = "left" if start < (at[0] + at[-1]) / 2 else "right"  # into the drawing, not out of it
        axes.annotate(
            f" {name} ",
            (start, 1),
            xytext=(0, -row * LEGEND_INCH * 72),
            textcoords="offset points",
            xycoords=("data", "axes fraction"),
            ha=side,
            va="top",
            **SMALL,
        )

    # scale the axes; values start at 0 unless all of them are far above it
    if curve.is_logarithmic:
        axes.set_xscale("log", base=2)
        axes.set_xticks(at, [f"{tick:g}" for tick in at])
    axes.margins(x=0.02)
    low, high = axes.get_ylim()
    low = 0 if 0 < low < ZERO_SHARE * high else low
    room = MARK_SHARE * len(curve.marks) * (high - low)  # for the names of marks, above all values
    axes.set_ylim(low, high + room)

    # label the axes
    axes.grid(axis="x", visible=False)
    axes.set(xlabel=curve.axis)
    axes.set_title(curve.value, **SMALL)


def _draw_bars(axes: Any, curve: Curve) -> None:
    # draw the bars of each line, side by side within the group of each name
    count, names = len(curve.lines), [str(name) for name in curve.at]
    step = BAR_INCH * count + GROUP_INCH
    for index, (name, colour) in enumerate(_label_lines(curve.lines)):
        line = curve.lines[index]
        at = np.arange(len(names)) + (index - (count - 1) / 2) * BAR_INCH / step
        values, errors = _numbers(line.values), None
        if line.low is not None and line.high is not None:
            errors = np.maximum([values - _numbers(line.low), _numbers(line.high) - values], 0)
        bars = axes.barh(
            at,
            values,
            0.9 * BAR_INCH / step,
            label=name,
            color=colour,
            ecolor=INK,
            error_kw={"linewidth": 1},
            xerr=errors,
        )
        if count == 1 and errors is None:
            axes.bar_label(bars, fmt="{:.3g}", padding=3, **SMALL)

    # draw each chance level once
    for level in dict.fromkeys(line.chance for line in curve.lines if line.chance):
        axes.axvline(level, **BROKEN)

    # list the names from top to bottom
    axes.set_yticks(range(len(names)), _shorten_apart(names))
    axes.set_ylim(len(names) - 0.5, -0.5)

    # mark zero and label the axes
    axes.axvline(0, color=SOFT, linewidth=1)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel=curve.value, ylabel=curve.axis if len(names) > 1 else "")


def _draw_matrix(figure: Any, axes: Any, matrix: Heatmap) -> None:
    # span the colours over the values, around 0 for differences
    values = np.array([_numbers(row) for row in matrix.values])  # [rows, columns]
    high = float(np.nanmax(values)) if matrix.high is None else matrix.high
    low = float(np.nanmin(values)) if matrix.low is None else matrix.low
    if matrix.is_diverging:
        high = max(abs(low), abs(high))
        low = -high

    # colour the cells
    axes.grid(visible=False)
    is_picture = not (matrix.rows or matrix.columns or matrix.row_axis or matrix.column_axis)
    axes.set_facecolor("none" if is_picture else "#a0a0a0")  # where there is no value
    colours = "RdBu_r" if matrix.is_diverging else "viridis"
    aspect = "equal" if is_picture else "auto"
    shown = axes.imshow(values, aspect=aspect, interpolation="none", cmap=colours, vmin=low, vmax=high)

    # name the ticks: six numbers at most, or all names if they can be read, or every second, third … row
    for names, axis in ((matrix.rows, axes.yaxis), (matrix.columns, axes.xaxis)):
        are_numbers = all(re.fullmatch(r"-?[\d.]+", name) for name in names)
        is_small = axis is axes.yaxis and len(matrix.values) != len(matrix.values[0])
        step = max(1, len(names) // 6) if are_numbers else -(-len(names) // MAX_SMALL_NAMES) or 1
        can_be_read = are_numbers or is_small or len(names) <= MAX_NAMES
        ticks = range(0, len(names), step) if can_be_read else range(0)
        axis.set_ticks(ticks, labels=[_shorten(names[index]) for index in ticks])
        if axis is axes.xaxis and not are_numbers:
            axes.tick_params(axis="x", rotation=60)
        elif not are_numbers and len(names) > MAX_NAMES:
            axes.tick_params(axis="y", labelsize="xx-small")

    # label the axes and the colours
    axes.tick_params(length=0)
    axes.set(xlabel=matrix.column_axis, ylabel=matrix.row_axis)
    axes.spines[:].set_visible(False)
    _add_colour_bar(figure, axes, shown, matrix.value)


def _draw_points(figure: Any, axes: Any, shown: Map) -> None:
    # draw each group in its colour; each point links to its row
    positions = np.array([(point.x, point.y) for point in shown.points])  # [N, 2]
    groups = list(dict.fromkeys(point.group for point in shown.points))
    for group, colour in zip(groups, COLOURS * len(groups), strict=False):
        rows = [row for row, point in enumerate(shown.points) if point.group == group]
        points = axes.scatter(*positions[rows].T, s=22, color=colour, alpha=0.8, linewidth=0, label=group)
        points.set_urls([f"#{row}" for row in rows])

    # label the axes and the groups
    axes.set(xlabel=shown.axes[0], ylabel=shown.axes[1], xticks=[], yticks=[])
    if any(groups):
        figure.legend(loc="outside lower left", ncols=len(groups))


def _draw_head(figure: Any, axes: Any, head: Map) -> None:
    """Draw values on a head, nose up: interpolated by mne, or as dots where values are few or not finite."""
    # span the colours over the finite values, around 0 for differences
    positions = np.array([[point.x, point.y] for point in head.points])  # [C, 2]
    values = _numbers([point.value for point in head.points])  # [C]
    finite = values[np.isfinite(values)]
    largest = float(np.abs(finite).max(initial=0)) or 1.0
    low, high = (-largest, largest) if head.is_diverging or not len(finite) else (finite.min(), finite.max())
    colours = "RdBu_r" if head.is_diverging else "viridis"

    # interpolate between sensors where there are enough of them;
    # sensors on one line span no area to interpolate over
    is_area = np.linalg.matrix_rank(positions - positions.mean(0), tol=1e-6) == 2
    if len(positions) >= MIN_SENSORS and is_area and len(finite) == len(values):
        import mne

        with mne.use_log_level("ERROR"):
            shown, _ = mne.viz.plot_topomap(
                values,
                positions * HEAD_M,
                axes=axes,
                show=False,
                cmap=colours,
                vlim=(low, high),
                contours=4,
                sphere=(0, 0, 0, HEAD_M),
                extrapolate="local",  # nothing is drawn where no sensor was
            )
    else:
        # draw the sensors as dots in an outline of a head with its nose
        shown = axes.scatter(*positions.T, c=values, s=60, cmap=colours, vmin=low, vmax=high)
        angle = np.linspace(0, 2 * np.pi, 100)
        axes.plot(np.cos(angle), np.sin(angle), color="0.5", linewidth=1.2)
        axes.plot((-0.1, 0, 0.1), (0.995, 1.12, 0.995), color="0.5", linewidth=1.2)
        axes.set(aspect="equal", xlim=(-1.25, 1.25), ylim=(-1.25, 1.25))
        axes.axis("off")
    _add_colour_bar(figure, axes, shown, head.value)


def _add_colour_bar(figure: Any, axes: Any, shown: Any, words: str) -> None:
    from matplotlib.ticker import MaxNLocator

    bar = figure.colorbar(shown, ax=axes, label=words, location="bottom", aspect=40, pad=0.03)
    bar.locator = MaxNLocator(4)
    bar.update_ticks()
    bar.outline.set_visible(False)


def _label_lines(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """Choose the name of each line in the legend, and its colour: that of controls is grey."""
    labels, index = [], 0
    for line in lines:
        # `sub-01_seed-2025` is subject 1, seed 2025
        name = CELL.sub(r"subject \1, seed \2", line.name).replace("all_seed-", "all subjects, seed ")
        is_control = line.name.startswith(CONTROLS) or "on shuffled" in line.name
        labels.append((name, CONTROL_COLOUR if is_control else COLOURS[index % (len(COLOURS) - 1)]))
        index += not is_control
    return labels


def _legend_columns(curve: Curve) -> int:
    longest = max(len(line.name) for line in curve.lines) + SAMPLE_LETTERS
    return max(1, LEGEND_LETTERS // longest)


def _shorten(name: str) -> str:
    return name if len(name) <= MAX_LETTERS else f"{name[: MAX_LETTERS - 1]}…"


def _shorten_apart(names: Sequence[str]) -> list[str]:
    """Shorten names at their end, or in the middle where several would then be the same."""
    short = [_shorten(name) for name in names]
    if len({*short}) == len({*names}):
        return short
    half = MAX_LETTERS // 2
    is_long = [len(name) > MAX_LETTERS for name in names]
    return [f"{n[: half - 1]}…{n[-half:]}" if long else n for n, long in zip(names, is_long, strict=True)]


def _numbers(values: Sequence[Any]) -> Any:
    return np.array([np.nan if value is None else value for value in values], float)


def draw_slices(title: str, values: Float64, grid: "Grid", unit: str, low: float | None = None) -> Heatmap:
    """Draw values of voxels on axial slices from bottom to top, nose up, left is left.

    Args:
        title: Title of the figure.
        values: [V].
        grid: Positions of the voxels.
        unit: Unit of the values.
        low: Value of the first colour; None for the lowest.
    """
    # axes of the volume that run most along left-right, back-front and bottom-top, in this order
    weights = np.abs(grid.affine[:3, :3])
    axes = max(permutations(range(3)), key=lambda order: sum(weights[row, order[row]] for row in range(3)))

    # turn voxel indices so that they grow to the right, front and top, and start at 0
    indices = grid.places.astype(int)[:, axes]  # [V, 3] x, y, z
    for world, axis in enumerate(axes):
        if grid.affine[world, axis] < 0:
            indices[:, world] = -indices[:, world]
    indices -= indices.min(0)
    width, height, depth = indices.max(0) + 1

    # of the slices that hold voxels, the middle ones of up to a dozen equal parts, in rows of four
    heights = np.unique(indices[:, 2])
    parts = min(MAX_SLICES, len(heights))
    heights = heights[((np.arange(parts) + 0.5) * len(heights) / parts).astype(int)]
    columns = min(len(heights), SLICES_IN_ROW)

    # put the values into a mosaic of the slices, one empty pixel between them
    mosaic = np.full((-(-len(heights) // columns) * (height + 1), columns * (width + 1)), np.nan)
    for number, z in enumerate(heights.tolist()):
        row, column = divmod(number, columns)
        x, y, _ = indices[indices[:, 2] == z].T
        at = row * (height + 1) + height - 1 - y, column * (width + 1) + x
        mosaic[at] = values[indices[:, 2] == z]

    # describe the figure
    pixels = [[None if np.isnan(value) else value for value in line] for line in mosaic.tolist()]
    shown = "" if len(heights) == depth else f"{len(heights)} of {depth} slices, "
    note = f"Axial: {shown}from bottom to top; nose up, left is left."
    return Heatmap(title, pixels, value=unit, low=low, note=note)
