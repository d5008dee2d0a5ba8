"""Topographies on the head and butterfly plots of channels, drawn by mne."""

from typing import Any

import numpy as np

from brainhive_cli.core.arrays import Array, Float64
from brainhive_cli.core.artifacts import Evoked

HEAD_RADIUS_M = 0.095
"""Radius of the head in mne."""
MIN_SENSORS = 4
"""Fewest values that mne can interpolate."""
BUTTERFLY_INCH = 1.9
"""Height of a butterfly plot with the labels of its axes."""
TOPOGRAPHY_INCH = 1.25
"""Height of a row of topographies with their times."""
LEFT_INCH, RIGHT_INCH = 0.42, 0.42
"""Margins of the butterfly plot, for numbers and for the colour bar above it."""
SMALL_RESOLUTION = 64
"""Pixels along a side of a topography above a butterfly plot."""
GAP_INCH = 0.18
"""Gap between topographies and the butterfly plot, in which its unit stands."""
AXIS_INCH = 0.42
"""Height of the labels below the butterfly plot."""
INK, SOFT = "#1c1f23", "#5d6570"
"""Colours of the style, which a page replaces by its own."""
MAX_DARK = 0.25
"""Largest red, green or blue of a colour that is hard to see on a dark page."""
MNE_POWER_COLOUR = (0.0, 1.0, 0.0)
"""Colour of the field power, if mne does not colour channels."""
TYPE = "eeg"
"""Type of all channels for mne. Units and positions are passed to it separately."""


def draw_topography(
    axes: Any,
    positions: Float64,
    values: Array,
    colour_map: str,
    colour_range: tuple[float, float],
    resolution: int = 200,
) -> tuple[Any, Float64]:
    """Draw values of sensors on a head.

    Values are interpolated between sensors. The sensors are coloured dots instead if
    they are fewer than `MIN_SENSORS` or on a line or circle, or if a value is not
    finite.

    Args:
        axes: Axes of matplotlib.
        positions: Flat positions [C, 2]. The head has the radius 1.
        values: Values [C].
        colour_map: Name of a colour map of matplotlib.
        colour_range: Values of the first and the last colour.
        resolution: Number of pixels along a side of the interpolated picture.

    Returns:
        Artist with the colours, and the positions [C, 2] in the axes.
    """
    import mne
    from matplotlib.patches import Circle

    # scale the positions, so that sensors below the ears lie inside the outline
    largest_radius = np.linalg.norm(positions, axis=1).max()
    positions_m = positions * (HEAD_RADIUS_M / max(1, largest_radius))

    # mne cannot interpolate sensors on a line or a circle, such as a headband; on a
    # paraboloid, such points lie in a plane
    lifted = np.column_stack([positions_m, np.square(positions_m).sum(1)])
    covers_area = np.linalg.matrix_rank(lifted - lifted.mean(0), tol=1e-6) == 3
    has_enough_sensors = len(positions) >= MIN_SENSORS
    is_interpolated = has_enough_sensors and covers_area and np.isfinite(values).all()

    # without interpolation, mne draws only the outline, from zeros at four positions
    map_values = values
    map_positions = positions_m
    if not is_interpolated:
        map_values = np.zeros(4)
        map_positions = HEAD_RADIUS_M * np.array(((0, 1), (1, 0), (0, -1), (-0.5, 0)))
    with mne.use_log_level("ERROR"):
        mappable, contours = mne.viz.plot_topomap(
            map_values,
            map_positions,
            axes=axes,
            show=False,
            sensors=False,
            cmap=colour_map,
            vlim=colour_range,
            contours=4,
            res=resolution,
            sphere=(0, 0, 0, HEAD_RADIUS_M),
            extrapolate="local",  # nothing is drawn away from the sensors
        )
    for artist in filter(None, (mappable, contours)):
        artist.set_clip_path(Circle((0, 0), HEAD_RADIUS_M, transform=axes.transData))
    if not is_interpolated:
        mappable.remove()
        mappable = axes.scatter(*positions_m.T, c=values, s=60, cmap=colour_map)
        mappable.set_clim(colour_range)
    axes.scatter(*positions_m.T, s=3, color="black")
    return mappable, positions_m


