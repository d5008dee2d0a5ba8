"""A curve of accuracy with its interval and the line of chance, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from brainhive_cli.core.errors import MissingExtra
from brainhive_cli.core.measurements import Metric

SIZE_INCH = (6.0, 3.6)
DOTS_PER_INCH = 150


def require_matplotlib() -> None:
    """Refuse curves before the work if they cannot be drawn.

    Raises:
        MissingExtra: if matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtra("curves need matplotlib", "pip install 'brainhive[figures]'") from error


def draw_curve(
    path: Path,
    at: Sequence[float],
    lines: Mapping[str, Sequence[Metric]],
    axis: str,
    title: str,
    is_logarithmic: bool = False,
) -> None:
    """Draw metrics over a number, each with its 95 % interval as a band and its chance as a broken line.

    Args:
        path: The picture.
        at: [N] places along the axis.
        lines: Metrics at each place, [N] by what the legend calls them.
        axis: What `at` is.
        title: What it is a curve of.
        is_logarithmic: Whether equal steps along the axis are doublings.
    """
    from matplotlib.figure import Figure

    figure = Figure(SIZE_INCH, DOTS_PER_INCH, layout="constrained")  # no pyplot: it keeps figures
    axes = figure.subplots()
    for number, (words, found) in enumerate(lines.items()):
        colour = f"C{number}"
        axes.plot(at, [each.value for each in found], "o-", color=colour, markersize=4, label=words)
        low = [each.value if each.low is None else each.low for each in found]
        high = [each.value if each.high is None else each.high for each in found]
        axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
        if (chance := found[0].chance) is not None:
            axes.axhline(chance, color=colour, linestyle="--", linewidth=1, label=f"{words}, chance")
    if is_logarithmic:
        axes.set_xscale("log", base=2)
        axes.set_xticks(at, [f"{each:g}" for each in at])
    axes.set(xlabel=axis, ylabel="accuracy", ylim=(0, None))
    axes.set_title(title, fontsize="small", wrap=True)  # its caveats must not be cut off
    axes.legend(fontsize="small", frameon=False)
    figure.savefig(path)
