"""Figures by matplotlib: artifacts of runs for papers, and recordings on a page."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.artifacts import Curve, Heatmap, Line, Map
from brainhive_cli.core.errors import MissingExtra
from brainhive_cli.data.stores.recordings import Sensors

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
            (_draw_bars if bars else _draw_lines)(axes, artifact)
        case Heatmap():
            _draw_matrix(figure, axes, artifact)
        case Map():
            _draw_head(figure, axes, artifact)
    axes.set_title(artifact.title, fontsize="small", wrap=True)
    return figure


def _draw_lines(axes: Any, curve: Curve) -> None:
    at = [float(place) for place in curve.at]
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


def _draw_bars(axes: Any, curve: Curve) -> None:
    thick = 0.8 / len(curve.lines)
    for number, line in enumerate(curve.lines):
        at = np.arange(len(curve.at)) + (number - (len(curve.lines) - 1) / 2) * thick
        values, errors = _numbers(line.values), None
        if line.low is not None and line.high is not None:
            errors = np.maximum([values - _numbers(line.low), _numbers(line.high) - values], 0)
        axes.barh(at, values, thick, xerr=errors, color=_colour(line, number), label=line.name, ecolor="0.3")
    axes.set_yticks(range(len(curve.at)), list(map(str, curve.at)), fontsize="x-small")
    axes.invert_yaxis()
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set(xlabel=curve.value)
    axes.legend(fontsize="x-small", frameon=False)


def _draw_matrix(figure: Any, axes: Any, matrix: Heatmap) -> None:
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


def _draw_head(figure: Any, axes: Any, head: Map) -> None:
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
    return np.array([np.nan if value is None else value for value in values], float)


MAPS = 4
"""Scalp maps, at the highest peaks of the global field power."""
REGIONS = 8
"""Regions in one figure: more cannot be distinguished."""
APART = 20
"""Two maps are of peaks at least this part of the window apart."""
MIXTURES = "whitened channels"
"""Unit of whitened signals whose whiteners are not known: each is a mixture of channels, and has no place."""
SIGNAL_DOTS_PER_INCH = 130
Values = NDArray[np.float64]


def require_matplotlib() -> None:
    """Refuse figures before the work if they cannot be drawn.

    Raises:
        MissingExtra: if matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtra("figures need matplotlib", "pip install 'brainhive[figures]'") from error


def draw_evoked(path: Path, evoked: Values, times_s: Values, sensors: Sensors, unit: str, title: str) -> bool:
    """Draw the evoked response of all channels and its global field power, with scalp maps at peaks.

    A channel is drawn in maps where the recording has its position; of recordings without any positions,
    where mne's `standard_1005` knows its name. Without mne there are no maps.

    Args:
        path: The picture.
        evoked: [C, T].
        times_s: [T] seconds after onset.
        sensors: The C channels; without maps where they are mixtures of channels (`unit` is `MIXTURES`).
        unit: Of `evoked`.
        title: What was averaged.

    Returns:
        Whether maps are drawn.
    """
    figure, power, times_ms = _figure((8, 5)), evoked.std(0), times_s * 1000
    places = None if unit == MIXTURES else _places(sensors)
    grid = figure.add_gridspec(2, MAPS, height_ratios=(1, 1.4)) if places else figure.add_gridspec(1, 1)
    axes = figure.add_subplot(grid[-1, :])
    axes.plot(times_ms, evoked.T, color="0.6", linewidth=0.5)
    axes.plot(times_ms, power, color="C3", linewidth=1.8, label="global field power")
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set(xlabel="ms after onset", ylabel=unit, xlim=(times_ms[0], times_ms[-1]))
    axes.legend(frameon=False, fontsize="small", loc="upper right")
    figure.suptitle(title, fontsize="medium")
    if places:
        known, info = places
        most = np.abs(evoked[known]).max()
        for column, peak in enumerate(_peaks(power)):
            axes.axvline(times_ms[peak], color="C3", linewidth=0.6, linestyle=":")
            above = figure.add_subplot(grid[0, column])
            _draw_map(above, evoked[known, peak], info, most)
            above.set_title(f"{times_ms[peak]:.0f} ms", fontsize="small")
    figure.savefig(path)
    return places is not None


def _draw_map(axes: Any, values: Values, info: Any, most: float) -> None:
    import mne

    mne.viz.plot_topomap(values, info, axes=axes, show=False, vlim=(-most, most), contours=4)


