"""Drawings of a page, in SVG: curves, bars, matrices and maps."""

import base64
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from itertools import count
from math import log2, log10

from markupsafe import Markup, escape
from PIL import Image

from brainhive_cli.core.artifacts import Curve, Heatmap, Line, Map, Number, Point
from brainhive_cli.core.tables import brief, number

WIDTH = 360
"""Units of a drawing: CSS pixels of a phone, so that its letters are as large as those of the page."""
COLOURS = 8
"""Series that have colours of their own."""
NAME_PX, LETTER_PX = 110, 6
"""Room for names of rows at most, and about the width of a letter."""
Place = Callable[[float], float]
Points = Iterable[tuple[float, float]]


def make_scale(low: float, high: float, begin: float, end: float) -> Place:
    """Make the function from values to places."""
    width = (high - low) or 1.0
    return lambda value: begin + (value - low) / width * (end - begin)


def cycle_colours() -> Iterable[int]:
    """Count the colours of series, from the first again after the last."""
    return (place % COLOURS for place in count())


def draw_line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """Draw a line from one point to another."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def draw_path(kind: str, points: Points, shape: str = "polyline") -> str:
    """Draw a line through points, or the area that they enclose (`polygon`)."""
    return f'<{shape} class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def draw_circle(kind: str, x: float, y: float, radius: float, more: str = "", title: str = "") -> str:
    """Draw a circle; `more` are attributes, `title` is what is shown where the pointer is."""
    inner = f"<title>{escape(title)}</title>" if title else ""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"{more}>{inner}</circle>'


def draw_rectangle(kind: str, x: float, y: float, width: float, height: float, title: str) -> str:
    """Draw a rectangle; `title` is what is shown where the pointer is."""
    size = f'width="{max(width, 0.8):.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" {size}><title>{escape(title)}</title></rect>'


def draw_image(source: str, x: float, y: float, width: float, height: float) -> str:
    """Draw pixels, which stay sharp, over a rectangle."""
    size = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<image href="{source}" {size} preserveAspectRatio="none" style="image-rendering:pixelated"/>'


def write_text(x: float, y: float, words: str, anchor: str = "start", kind: str = "label") -> str:
    """Write words at a place."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def write_turned(
    x: float, y: float, words: str, degrees: int = -90, anchor: str = "middle", kind: str = "axis"
) -> str:
    """Write words at an angle; nothing if there are none."""
    place = f'transform="translate({x:.1f},{y:.1f}) rotate({degrees})"'
    return f'<text class="{kind}" {place} text-anchor="{anchor}">{escape(words)}</text>' if words else ""


