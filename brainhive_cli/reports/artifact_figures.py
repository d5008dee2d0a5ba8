"""Artifacts as figures for papers: curves, bars, matrices and head maps, as PNG and SVG."""

from typing import Any

import numpy as np

from brainhive_cli.core.artifacts import Curve, Heatmap, Line, Map

SIZE_INCH = (6.4, 3.6)
ROW_INCH = 0.16
DOTS_PER_INCH = 150
CONTROL = "shuffled"
"""What the name of a control begins with: it is drawn in grey."""
HEAD_M = 0.095
"""Radius of mne's head."""
NAMES = 24
"""Names of rows or columns that can be read next to a matrix."""


def artifact_figure(artifact: Curve | Heatmap | Map) -> Any:
    """Draw an artifact: a curve, a matrix, or sensors on a head; returns matplotlib's figure, to be saved."""
    from matplotlib.figure import Figure

    bars = isinstance(artifact, Curve) and artifact.style == "bars"
    rows = len(artifact.at) * (1 + len(artifact.lines)) if isinstance(artifact, Curve) and bars else 0
    height = max(SIZE_INCH[1], 1.4 + ROW_INCH * rows)
    figure = Figure(
        (SIZE_INCH[0], height), DOTS_PER_INCH, layout="constrained"
    )  # no pyplot: it keeps figures
    axes = figure.subplots()
    match artifact:
        case Curve():
            (_bars if bars else _lines)(axes, artifact)
        case Heatmap():
            _matrix(figure, axes, artifact)
        case Map():
            _head(figure, axes, artifact)
    axes.set_title(artifact.title, fontsize="small", wrap=True)
    return figure


def _lines(axes: Any, curve: Curve) -> None:
    at = [float(each) for each in curve.at]
    for number, line in enumerate(curve.lines):
        colour = _colour(line, number)
        axes.plot(at, _numbers(line.values), color=colour, label=line.name, linewidth=1.5)
        if line.low is not None and line.high is not None:
            ends = _numbers(line.low), _numbers(line.high)
            axes.fill_between(at, *ends, color=colour, alpha=0.2, linewidth=0)
    if (chance := curve.lines[0].chance) is not None:
        axes.axhline(chance, color="0.3", linestyle="--", linewidth=0.8)
    for name, place in curve.marks.items():
        axes.axvline(place, color="0.3", linestyle=":", linewidth=0.8)
        ha = "left" if place < (at[0] + at[-1]) / 2 else "right"  # into the drawing, not out of it
        how = {"xycoords": ("data", "axes fraction"), "fontsize": "x-small", "va": "top", "ha": ha}
        axes.annotate(name, (place, 1), **how)
    axes.set(xlabel=curve.axis, ylabel=curve.value)
    axes.legend(fontsize="x-small", frameon=False)


def _bars(axes: Any, curve: Curve) -> None:
    thick = 0.8 / len(curve.lines)
    for number, line in enumerate(curve.lines):
        at = np.arange(len(curve.at)) + (number - (len(curve.lines) - 1) / 2) * thick
        values, errors = _numbers(line.values), None
        if line.low is not None and line.high is not None:
            errors = np.maximum([values - _numbers(line.low), _numbers(line.high) - values], 0)
        axes.barh(at, values, thick, xerr=errors, color=_colour(line, number), label=line.name, ecolor="0.3")
    axes.set_yticks(range(len(curve.at)), [str(each) for each in curve.at], fontsize="x-small")
    axes.invert_yaxis()
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set(xlabel=curve.value)
    axes.legend(fontsize="x-small", frameon=False)


def _matrix(figure: Any, axes: Any, matrix: Heatmap) -> None:
    values = np.array([_numbers(row) for row in matrix.values])
    most = matrix.high if matrix.high is not None else float(np.nanmax(np.abs(values)))
    low = -most if matrix.is_diverging else matrix.low
    colours = {"cmap": "RdBu_r" if matrix.is_diverging else "viridis", "vmin": low, "vmax": most}
    shown = axes.imshow(values, aspect="auto", interpolation="none", **colours)
    for names, put in ((matrix.rows, axes.set_yticks), (matrix.columns, axes.set_xticks)):
        step = max(1, -(-len(names) // NAMES))
        put(range(0, len(names), step), names[::step], fontsize="xx-small")
    axes.tick_params(axis="x", rotation=90)
    axes.set(xlabel=matrix.column_axis, ylabel=matrix.row_axis)
    figure.colorbar(shown, ax=axes, label=matrix.value)


def _head(figure: Any, axes: Any, head: Map) -> None:
    import mne

    places = np.array([[point.x, point.y] for point in head.points]) * HEAD_M
    values = _numbers([point.value for point in head.points])
    most = float(np.abs(values).max()) or 1.0
    limits = (-most, most) if head.is_diverging else (None, None)
    with mne.use_log_level("ERROR"):
        shown, _ = mne.viz.plot_topomap(
            values,
            places,
            axes=axes,
            show=False,
            vlim=limits,
            contours=4,
            sphere=(0, 0, 0, HEAD_M),
            extrapolate="local",  # nothing is drawn where no sensor was
        )
    figure.colorbar(shown, ax=axes, label=head.value)


def _colour(line: Line, number: int) -> str:
    return "0.6" if line.name.startswith(CONTROL) or "on shuffled" in line.name else f"C{number}"


def _numbers(values: Any) -> Any:
    return np.array([np.nan if each is None else each for each in values], float)
