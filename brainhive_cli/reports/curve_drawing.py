"""Curves and bars as drawings."""

from collections.abc import Sequence
from math import log2

from markupsafe import Markup

from brainhive_cli.core.artifacts import Curve, Line, Number
from brainhive_cli.reports import svg
from brainhive_cli.reports.numbers import brief, number, ticks
from brainhive_cli.reports.svg import WIDTH

HEIGHT = 220
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 8, 34
"""Margins of a curve."""
DOTS = 24
"""Places up to which each has a dot."""
THICK, NARROW, GAP = 15, 9, 7
"""Heights of a bar that is alone, of one in a group, and between groups."""
NAME_PX, LETTER_PX = 110, 6
FAR = 0.6
"""An axis starts at 0 unless its lowest value is above this share of its highest."""


def draw(shown: Curve) -> Markup:
    """Draw lines with their intervals, or bars; their names stand below as text."""
    drawn = _bars(shown) if shown.style == "bars" else _lines(shown)
    has_chance = shown.style == "lines" and any(line.chance is not None for line in shown.lines)
    return svg.with_legend(drawn, [line.name for line in shown.lines], has_chance)


def _lines(shown: Curve) -> Markup:
    at = [float(each) for each in shown.at]
    places = [log2(each) for each in at] if shown.is_logarithmic else at
    low, high = _range(shown.lines)
    x = svg.scale(min(places, default=0), max(places, default=1), LEFT, WIDTH - RIGHT)
    y = svg.scale(low, high, HEIGHT - BOTTOM, TOP)
    drawn = []
    for tick in ticks(low, high):
        drawn.append(svg.line("grid", LEFT, y(tick), WIDTH - RIGHT, y(tick)))
        drawn.append(svg.text(LEFT - 5, y(tick) + 4, brief(tick), "end"))
    each_has_one = shown.is_logarithmic or len(at) <= 6
    round_places = ticks(min(places, default=0), max(places, default=1))
    for place, value in (
        zip(places, at, strict=True) if each_has_one else zip(round_places, round_places, strict=True)
    ):
        drawn.append(svg.text(x(place), HEIGHT - BOTTOM + 14, brief(value), "middle"))
    for name, mark in shown.marks.items():
        place = x(log2(mark) if shown.is_logarithmic else mark)
        way, anchor = (3, "start") if place < WIDTH / 2 else (-3, "end")  # into the drawing, not out of it
        drawn.append(svg.line("mark", place, TOP, place, HEIGHT - BOTTOM))
        drawn.append(svg.text(place + way, TOP + 9, name, anchor))
    for line, colour in zip(shown.lines, svg.colours(), strict=False):
        drawn += _line(line, colour, [x(place) for place in places], y)
    drawn.append(svg.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, shown.axis, "middle", "axis"))
    drawn.append(svg.turned(9, (TOP + HEIGHT - BOTTOM) / 2, shown.value))
    return svg.drawing(HEIGHT, drawn, shown.title)


def _line(line: Line, colour: int, places: Sequence[float], y: svg.Place) -> list[str]:
    """Draw one line: its level of chance, its interval as a band, itself with gaps, and dots."""
    drawn = []
    if line.chance is not None:
        drawn.append(svg.line(f"chance c{colour}", LEFT, y(line.chance), WIDTH - RIGHT, y(line.chance)))
    ends = zip(places, line.low or (), line.high or (), strict=False)
    known = [(place, a, b) for place, a, b in ends if a is not None and b is not None]
    edge = [(place, y(a)) for place, a, _ in known] + [(place, y(b)) for place, _, b in reversed(known)]
    if edge:
        drawn.append(svg.path(f"band c{colour}", edge, "polygon"))
    for part in _parts(places, line.values):
        points = [(place, y(value)) for place, value in part]
        drawn.append(svg.path(f"line c{colour}", points))
        if len(places) <= DOTS or len(part) == 1:
            drawn += [svg.circle(f"dot c{colour}", *point, 2.5) for point in points]
    return drawn


def _bars(shown: Curve) -> Markup:
    """Draw bars from left to right, a group a row, so that there is room for names."""
    names, lines = [str(each) for each in shown.at], shown.lines
    thick = THICK if len(lines) == 1 else NARROW
    step = thick * len(lines) + GAP
    low, high = _range(lines)
    left = min(NAME_PX, 14 + LETTER_PX * max(map(len, names), default=0))
    x, bottom = svg.scale(low, high, left, WIDTH - RIGHT - 30), 6 + step * len(names)
    drawn = [svg.line("grid", x(tick), 4, x(tick), bottom) for tick in ticks(low, high, 4)]
    for row, name in enumerate(names):
        top = 6 + step * row
        label = svg.shortened(name, (left - 6) // LETTER_PX)
        drawn.append(svg.text(left - 6, top + thick * len(lines) / 2 + 4, label, "end"))
        for place, (line, colour) in enumerate(zip(lines, svg.colours(), strict=False)):
            drawn += _bar(line, row, name, colour, (top + thick * place, thick), x, len(lines) == 1)
    drawn += [svg.text(x(tick), bottom + 13, brief(tick), "middle") for tick in ticks(low, high, 4)]
    words = ", by ".join(filter(None, [shown.value, shown.axis]))
    drawn.append(svg.text(WIDTH / 2, bottom + 28, words, "middle", "axis"))
    return svg.drawing(bottom + 34, drawn, shown.title)


def _bar(
    line: Line, row: int, name: str, colour: int, at: tuple[float, float], x: svg.Place, is_alone: bool
) -> list[str]:
    """Draw one bar with its interval; its value stands next to it where there is room."""
    value, (top, thick) = line.values[row], at
    if value is None:
        return []
    begin, end = sorted((x(0.0), x(value)))
    title = f"{name}: {number(value)}, {line.name}"
    drawn = [svg.bar(f"bar c{colour}", begin, top, end - begin, thick - 1.5, title)]
    low, high = (None if ends is None else ends[row] for ends in (line.low, line.high))
    if low is not None and high is not None:
        middle = top + thick / 2 - 0.75
        drawn.append(svg.line("error", x(low), middle, x(high), middle))
    elif is_alone:
        drawn.append(svg.text(end + 4, top + thick / 2 + 4, number(value)))
    return drawn


def _range(lines: Sequence[Line]) -> tuple[float, float]:
    """Choose the values that an axis spans."""
    found: list[float] = []
    for line in lines:
        for values in (line.values, line.low or (), line.high or (), [line.chance]):
            found += [value for value in values if value is not None]
    low, high = min(found, default=0.0), max(found, default=1.0)
    if low == high:
        return min(0.0, low), max(0.0, high) or 1.0
    low = low if low < 0 or low > FAR * high else 0.0
    margin = 0.04 * (high - low)
    return (low if low == 0 else low - margin), high + margin


def _parts(places: Sequence[float], values: Sequence[Number]) -> list[list[tuple[float, float]]]:
    """Split a line at its gaps."""
    parts: list[list[tuple[float, float]]] = [[]]
    for place, value in zip(places, values, strict=True):
        if value is None:
            parts.append([])
        else:
            parts[-1].append((place, value))
    return [part for part in parts if part]
