"""Bars in groups, with their intervals, as a picture."""

from collections.abc import Mapping
from pathlib import Path

from brainhive_cli.core.measurements import Metric

WIDTH_INCH, ROW_INCH, DOTS_PER_INCH = 6.0, 0.16, 150


def draw_bars(path: Path, groups: Mapping[str, Mapping[str, Metric]], axis: str, title: str) -> None:
    """Draw a bar for each metric of each group, with its 95 % interval.

    Args:
        path: The picture.
        groups: Metrics by what the legend calls them, by the name of the group; all groups have the same.
        axis: What the values are.
        title: What they are of.
    """
    from matplotlib.figure import Figure

    names, lines = list(groups), list(next(iter(groups.values())))
    height = 1.6 + ROW_INCH * len(names) * (len(lines) + 1)
    figure = Figure((WIDTH_INCH, height), DOTS_PER_INCH, layout="constrained")
    axes, thick = figure.subplots(), 0.8 / len(lines)
    for number, line in enumerate(lines):
        found = [groups[name][line] for name in names]
        at = [row + (number - (len(lines) - 1) / 2) * thick for row in range(len(names))]
        values = [each.value for each in found]
        below = [max(0.0, each.value - (each.value if each.low is None else each.low)) for each in found]
        above = [max(0.0, (each.value if each.high is None else each.high) - each.value) for each in found]
        axes.barh(at, values, thick, xerr=[below, above], color=f"C{number}", label=line, ecolor="0.3")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel=axis, xlim=(0, None))
    axes.set_title(title, fontsize="small", wrap=True)
    axes.legend(fontsize="small", frameon=False)
    figure.savefig(path)