def draw_reliability(
    path: Path, reliability: Values, times_s: Values, channels: Sequence[str], title: str
) -> None:
    """Draw the split-half reliability [C, T] as a map, and its median over channels above it."""
    figure = _figure((8, max(4.0, 1.8 + 0.11 * len(channels))))
    above, axes = figure.subplots(2, 1, sharex=True, height_ratios=(1, 4))
    times_ms = times_s * 1000
    above.plot(times_ms, np.median(reliability, axis=0), color="C0")
    above.set(ylabel="median", ylim=(min(0, float(np.median(reliability, axis=0).min())), 1))
    edges = (times_ms[0], times_ms[-1], len(channels) - 0.5, -0.5)
    shown = axes.imshow(
        reliability, aspect="auto", extent=edges, vmin=0, vmax=1, cmap="viridis", interpolation="none"
    )
    axes.set_yticks(range(len(channels)), channels, fontsize=5 if len(channels) <= 80 else 2)
    axes.set(xlabel="ms after onset")
    figure.colorbar(shown, ax=(above, axes), label="correlation of halves, Spearman-Brown corrected")
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path)


def draw_regions(path: Path, ceiling: Values, regions: Mapping[str, NDArray[np.bool_]], title: str) -> None:
    """Draw how the noise ceiling [V], in percent, is distributed over the voxels of the largest regions."""
    figure = _figure((8, 4.5))
    axes, edges = figure.subplots(), np.linspace(0, 100, 41)
    largest = sorted(regions, key=lambda name: -int(regions[name].sum()))[:REGIONS]
    for name in (name for name in regions if name in largest and regions[name].any()):
        voxels = ceiling[regions[name]]
        label = f"{name} ({len(voxels):,}; median {np.median(voxels):.0f} %)"
        axes.hist(voxels, edges, histtype="step", linewidth=1.4, density=True, label=label)
    axes.set(xlabel="noise ceiling, % of variance", ylabel="density of voxels", xlim=(0, 100))
    axes.legend(frameon=False, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path)


def _figure(size_inch: tuple[float, float]) -> Any:
    from matplotlib.figure import Figure

    return Figure(size_inch, SIGNAL_DOTS_PER_INCH, layout="constrained")  # no pyplot: it keeps figures


def _places(sensors: Sensors) -> tuple[NDArray[np.int64], Any] | None:
    """Find which channels have a known place on the head, and mne's description of these."""
    if (places := known_places(sensors)) is None:
        return None
    import mne

    known, positions = places
    info = mne.create_info([sensors.names[row] for row in known.tolist()], 1000.0, "eeg", verbose="ERROR")
    for channel, position in zip(info["chs"], positions, strict=True):
        channel["loc"][:3] = position
    return known, info


def _peaks(power: Values) -> list[int]:
    """Find the highest peaks, in the order of time; the highest samples where there are too few."""
    from scipy.signal import find_peaks

    peaks = find_peaks(power, distance=max(1, len(power) // APART))[0]
    peaks = peaks if len(peaks) >= MAPS else np.arange(len(power))
    return sorted(peaks[np.argsort(power[peaks])[-MAPS:]].tolist())


FEWEST = 4
"""Channels with a known place that a map is drawn of."""
MONTAGE = "standard_1005"
"""Where mne has the electrodes of the 10-05 system; its newest version calls it colin27_1005, too."""


def known_places(sensors: Sensors) -> tuple[NDArray[np.int64], Values] | None:
    """Find which channels have a known place on the head.

    Those are the recording's positions; of recordings without any, the electrodes of the 10-05 system.

    Returns:
        Which channels [K], and their places [K, 3] in metres; None where there are too few, or two in one
        place, as gradiometers have, or mne is not installed.
    """
    try:
        import mne  # noqa: F401
    except ImportError:
        return None
    positions = _standard(sensors.names) if sensors.positions is None else sensors.positions  # [C, 3]
    known = np.flatnonzero(np.isfinite(positions).all(1) & positions.any(1))
    _, first = np.unique(positions[known].round(4), axis=0, return_index=True)
    if len(known) < FEWEST or len(first) < len(known):
        return None
    return known, positions[known]


def flattened(places: Values) -> Values:
    """Project places on a head [K, 3] on a plane [K, 2], nose up; 1 is the height of the ears.

    Distances from the top are angles, as seen from the centre of the sphere that fits the places best.
    """
    system = np.column_stack([2 * places, np.ones(len(places))])
    centre = np.linalg.lstsq(system, np.square(places).sum(1), rcond=None)[0][:3]
    away = places - centre
    angle = np.arctan2(np.hypot(away[:, 0], away[:, 1]), away[:, 2])
    direction = np.arctan2(away[:, 1], away[:, 0])
    plane: Values = (angle / (np.pi / 2))[:, None] * np.stack([np.cos(direction), np.sin(direction)], 1)
    return plane


def _standard(names: Sequence[str]) -> Values:
    """Look up electrodes [C, 3] of the 10-05 system, in head coordinates; NaN for other names."""
    import mne

    # mne would print the montage's new name to stdout
    with mne.use_log_level("ERROR"), warnings.catch_warnings(action="ignore"):
        standard = mne.channels.transform_to_head(mne.channels.make_standard_montage(MONTAGE))
    places = standard.get_positions()["ch_pos"]
    return np.array([places.get(name, (np.nan,) * 3) for name in names], np.float64)
