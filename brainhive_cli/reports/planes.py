"""Matrices and maps as drawings."""

from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

from brainhive_cli.core.artifacts import Heatmap, Map, Point
from brainhive_cli.reports import svg
from brainhive_cli.reports.colours import ColourScale
from brainhive_cli.reports.numbers import number
from brainhive_cli.reports.svg import COLOURS, WIDTH

NAMED = 22
"""Rows or columns up to which each has its name next to it."""
NAME_PX, LETTER_PX = 110, 6
SIZE = 320
"""Height of a map."""
HEAD = 1.25
"""How far from the origin the map of a head reaches; its radius is 1."""


def draw_matrix(shown: Heatmap) -> Markup:
    """Draw a matrix as pixels, with names where there are few rows, and a bar of its colours."""
    values = [value for row in shown.values for value in row if value is not None]
    colours = ColourScale(values, shown.low, shown.high, shown.is_diverging)
    rows, columns = len(shown.values), len(shown.values[0]) if shown.values else 0
    row_names = shown.rows if rows <= NAMED else ()
    column_names = shown.columns if columns <= NAMED else ()
    left = min(NAME_PX, 14 + LETTER_PX * _longest(row_names)) + (14 if shown.row_axis else 0)
    wide = WIDTH - left - 8
    least = 60 if rows < 12 else 140
    bottom = 6 + min(max(wide / max(columns, 1) * rows, least), 1.1 * wide)
    y, x = svg.scale(0, max(rows, 1), 6, bottom), svg.scale(0, max(columns, 1), left, left + wide)
    drawn = [svg.image(colours.pixels(shown.values), left, 6, wide, bottom - 6)]
    if shown.row_axis:
        drawn.append(svg.turned(10, (6 + bottom) / 2, shown.row_axis))
    for place, name in enumerate(row_names):
        drawn.append(svg.text(left - 5, y(place + 0.5) + 4, svg.shortened(name, 16), "end"))
    for place, name in enumerate(column_names):
        words = svg.shortened(name, 12)
        drawn.append(svg.turned(x(place + 0.5) + 4, bottom + 6, words, -60, "end", "label"))
    bottom += 5.5 * min(12, _longest(column_names)) + 4
    if shown.column_axis:
        bottom += 12
        drawn.append(svg.text(left + wide / 2, bottom, shown.column_axis, "middle", "axis"))
    drawn += colours.bar(left, bottom + 10, wide, shown.value)
    return svg.drawing(bottom + 38, drawn, shown.title)


def _longest(names: Sequence[str]) -> int:
    return max(map(len, names), default=0)


def draw_map(shown: Map, picture: Callable[[str], str]) -> Markup:
    """Draw points in a plane.

    Args:
        shown: The map.
        picture: From a file to the id by which the page knows its picture.
    """
    groups = list(dict.fromkeys(point.group for point in shown.points))
    values = [point.value for point in shown.points if point.value is not None]
    colours = ColourScale(values, is_diverging=shown.is_diverging)
    is_head = shown.outline == "head"
    if is_head:
        x, y = svg.scale(-HEAD, HEAD, 20, 20 + SIZE), svg.scale(-HEAD, HEAD, SIZE, 0)
    else:
        x = svg.scale(*_span([point.x for point in shown.points]), 26, WIDTH - 10)
        y = svg.scale(*_span([point.y for point in shown.points]), SIZE - 10, 10)
    drawn = _head(x, y) if is_head else []
    for point in shown.points:
        kind = "point" if values else f"point c{groups.index(point.group) % COLOURS}"
        more = f' data-name="{escape(_words(point))}"'
        more += f' fill="rgb{colours(point.value)}"' if values else ""
        more += f' data-picture="{escape(picture(point.file))}"' if point.file else ""
        drawn.append(svg.circle(kind, x(point.x), y(point.y), 6 if is_head else 4, more, _words(point)))
    if values:
        drawn += colours.bar(40, SIZE + 4, WIDTH - 80, shown.value)
    elif any(shown.axes):
        drawn += [svg.text(WIDTH / 2, SIZE + 14, shown.axes[0], "middle", "axis")]
        drawn += [svg.turned(10, SIZE / 2, shown.axes[1])]
    made = svg.drawing(SIZE + (32 if values else 20), drawn, shown.title)
    return made if values else svg.with_legend(made, [group for group in groups if group])


def _words(point: Point) -> str:
    value = "" if point.value is None else number(point.value)
    return ", ".join(filter(None, [point.name, point.group, value]))


def _head(x: svg.Place, y: svg.Place) -> list[str]:
    nose = [(x(-0.12), y(0.99)), (x(0), y(1.15)), (x(0.12), y(0.99))]
    return [svg.circle("head", x(0), y(0), x(1) - x(0)), svg.path("head", nose)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if low < high else (low - 1, high + 1)
