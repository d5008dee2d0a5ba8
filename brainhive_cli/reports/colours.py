"""Values as colours, and matrices of them as pictures of few bytes."""

import base64
from collections.abc import Sequence
from io import BytesIO

from PIL import Image

from brainhive_cli.core.artifacts import Number
from brainhive_cli.reports import svg
from brainhive_cli.reports.numbers import brief

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
            svg.image(ramp, x, y, width, 8),
            svg.text(x, y + 21, brief(self.low)),
            svg.text(x + width, y + 21, brief(self.high), "end"),
            svg.text(x + width / 2, y + 21, words, "middle", "axis"),
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
