"""Evoked response of the channels of a recording, in its recorded unit."""

import numpy as np

from brainhive_cli.core.base import Float64
from brainhive_cli.core.runs import Evoked
from brainhive_cli.data.signals import WHITENED_UNIT, Sensors, Trials, Voxels, find_fact
from brainhive_cli.models import normalise_unit
from brainhive_cli.reports.figures.head_maps import locate_sensors

UNWHITENED = "before noise whitening"
"""Text behind the unit of an evoked response whose whitening was undone."""
MIXTURES = "whitened channels"
"""Unit of whitened signals whose whiteners are not stored. Whitened channels are
mixtures, so they have no position on the head.
"""


def name_unit(recording: Trials) -> str:
    """Name the unit of an evoked response, before whitening if that can be undone."""
    if recording.whiteners is not None:
        recorded_unit = find_fact(recording.provenance, "recorded_unit")
        recorded_unit = recorded_unit or "unknown unit"
        return f"{normalise_unit(recorded_unit)}, {UNWHITENED}"
    if recording.unit == WHITENED_UNIT:
        return MIXTURES
    return normalise_unit(recording.unit)


def draw_evoked(
    evoked: Float64,
    space: Sensors | Voxels,
    trials: Trials,
    title: str = "Evoked response",
) -> Evoked:
    """Draw an evoked response with topographies at peaks of its power.

    Channels without a position are left out if others have one. Mixtures of channels
    have no positions.

    Args:
        evoked: Response [C, T], before whitening if that can be undone.
        space: Channels of the response.
        trials: Trials with the times of the response.
        title: Title of the figure.
    """
    times_ms = (trials.times_s * 1000).round(3)
    unit = name_unit(trials.recorded or trials)
    sensors = np.arange(len(evoked))
    positions = np.empty((0, 3))
    if unit != MIXTURES:
        located_sensors, positions = locate_sensors(space)
        sensors = located_sensors if len(located_sensors) else sensors
    peaks = find_power_peaks(evoked.std(0), times_ms)
    peaks_ms = times_ms[peaks].tolist()

    notes = []
    marks = trials.stimulus_marks
    if any(isinstance(mark, tuple) for mark in marks.values()):
        notes.append("Shaded: the stimulus.")
    if len(sensors) < len(evoked):
        notes.append(f"{len(evoked) - len(sensors)} channels have no position.")
    if len(positions):
        listed_times = ", ".join(f"{time_ms:.0f}" for time_ms in peaks_ms)
        notes.append(
            "Topographies at the largest peaks of the global field power (GFP), "
            f"which were picked: {listed_times} ms."
        )
    else:
        notes.append("GFP: global field power.")
    return Evoked(
        title,
        times_ms=times_ms.tolist(),
        channels=[space.names[sensor] for sensor in sensors.tolist()],
        values=evoked[sensors].tolist(),
        positions=positions.tolist(),
        value=unit,
        topography_ms=peaks_ms,
        marks=marks,
        note=" ".join(notes),
    )


def find_power_peaks(field_power: Float64, times_ms: Float64) -> list[int]:
    """Find the samples of the largest peaks of the global field power, in order.

    Only times after onset count, if there are any. Without a peak, the largest value
    counts.

    Args:
        field_power: Global field power [T].
        times_ms: Times [T] after onset.
    """
    from scipy.signal import find_peaks

    is_after_onset = times_ms >= 0
    power = field_power
    if is_after_onset.any():
        power = np.where(is_after_onset, field_power, 0)
    # Peaks of the global field power are further apart than this share of the epoch.
    distance = max(1, len(power) // 15)
    peaks, _ = find_peaks(power, distance=distance)
    if not len(peaks):
        return [int(power.argmax())]
    # Largest number of topographies of an evoked response.
    largest = peaks[np.argsort(-power[peaks], kind="stable")[:3]]
    return sorted(largest.tolist())