def draw_joint_plot(figure: Any, evoked: Evoked, height_inch: float) -> None:
    """Draw a butterfly plot with topographies above it, as mne's joint plot.

    Without positions, there are no topographies and no colours of channels.

    Args:
        figure: Figure of matplotlib.
        evoked: Response of all channels.
        height_inch: Height of the plot, from the bottom of the figure.
    """
    from matplotlib.patches import ConnectionPatch

    width_inch = figure.get_figwidth()
    figure_inch = figure.get_figheight()
    times_ms = np.asarray(evoked.times_ms)
    topography_ms = evoked.topography_ms if evoked.positions else ()
    top_inch = height_inch - (TOPOGRAPHY_INCH if topography_ms else 0) - 0.05
    plot_width_inch = width_inch - LEFT_INCH - RIGHT_INCH
    butterfly = figure.add_axes(
        (
            LEFT_INCH / width_inch,
            AXIS_INCH / figure_inch,
            plot_width_inch / width_inch,
            (top_inch - AXIS_INCH) / figure_inch,
        )
    )
    _draw_butterfly(butterfly, evoked)
    if not topography_ms:
        return

    # the topographies share the colours, in which 0 is white
    from brainhive_cli.reports.head_maps import flatten_positions

    positions = flatten_positions(np.asarray(evoked.positions))
    columns = np.searchsorted(times_ms, topography_ms)
    topographies = np.asarray(evoked.values)[:, columns]  # [C, K]
    limit = float(np.abs(topographies).max())
    side_inch = TOPOGRAPHY_INCH - 0.35
    for index, time_ms in enumerate(topography_ms):
        centre_inch = LEFT_INCH + plot_width_inch * (index + 0.5) / len(topography_ms)
        axes = figure.add_axes(
            (
                (centre_inch - side_inch / 2) / width_inch,
                (top_inch + GAP_INCH) / figure_inch,
                side_inch / width_inch,
                side_inch / figure_inch,
            )
        )
        mappable, _ = draw_topography(
            axes,
            positions,
            topographies[:, index],
            "RdBu_r",
            (-limit, limit),
            resolution=SMALL_RESOLUTION,
        )
        axes.set_title(f"{time_ms:.0f} ms", fontsize="small", loc="center", pad=2)
        line = ConnectionPatch(
            (0, -HEAD_RADIUS_M),
            (time_ms, 1),
            axes.transData,
            butterfly.get_xaxis_transform(),
            color=SOFT,
            linewidth=0.8,
        )
        figure.add_artist(line)
        butterfly.axvline(time_ms, color=SOFT, linewidth=0.8)

    bar_axes = figure.add_axes(
        (
            (width_inch - RIGHT_INCH + 0.08) / width_inch,
            (top_inch + GAP_INCH) / figure_inch,
            0.06 / width_inch,
            (side_inch - 0.1) / figure_inch,
        )
    )
    bar = figure.colorbar(mappable, cax=bar_axes, format="{x:g}", ticks=(0, limit))
    bar.set_ticks((-limit, 0, limit), labels=(f"{-limit:.2g}", "0", f"{limit:.2g}"))
    bar.ax.tick_params(labelsize="x-small", length=0, pad=2)
    bar.outline.set_visible(False)


def _draw_butterfly(axes: Any, evoked: Evoked) -> None:
    """Draw the response of each channel and the global field power, with mne."""
    import mne

    from brainhive_cli.reports.head_maps import fit_sphere

    # mne plots channels of one type; the scalings keep the unit of the values
    times_s = np.asarray(evoked.times_ms) / 1000
    rate_hz = (len(times_s) - 1) / (times_s[-1] - times_s[0])
    info = mne.create_info(list(evoked.channels), rate_hz, TYPE, verbose="ERROR")
    sphere = None
    if evoked.positions:
        positions_m = np.asarray(evoked.positions)
        for channel, position in zip(info["chs"], positions_m, strict=True):
            channel["loc"][:3] = position
        centre_m, radius_m = fit_sphere(positions_m)
        sphere = (*centre_m, radius_m)
    response = mne.EvokedArray(
        np.asarray(evoked.values), info, tmin=times_s[0], verbose="ERROR"
    )
    with mne.use_log_level("ERROR"):
        response.plot(
            axes=axes,
            show=False,
            gfp=True,
            spatial_colors=bool(evoked.positions),
            units={TYPE: evoked.value},
            scalings={TYPE: 1},
            titles={TYPE: ""},
            selectable=False,
            time_unit="ms",
            sphere=sphere,
        )

    # the number of averages is unknown to mne, and white outlines suit white pages only
    for text in axes.texts:
        text.set_path_effects([])
        if text.get_text().startswith("N$"):
            text.set_visible(False)
    for line in axes.lines:
        line.set_linewidth(0.6)
    _recolour(axes)
    axes.grid(axis="x", visible=False)
    axes.set_title(evoked.value, color=SOFT, fontsize="small", pad=3)
    axes.set(xlabel="ms after onset", ylabel="")
    axes.yaxis.set_major_formatter("{x:g}")
    for mark in evoked.marks.values():
        start_ms, stop_ms = mark if isinstance(mark, tuple) else (mark, None)
        if stop_ms is not None:
            axes.axvspan(start_ms, stop_ms, color=SOFT, alpha=0.15, linewidth=0)
        axes.axvline(start_ms, color=SOFT, linestyle=":", linewidth=1)


def _recolour(axes: Any) -> None:
    """Draw dark lines and texts of mne, and its green field power, in our colours."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgb
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

    for artist in axes.findobj(lambda artist: isinstance(artist, Line2D | Text)):
        colour = to_rgb(artist.get_color())
        if max(colour) < MAX_DARK or colour == MNE_POWER_COLOUR:
            artist.set_color(INK)
    for area in axes.findobj(PolyCollection):
        area.set(facecolor=SOFT, alpha=0.3)
