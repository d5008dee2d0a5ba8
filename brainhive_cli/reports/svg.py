"""The elements of SVG drawings: lines, texts, shapes, and the scales that place them."""

from collections.abc import Callable, Iterable, Sequence
from itertools import count

from markupsafe import Markup, escape

WIDTH = 360
"""Units of a drawing: CSS pixels of a phone, so that its letters are as large as those of the page."""
COLOURS = 8
"""Series that have colours of their own."""
Place = Callable[[float], float]
Points = Iterable[tuple[float, float]]


def scale(low: float, high: float, begin: float, end: float) -> Place:
    """Make the function from values to places."""
    width = (high - low) or 1.0
    return lambda value: begin + (value - low) / width * (end - begin)


def colours() -> Iterable[int]:
    """Count the colours of series, from the first again after the last."""
    return (place % COLOURS for place in count())


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """Draw a line from one point to another."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def path(kind: str, points: Points, shape: str = "polyline") -> str:
    """Draw a line through points, or the area that they enclose (`polygon`)."""
    return f'<{shape} class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def circle(kind: str, x: float, y: float, radius: float, more: str = "", title: str = "") -> str:
    """Draw a circle; `more` are attributes, `title` is what is shown where the pointer is."""
    inner = f"<title>{escape(title)}</title>" if title else ""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"{more}>{inner}</circle>'


def bar(kind: str, x: float, y: float, width: float, height: float, title: str) -> str:
    """Draw a rectangle; `title` is what is shown where the pointer is."""
    size = f'width="{max(width, 0.8):.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" {size}><title>{escape(title)}</title></rect>'


def image(source: str, x: float, y: float, width: float, height: float) -> str:
    """Draw pixels, which stay sharp, over a rectangle."""
    size = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<image href="{source}" {size} preserveAspectRatio="none" style="image-rendering:pixelated"/>'


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "label") -> str:
    """Write words at a place."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def turned(
    x: float, y: float, words: str, degrees: int = -90, anchor: str = "middle", kind: str = "axis"
) -> str:
    """Write words at an angle; nothing if there are none."""
    place = f'transform="translate({x:.1f},{y:.1f}) rotate({degrees})"'
    return f'<text class="{kind}" {place} text-anchor="{anchor}">{escape(words)}</text>' if words else ""


def shortened(name: str, most: int) -> str:
    """Cut a name that is too long, and say so."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def drawing(height: float, drawn: Sequence[str], title: str) -> Markup:
    """Put elements together."""
    size = f'viewBox="0 0 {WIDTH} {height:.0f}"'
    return Markup(f'<svg {size} role="img" aria-label="{escape(title)}">{"".join(drawn)}</svg>')


def with_legend(svg: Markup, names: Sequence[str], has_chance: bool = False) -> Markup:
    """Put the names of series below a drawing, as text; nothing for a single one without chance."""
    if not any(names) or (len(names) == 1 and not has_chance):
        return svg
    item = Markup('<li class="c{}">{}</li>')
    items = Markup("").join(item.format(place, name) for place, name in zip(colours(), names, strict=False))
    items += Markup('<li class="broken">chance</li>') if has_chance else Markup("")
    return svg + Markup('<ul class="legend">{}</ul>').format(items)
