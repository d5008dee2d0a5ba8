"""How numbers are written for people: as many digits as can be read, and none that the machine made up."""

from math import isfinite, log10
from typing import Any


def number(value: Any) -> str:
    """Write a cell: three decimals of small numbers, one of large ones, four digits of tiny ones."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if not isfinite(value):
        return "–"
    if value and abs(value) < 0.0005:
        return f"{value:.1e}"
    digits = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:z,.{digits}f}"


def brief(value: float) -> str:
    """Write the tick of an axis, or a level of chance: no trailing zeros."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Choose round places between two values, `most` or fewer."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** int(log10(span / most) // 1)
    step = next(each * power for each in (1, 2, 2.5, 5, 10, 20) if span / (each * power) <= most)
    first = -int(-low // step) if low >= 0 else -int(-low / step)
    places = [round(step * place, 12) for place in range(first - 1, first + most + 2)]
    slack = span * 1e-9
    return [place for place in places if low - slack <= place <= high + slack]
