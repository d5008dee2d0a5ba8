"""A curve of accuracy with its interval and the line of chance, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainhive_cli.core.errors import MissingExtra

SIZE_INCH = (6.0, 3.6)
DOTS_PER_INCH = 150


def require_matplotlib() -> None:
    """Say now that curves cannot be drawn, rather than after the work.

    Raises:
        MissingExtra: if matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtra("curves need matplotlib", "pip install 'brainhive[figures]'") from error


def draw_curve(
    path: Path,
    points: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, str],
    axis: str,
    title: str,
    doubling: bool = False,
) -> None:
    """Draw metrics over a number, each with its 95 % interval as a band and its chance as a broken line.

    Args:
        path: The picture.
        points: One mapping a place: `at`, and each metric with value, low, high and chance.
        metrics: Name of each metric to the words in the legend.
        axis: What `at` is.
        title: What it is a curve of.
        doubling: Whether equal steps along the axis are doublings.
    """
    from matplotlib.figure import Figure

    figure = Figure(SIZE_INCH, DOTS_PER_INCH, layout="constrained")  # no pyplot: it keeps figures
    axes = figure.subplots()
    at = [point["at"] for point in points]
    for number, (name, words) in enumerate(metrics.items()):
        found, colour = [point[name] for point in points], f"C{number}"
        axes.plot(at, [each["value"] for each in found], "o-", color=colour, markersize=4, label=words)
        low, high = ([_end(each, end) for each in found] for end in ("low", "high"))
        axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.axhline(found[0]["chance"], color=colour, linestyle="--", linewidth=1, label=f"{words}, chance")
    if doubling:
        axes.set_xscale("log", base=2)
        axes.set_xticks(at, [f"{each:g}" for each in at])
    axes.set(xlabel=axis, ylabel="accuracy", ylim=(0, None))
    axes.set_title(title, fontsize="small", wrap=True)  # what it says of its numbers must not be cut off
    axes.legend(fontsize="small", frameon=False)
    figure.savefig(path)


def _end(metric: Mapping[str, Any], end: str) -> float:
    """Give an end of the band; it has no width where there is no interval."""
    return float(metric["value"] if metric[end] is None else metric[end])
