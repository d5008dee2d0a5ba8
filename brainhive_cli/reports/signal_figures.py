"""Figures of a recording: evoked response with scalp maps, reliability, noise ceiling by region."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core.errors import MissingExtra
from brainhive_cli.data.stores.recordings import Sensors
from brainhive_cli.reports.head_map import known_places

MAPS = 4
"""Scalp maps, at the highest peaks of the global field power."""
REGIONS = 8
"""Regions in one figure: more cannot be distinguished."""
APART = 20
"""Two maps are of peaks at least this part of the window apart."""
MIXTURES = "whitened channels"
"""Unit of whitened signals whose whiteners are not known: each is a mixture of channels, and has no place."""
DOTS_PER_INCH = 130
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


def draw_reliability(path: Path, found: Values, times_s: Values, channels: Sequence[str], title: str) -> None:
    """Draw the split-half reliability [C, T] as a map, and its median over channels above it."""
    figure = _figure((8, max(4.0, 1.8 + 0.11 * len(channels))))
    above, axes = figure.subplots(2, 1, sharex=True, height_ratios=(1, 4))
    times_ms = times_s * 1000
    above.plot(times_ms, np.median(found, axis=0), color="C0")
    above.set(ylabel="median", ylim=(min(0, float(np.median(found, axis=0).min())), 1))
    edges = (times_ms[0], times_ms[-1], len(channels) - 0.5, -0.5)
    shown = axes.imshow(
        found, aspect="auto", extent=edges, vmin=0, vmax=1, cmap="viridis", interpolation="none"
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
        own = ceiling[regions[name]]
        label = f"{name} ({len(own):,}; median {np.median(own):.0f} %)"
        axes.hist(own, edges, histtype="step", linewidth=1.4, density=True, label=label)
    axes.set(xlabel="noise ceiling, % of variance", ylabel="density of voxels", xlim=(0, 100))
    axes.legend(frameon=False, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path)


def _figure(size_inch: tuple[float, float]) -> Any:
    from matplotlib.figure import Figure

    return Figure(size_inch, DOTS_PER_INCH, layout="constrained")  # no pyplot: it keeps figures


def _places(sensors: Sensors) -> tuple[NDArray[np.int64], Any] | None:
    """Find which channels have a known place on the head, and mne's description of these."""
    if (found := known_places(sensors)) is None:
        return None
    import mne

    known, positions = found
    info = mne.create_info([sensors.names[row] for row in known.tolist()], 1000.0, "eeg", verbose="ERROR")
    for channel, position in zip(info["chs"], positions, strict=True):
        channel["loc"][:3] = position
    return known, info


def _peaks(power: Values) -> list[int]:
    """Find the highest peaks, in the order of time; the highest samples where there are too few."""
    from scipy.signal import find_peaks

    found = find_peaks(power, distance=max(1, len(power) // APART))[0]
    found = found if len(found) >= MAPS else np.arange(len(power))
    return sorted(found[np.argsort(power[found])[-MAPS:]].tolist())
