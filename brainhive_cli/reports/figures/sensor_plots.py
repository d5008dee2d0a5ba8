"""Topographies on the head and butterfly plots of channels, drawn by mne."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from brainhive_cli.core.base import Float64
from brainhive_cli.core.runs import Evoked, Mark, Point

INK, SOFT = "#1c1f23", "#5d6570"
"""Colours of the style, which a page replaces by its own."""
HEAD_STYLE: Any = {"axes.edgecolor": "grey", "axes.titlelocation": "center"}
"""Style of heads. Grey outlines can be seen on a white map and on a dark page."""


def draw_topography(
    axes: Any,
    points: Sequence[Point],
    colour_map: str,
    colour_range: tuple[float, float],
) -> Any:
    """Draw values of sensors on a head, interpolated between the sensors.

    A sensor is named if its name has room next to the names of the sensors before it.

    Args:
        axes: Axes of matplotlib.
        points: Sensors with their values.
        colour_map: Name of a colour map of matplotlib.
        colour_range: Values of the first and the last colour.

    Returns:
        Artist with the colours.
    """
    import mne
    from matplotlib import rc_context

    # scale the positions, so that sensors below the ears lie inside the outline
    positions = np.array([[point.x, point.y] for point in points])  # [C, 2]
    positions /= max(1, np.linalg.norm(positions, axis=1).max())
    # Radius of the head in mne.
    head_radius_m = 0.095
    with mne.use_log_level("ERROR"), rc_context(HEAD_STYLE):
        mappable, _ = mne.viz.plot_topomap(
            np.array([point.value for point in points], float),
            shift_sensors(positions * head_radius_m),
            axes=axes,
            show=False,
            names=_select_names([point.name for point in points], positions),
            cmap=colour_map,
            vlim=colour_range,
            contours=4,
            res=150,
            sphere=(0, 0, 0, head_radius_m),
            extrapolate="local",  # nothing is drawn away from the sensors
        )
    _clip_to_head(axes, 0, 0, head_radius_m)
    for text in axes.texts:
        text.set(color="black", fontsize="xx-small", va="bottom")
        text.set_bbox({"color": "white", "alpha": 0.6, "pad": 0.2, "linewidth": 0})
    return mappable


def _select_names(names: Sequence[str], positions: Float64) -> list[str]:
    """Replace each name that would touch an earlier name by an empty name.

    Args:
        names: Names [C] of the sensors.
        positions: Flat positions [C, 2] in radii of the head.
    """
    selected: list[str] = []
    for name, (x, y) in zip(names, positions, strict=True):
        has_room = True
        for other, (other_x, other_y) in zip(selected, positions, strict=False):
            # Width of a letter in the name of a sensor, in radii of the head.
            width = 0.045 * (len(name) + len(other)) / 2
            # Height of the name of a sensor, in radii of the head.
            is_apart = abs(x - other_x) > width or abs(y - other_y) > 0.09
            has_room &= is_apart or not other
        selected.append(name if has_room else "")
    return selected


def _clip_to_head(axes: Any, x_m: float, y_m: float, radius_m: float) -> None:
    """Hide the interpolated map outside of the head, which is a circle."""
    from matplotlib.patches import Circle

    head = Circle((x_m, y_m), radius_m, transform=axes.transData)
    for artist in [*axes.images, *axes.collections]:
        artist.set_clip_path(head)


def shift_sensors(positions: Float64) -> Float64:
    """Shift sensors at positions [C, D] in metres by up to 1e-4 at random."""
    random = np.random.default_rng(0)
    # Largest shift of a sensor. Sensors exactly on a circle cannot be interpolated.
    max_shift_m = 1e-4
    return positions + random.uniform(-max_shift_m, max_shift_m, positions.shape)


def draw_evoked(figure: Any, evoked: Evoked) -> None:
    """Draw a butterfly plot with topographies above it, as mne's joint plot.

    Without positions or times of topographies, all channels have the same colour.

    Args:
        figure: Empty figure of matplotlib.
        evoked: Response of all channels.
    """
    import mne
    from matplotlib import rc_context

    from brainhive_cli.reports.figures.head_maps import fit_sphere

    # mne plots channels of one type; the scalings keep the unit of the values
    times_s = np.asarray(evoked.times_ms) / 1000
    rate_hz = (len(times_s) - 1) / (times_s[-1] - times_s[0])
    # Type of all channels for mne. Units and positions are passed to it separately.
    sensor_type = "eeg"
    info = mne.create_info(list(evoked.channels), rate_hz, sensor_type, verbose="ERROR")
    response = mne.EvokedArray(
        np.asarray(evoked.values), info, tmin=times_s[0], verbose="ERROR"
    )
    response.nave = None  # the number of averages is unknown to mne
    options = {"scalings": {sensor_type: 1}, "time_unit": "ms"}
    line_options = {
        "gfp": True,
        "units": {sensor_type: evoked.value},
        "titles": {sensor_type: ""},
        "selectable": False,
        **options,
    }
    # Height of a butterfly plot with the labels of its axes.
    butterfly_inch = 1.9
    if not (evoked.positions and evoked.topography_ms):
        figure.set_figheight(butterfly_inch)
        butterfly = figure.subplots()
        with mne.use_log_level("ERROR"):
            response.plot(axes=butterfly, show=False, **line_options)
        butterfly.lines[-1].set_color(INK)  # mne draws the field power in green
        _style_butterfly(butterfly, evoked)
        return

    positions_m = shift_sensors(np.asarray(evoked.positions))
    for channel, position in zip(response.info["chs"], positions_m, strict=True):
        channel["loc"][:3] = position
    centre_m, radius_m = fit_sphere(positions_m)
    sphere = (*centre_m, radius_m)

    # the topographies share their colours, of which 0 is white
    samples = np.searchsorted(evoked.times_ms, evoked.topography_ms)
    limit = float(np.abs(response.data[:, samples]).max())

    # Height of a row of topographies with their times.
    topography_inch = 1.25
    # a column for each topography, and a narrow one for their colour bar
    figure.set_figheight(topography_inch + butterfly_inch)
    n_topographies = len(evoked.topography_ms)
    grid = figure.add_gridspec(
        2,
        n_topographies + 1,
        width_ratios=[1] * n_topographies + [0.08],
        height_ratios=[1, 1.6],
    )
    butterfly = figure.add_subplot(grid[1, :])
    columns = range(n_topographies + 1)
    panels = [figure.add_subplot(grid[0, column]) for column in columns]
    with mne.use_log_level("ERROR"), rc_context(HEAD_STYLE):
        response.plot_joint(
            [time_ms / 1000 for time_ms in evoked.topography_ms],
            title=None,
            show=False,
            ts_args={"axes": butterfly, "sphere": sphere, **line_options},
            topomap_args={
                "axes": panels,
                "sphere": sphere,
                "cmap": "RdBu_r",
                "vlim": (-limit, limit),
                "contours": 4,
                "extrapolate": "local",
                **options,
            },
        )
    for panel in panels[:-1]:
        _clip_to_head(panel, centre_m[0], centre_m[1], radius_m)
    _style_butterfly(butterfly, evoked)


def _style_butterfly(axes: Any, evoked: Evoked) -> None:
    """Replace the dark lines and the labels of mne, and draw marks."""
    from matplotlib.colors import to_rgb

    for line in axes.lines:
        # Largest red, green or blue of a colour that is hard to see on a dark page.
        if max(to_rgb(line.get_color())) < 0.25:
            line.set_color(INK)
    for text in axes.texts:
        text.set_path_effects([])  # white outlines suit white pages only
        text.set_color(INK)
    for area in axes.collections:
        area.set(facecolor=SOFT, alpha=0.3)
    for patch in axes.patches:
        patch.set_in_layout(False)  # a line to a topography needs no room of its own
    axes.grid(axis="x", visible=False)
    axes.set_title(evoked.value)
    axes.set(xlabel="ms after onset", ylabel="")
    axes.yaxis.set_major_formatter("{x:g}")
    for mark in evoked.marks.values():
        draw_mark(axes, mark)


def draw_mark(axes: Any, mark: Mark) -> None:
    """Draw a time as a dotted line, or an interval as a line and a shaded span."""
    start, stop = mark if isinstance(mark, tuple) else (mark, mark)
    axes.axvspan(start, stop, color=SOFT, alpha=0.15, linewidth=0)
    axes.axvline(start, color=SOFT, linestyle=":", linewidth=1)