def shorten(name: str, most: int) -> str:
    """Cut a name that is too long, and say so."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def assemble(height: float, drawn: Sequence[str], title: str) -> Markup:
    """Put elements together."""
    size = f'viewBox="0 0 {WIDTH} {height:.0f}"'
    return Markup(f'<svg {size} role="img" aria-label="{escape(title)}">{"".join(drawn)}</svg>')


def add_legend(svg: Markup, names: Sequence[str], has_chance: bool = False) -> Markup:
    """Put the names of series below a drawing, as text; nothing for a single one without chance."""
    if not any(names) or (len(names) == 1 and not has_chance):
        return svg
    item = Markup('<li class="c{}">{}</li>')
    items = Markup("").join(
        item.format(place, name) for place, name in zip(cycle_colours(), names, strict=False)
    )
    items += Markup('<li class="broken">chance</li>') if has_chance else Markup("")
    return svg + Markup('<ul class="legend">{}</ul>').format(items)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Choose round places between two values, `most` or fewer."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** int(log10(span / most) // 1)
    step = next(digit * power for digit in (1, 2, 2.5, 5, 10, 20) if span / (digit * power) <= most)
    first = -int(-low // step) if low >= 0 else -int(-low / step)
    places = [round(step * place, 12) for place in range(first - 1, first + most + 2)]
    slack = span * 1e-9
    return [place for place in places if low - slack <= place <= high + slack]


HEIGHT = 220
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 8, 34
"""Margins of a curve."""
DOTS = 24
"""Places up to which each has a dot."""
THICK, NARROW, GAP = 15, 9, 7
"""Heights of a bar that is alone, of one in a group, and between groups."""
FAR = 0.6
"""An axis starts at 0 unless its lowest value is above this share of its highest."""


def draw_curve(shown: Curve) -> Markup:
    """Draw lines with their intervals, or bars; their names stand below as text."""
    drawn = _bars(shown) if shown.style == "bars" else _lines(shown)
    has_chance = shown.style == "lines" and any(line.chance is not None for line in shown.lines)
    return add_legend(drawn, [line.name for line in shown.lines], has_chance)


def _lines(shown: Curve) -> Markup:
    at = [float(place) for place in shown.at]
    places = [log2(place) for place in at] if shown.is_logarithmic else at
    low, high = _range(shown.lines)
    x = make_scale(min(places, default=0), max(places, default=1), LEFT, WIDTH - RIGHT)
    y = make_scale(low, high, HEIGHT - BOTTOM, TOP)
    drawn = []
    for tick in ticks(low, high):
        drawn.append(draw_line("grid", LEFT, y(tick), WIDTH - RIGHT, y(tick)))
        drawn.append(write_text(LEFT - 5, y(tick) + 4, brief(tick), "end"))
    each_has_one = shown.is_logarithmic or len(at) <= 6
    round_places = ticks(min(places, default=0), max(places, default=1))
    for place, value in (
        zip(places, at, strict=True) if each_has_one else zip(round_places, round_places, strict=True)
    ):
        drawn.append(write_text(x(place), HEIGHT - BOTTOM + 14, brief(value), "middle"))
    for name, mark in shown.marks.items():
        place = x(log2(mark) if shown.is_logarithmic else mark)
        way, anchor = (3, "start") if place < WIDTH / 2 else (-3, "end")  # into the drawing, not out of it
        drawn.append(draw_line("mark", place, TOP, place, HEIGHT - BOTTOM))
        drawn.append(write_text(place + way, TOP + 9, name, anchor))
    for line, colour in zip(shown.lines, cycle_colours(), strict=False):
        drawn += _draw_series(line, colour, [x(place) for place in places], y)
    drawn.append(write_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, shown.axis, "middle", "axis"))
    drawn.append(write_turned(9, (TOP + HEIGHT - BOTTOM) / 2, shown.value))
    return assemble(HEIGHT, drawn, shown.title)


def _draw_series(line: Line, colour: int, places: Sequence[float], y: Place) -> list[str]:
    """Draw one line: its level of chance, its interval as a band, itself with gaps, and dots."""
    drawn = []
    if line.chance is not None:
        drawn.append(draw_line(f"chance c{colour}", LEFT, y(line.chance), WIDTH - RIGHT, y(line.chance)))
    ends = zip(places, line.low or (), line.high or (), strict=False)
    known = [(place, a, b) for place, a, b in ends if a is not None and b is not None]
    edge = [(place, y(a)) for place, a, _ in known] + [(place, y(b)) for place, _, b in reversed(known)]
    if edge:
        drawn.append(draw_path(f"band c{colour}", edge, "polygon"))
    for part in _split_at_gaps(places, line.values):
        points = [(place, y(value)) for place, value in part]
        drawn.append(draw_path(f"line c{colour}", points))
        if len(places) <= DOTS or len(part) == 1:
            drawn += [draw_circle(f"dot c{colour}", *point, 2.5) for point in points]
    return drawn


def _bars(shown: Curve) -> Markup:
    """Draw bars from left to right, a group a row, so that there is room for names."""
    names, lines = list(map(str, shown.at)), shown.lines
    thick = THICK if len(lines) == 1 else NARROW
    step = thick * len(lines) + GAP
    low, high = _range(lines)
    left = min(NAME_PX, 14 + LETTER_PX * max(map(len, names), default=0))
    x, bottom = make_scale(low, high, left, WIDTH - RIGHT - 30), 6 + step * len(names)
    drawn = [draw_line("grid", x(tick), 4, x(tick), bottom) for tick in ticks(low, high, 4)]
    for row, name in enumerate(names):
        top = 6 + step * row
        label = shorten(name, (left - 6) // LETTER_PX)
        drawn.append(write_text(left - 6, top + thick * len(lines) / 2 + 4, label, "end"))
        for place, (line, colour) in enumerate(zip(lines, cycle_colours(), strict=False)):
            drawn += _bar(line, row, name, colour, (top + thick * place, thick), x, len(lines) == 1)
    drawn += [write_text(x(tick), bottom + 13, brief(tick), "middle") for tick in ticks(low, high, 4)]
    words = ", by ".join(filter(None, [shown.value, shown.axis]))
    drawn.append(write_text(WIDTH / 2, bottom + 28, words, "middle", "axis"))
    return assemble(bottom + 34, drawn, shown.title)


def _bar(
    line: Line, row: int, name: str, colour: int, at: tuple[float, float], x: Place, is_alone: bool
) -> list[str]:
    """Draw one bar with its interval; its value stands next to it where there is room."""
    value, (top, thick) = line.values[row], at
    if value is None:
        return []
    begin, end = sorted((x(0.0), x(value)))
    title = f"{name}: {number(value)}, {line.name}"
    drawn = [draw_rectangle(f"bar c{colour}", begin, top, end - begin, thick - 1.5, title)]
    low, high = (None if ends is None else ends[row] for ends in (line.low, line.high))
    if low is not None and high is not None:
        middle = top + thick / 2 - 0.75
        drawn.append(draw_line("error", x(low), middle, x(high), middle))
    elif is_alone:
        drawn.append(write_text(end + 4, top + thick / 2 + 4, number(value)))
    return drawn


def _range(lines: Sequence[Line]) -> tuple[float, float]:
    """Choose the values that an axis spans."""
    numbers: list[float] = []
    for line in lines:
        for values in (line.values, line.low or (), line.high or (), [line.chance]):
            numbers += [value for value in values if value is not None]
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    if low == high:
        return min(0.0, low), max(0.0, high) or 1.0
    low = low if low < 0 or low > FAR * high else 0.0
    margin = 0.04 * (high - low)
    return (low if low == 0 else low - margin), high + margin


def _split_at_gaps(places: Sequence[float], values: Sequence[Number]) -> list[list[tuple[float, float]]]:
    """Split a line at its gaps."""
    parts: list[list[tuple[float, float]]] = [[]]
    for place, value in zip(places, values, strict=True):
        if value is None:
            parts.append([])
        else:
            parts[-1].append((place, value))
    return [part for part in parts if part]


NAMED = 22
"""Rows or columns up to which each has its name next to it."""
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
    y, x = make_scale(0, max(rows, 1), 6, bottom), make_scale(0, max(columns, 1), left, left + wide)
    drawn = [draw_image(colours.pixels(shown.values), left, 6, wide, bottom - 6)]
    if shown.row_axis:
        drawn.append(write_turned(10, (6 + bottom) / 2, shown.row_axis))
    for place, name in enumerate(row_names):
        drawn.append(write_text(left - 5, y(place + 0.5) + 4, shorten(name, 16), "end"))
    for place, name in enumerate(column_names):
        words = shorten(name, 12)
        drawn.append(write_turned(x(place + 0.5) + 4, bottom + 6, words, -60, "end", "label"))
    bottom += 5.5 * min(12, _longest(column_names)) + 4
    if shown.column_axis:
        bottom += 12
        drawn.append(write_text(left + wide / 2, bottom, shown.column_axis, "middle", "axis"))
    drawn += colours.bar(left, bottom + 10, wide, shown.value)
    return assemble(bottom + 38, drawn, shown.title)


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
        x, y = make_scale(-HEAD, HEAD, 20, 20 + SIZE), make_scale(-HEAD, HEAD, SIZE, 0)
    else:
        x = make_scale(*_span([point.x for point in shown.points]), 26, WIDTH - 10)
        y = make_scale(*_span([point.y for point in shown.points]), SIZE - 10, 10)
    drawn = _outline_head(x, y) if is_head else []
    for point in shown.points:
        kind = "point" if values else f"point c{groups.index(point.group) % COLOURS}"
        more = f' data-name="{escape(_words(point))}"'
        more += f' fill="rgb{colours(point.value)}"' if values else ""
        more += f' data-picture="{escape(picture(point.file))}"' if point.file else ""
        drawn.append(draw_circle(kind, x(point.x), y(point.y), 6 if is_head else 4, more, _words(point)))
    if values:
        drawn += colours.bar(40, SIZE + 4, WIDTH - 80, shown.value)
    elif any(shown.axes):
        drawn += [write_text(WIDTH / 2, SIZE + 14, shown.axes[0], "middle", "axis")]
        drawn += [write_turned(10, SIZE / 2, shown.axes[1])]
    drawing = assemble(SIZE + (32 if values else 20), drawn, shown.title)
    return drawing if values else add_legend(drawing, [group for group in groups if group])


def _words(point: Point) -> str:
    value = "" if point.value is None else number(point.value)
    return ", ".join(filter(None, [point.name, point.group, value]))


def _outline_head(x: Place, y: Place) -> list[str]:
    nose = [(x(-0.12), y(0.99)), (x(0), y(1.15)), (x(0.12), y(0.99))]
    return [draw_circle("head", x(0), y(0), x(1) - x(0)), draw_path("head", nose)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if low < high else (low - 1, high + 1)


RAMP = (
    *((68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141)),
    *((39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37)),
)
"""Viridis (matplotlib), in nine steps."""
DIVERGING = (
    *((33, 102, 172), (103, 169, 207), (209, 229, 240), (247, 247, 247)),
    *((253, 219, 199), (239, 138, 98), (178, 24, 43)),
)
"""RdBu (ColorBrewer), from blue to red."""
NONE = (160, 160, 160)
"""Where there is no value."""
STEPS = 41
Colour = tuple[int, int, int]


class ColourScale:
    """From values to colours.

    Args:
        values: What is shown, from which the ends are taken where they are not given.
        low: Value of the first colour.
        high: Value of the last one.
        is_diverging: Whether colours differ by sign, as far on both sides.
    """

    def __init__(
        self, values: Sequence[float], low: Number = None, high: Number = None, is_diverging: bool = False
    ) -> None:
        self.low = min(values, default=0.0) if low is None else low
        self.high = max(values, default=1.0) if high is None else high
        self.ramp = DIVERGING if is_diverging else RAMP
        if is_diverging:
            self.high = max(abs(self.low), abs(self.high))
            self.low = -self.high

    def __call__(self, value: Number) -> Colour:
        """Give the colour of a value; values beyond the ends have the colours of these."""
        if value is None:
            return NONE
        return self._at((value - self.low) / ((self.high - self.low) or 1.0))

    def pixels(self, values: Sequence[Sequence[Number]]) -> str:
        """Draw a matrix [R, C], one pixel a value, as a data URL."""
        return _png([[self(value) for value in row] for row in values])

    def bar(self, x: float, y: float, width: float, words: str) -> list[str]:
        """Draw the colours from the lowest to the highest value, with both."""
        ramp = _png([[self._at(place / (STEPS - 1)) for place in range(STEPS)]])
        return [
            draw_image(ramp, x, y, width, 8),
            write_text(x, y + 21, brief(self.low)),
            write_text(x + width, y + 21, brief(self.high), "end"),
            write_text(x + width / 2, y + 21, words, "middle", "axis"),
        ]

    def _at(self, share: float) -> Colour:
        place = min(max(share, 0.0), 1.0) * (len(self.ramp) - 1)
        first = min(int(place), len(self.ramp) - 2)
        ends = zip(self.ramp[first], self.ramp[first + 1], strict=True)
        red, green, blue = (round(a + (b - a) * (place - first)) for a, b in ends)
        return red, green, blue


def _png(rows: Sequence[Sequence[Colour]]) -> str:
    picture = Image.new("RGB", (len(rows[0]), len(rows)) if rows and rows[0] else (1, 1))
    picture.putdata([pixel for row in rows for pixel in row] or [NONE])
    held = BytesIO()
    (picture.quantize(256) if len(rows) > 1 else picture).save(held, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"
