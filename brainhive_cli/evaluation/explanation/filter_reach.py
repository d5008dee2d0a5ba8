"""Simulation of how early filters show an effect before it begins.

A zero-phase filter spreads an effect to both sides. After a high-pass at 1 Hz, an
effect that begins at 250 ms is visible before the stimulus.
"""

from typing import Any

import numpy as np

from brainhive_cli.core.base import Float64
from brainhive_cli.data.recordings import filter_samples
from brainhive_cli.data.signals import Cutting, Steps, Trials


def find_latest_onsets(recording: Trials) -> Float64:
    """Find how late an effect may begin that is visible at each sample.

    Simulated effects that begin at each sample pass through the filter, baseline and
    resampling in the provenance. Filters of other programs count as zero-phase.

    Args:
        recording: Signals of sensors, with the provenance of their store.

    Returns:
        Latest onsets [T] in milliseconds after the stimulus:

        - The time of the sample, if no effect is visible before it begins.
        - inf, if an effect at the end of the trial may be visible.
        - NaN, if the filters are unknown.
    """
    times_ms = np.asarray(recording.times_s, np.float64) * 1000
    latest_of_sessions = []
    for session in recording.provenance.get("sessions") or [{}]:
        # facts of a session override facts of the store
        source = {**recording.provenance, **session}
        steps = source.get("preparation", {})
        if "epoch_ms" in steps or "filtered_hz" in source:
            latest_ms = _simulate(times_ms, recording.rate_hz or 0, source, steps)
        elif "simulated" in source and not steps:
            # simulated signals are not filtered
            latest_ms = times_ms
        else:
            latest_ms = np.full(len(times_ms), np.nan)
        latest_of_sessions.append(latest_ms)
    return np.asarray(np.max(latest_of_sessions, 0))


def _simulate(
    times_ms: Float64, rate_hz: float, source: dict[str, Any], steps: dict[str, Any]
) -> Float64:
    """Find the latest onsets [T] from simulated effects that begin at each sample.

    The provenance of a session is `source`, with the steps of its preparation.
    """
    from scipy.signal.windows import tukey

    # filters of the file, whose phase is unknown, and of the preparation
    recorded_hz = float(source.get("recorded_hz", rate_hz))
    bands = [
        (source.get("filtered_hz"), "zero"),
        (steps.get("band_hz"), steps.get("phase", "zero")),
    ]
    filters = []
    lowest_hz = None
    for band, phase in bands:
        low_hz, high_hz = band or (None, None)
        low_hz = low_hz or None
        # Share of the sampling rate from which an upper edge is ignored. Files name
        # half the rate if there is no low-pass filter.
        if not high_hz or high_hz >= 0.49 * recorded_hz:
            high_hz = None
        filters.append(((low_hz, high_hz), phase))
        if low_hz and (lowest_hz is None or low_hz < lowest_hz):
            lowest_hz = low_hz

    # preparation of the store, without whitening
    span_ms = (times_ms[0], times_ms[-1] + 1000 / rate_hz)
    # Start of the baseline if a store names none, as in THINGS-MEG.
    baseline_ms = -100
    settings = {
        "epoch_ms": (min(baseline_ms, times_ms[0]), span_ms[1]),
        "keep_ms": span_ms,
        "rate_hz": rate_hz,
    }
    settings |= {key: steps[key] for key in steps.keys() & Steps.model_fields.keys()}
    settings |= {"whiten": "no", "whiten_by": "training"}
    cutting = Cutting(Steps.model_validate(settings), recorded_hz)

    # Half the length of the simulated recording, in periods of the lowest edge of a
    # filter. MNE's filter is 3.3 periods long.
    periods = 8
    # an effect in the middle of a long recording is cut into a trial for each sample,
    # as if it began at this sample
    half_s = periods / (lowest_hz or periods) + 4
    middle = round(recorded_hz * half_s)
    stimulus_onsets = middle - np.rint(times_ms * recorded_hz / 1000).astype(np.int64)
    latest_ms = times_ms.copy()
    # Time in which an effect rises.
    ramp_ms = 20
    # Lengths of the simulated effects. A high-pass filter spreads long effects further,
    # a low-pass filter the rise of short effects.
    for length_ms in (50, 100, 300, 500):
        n_samples = round(length_ms * recorded_hz / 1000)
        samples = np.zeros(2 * middle)
        effect = tukey(n_samples, 2 * ramp_ms / length_ms)
        samples[middle : middle + len(effect)] = effect
        for edges, phase in filters:
            samples = filter_samples(samples, recorded_hz, edges, phase)
        trials = cutting.cut_trials([samples], ["effect"], stimulus_onsets, 1.0)
        responses = trials[:, 0]  # [T effects, T]
        # Share of its peak from which an effect counts as visible. Tests find strong
        # effects before they begin (`benchmarks/simulated_statistics --only onsets`).
        is_visible = np.abs(responses) >= 0.03 * np.abs(samples).max()
        visible_ms = np.where(is_visible, times_ms[:, None], -np.inf).max(0)
        latest_ms = np.maximum(latest_ms, visible_ms)

    # an effect that is visible at an earlier sample may be visible at this sample, too
    latest_ms = np.maximum.accumulate(latest_ms)

    # effects after the trial were not simulated
    is_bounded = (latest_ms < times_ms[-1]) | (latest_ms <= times_ms)
    return np.where(is_bounded, latest_ms, np.inf)
