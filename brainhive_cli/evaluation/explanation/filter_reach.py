"""How long before it begins an effect may show in signals that were filtered.

A zero-phase filter spreads an effect to both sides: after a high-pass at 1 Hz, an
effect from 250 ms on shows before the stimulus. Here simulated effects that begin at
each sample go through the filter, the cut, the baseline and the resampling that a
store names, by the functions of `prepare`.
"""

from typing import Any

import numpy as np

from brainhive_cli.core.arrays import Float64
from brainhive_cli.data.recordings.samples import filter_samples
from brainhive_cli.data.signals.cutting import Cutting, Steps
from brainhive_cli.data.signals.trials import Trials

EFFECTS_MS = (50, 100, 300, 500)
"""Lengths of the effects that are tried: a high-pass filter spreads long ones further,
a low-pass filter the rise of short ones.
"""
RAMP_MS = 20
"""How long an effect rises."""
LEAK = 0.03
"""Share of its largest value from which an effect can be found. Strong effects are
found before they begin (`benchmarks/simulated_statistics --only onsets`).
"""
PERIODS = 8
"""Half the length of the simulated recording, in periods of the lower edge. MNE's
filter is 3.3 periods long.
"""
MAX_EDGE = 0.49
"""Share of the rate from which an upper edge is no filter: files name half the rate
where there is none.
"""
BASELINE_MS = -100
"""Start of the baseline where a store names none, as of THINGS-MEG."""


def find_latest_onsets(recording: Trials) -> Float64:
    """Find how late an effect may begin that shows at each sample.

    Filters of other programs, which files name, are taken to have zero phase.

    Args:
        recording: Signals of sensors, with the provenance of their store.

    Returns:
        [T] milliseconds after stimulus onset. The time of the sample itself where
        nothing shows before it begins, inf where an effect at the end of the trial may
        show, NaN where it is not known how the signals were filtered.
    """
    times_ms = np.asarray(recording.times_s, np.float64) * 1000
    latest = []
    for session in recording.provenance.get("sessions") or [{}]:
        # facts of a session override those of the store
        source = {**recording.provenance, **session}
        steps = source.get("preparation", {})
        if "epoch_ms" in steps or "filtered_hz" in source:
            latest.append(_simulate(times_ms, recording.rate_hz or 0, source, steps))
        elif "simulated" in source and not steps:
            # a program made these signals, and nothing filtered them
            latest.append(times_ms)
        else:
            latest.append(np.full(len(times_ms), np.nan))
    return np.asarray(np.max(latest, 0))


def _simulate(
    times_ms: Float64, rate_hz: float, source: dict[str, Any], steps: dict[str, Any]
) -> Float64:
    """Find the latest beginnings [T] by effects that begin at each sample."""
    from scipy.signal.windows import tukey

    # filters of the file, whose phase is not known, and of the preparation
    recorded_hz = float(source.get("recorded_hz", rate_hz))
    filters = []
    for band, phase in (
        (source.get("filtered_hz"), "zero"),
        (steps.get("band_hz"), steps.get("phase", "zero")),
    ):
        low, high = band or (None, None)
        high = high if high and high < MAX_EDGE * recorded_hz else None
        filters.append(((low or None, high), phase))

    # the steps of the store, without whitening
    span_ms = (times_ms[0], times_ms[-1] + 1000 / rate_hz)
    settings = {
        "epoch_ms": (min(BASELINE_MS, times_ms[0]), span_ms[1]),
        "keep_ms": span_ms,
        "rate_hz": rate_hz,
    }
    settings |= {key: steps[key] for key in steps.keys() & Steps.model_fields.keys()}
    settings |= {"whiten": "no", "whiten_by": "training"}
    cutting = Cutting(Steps.model_validate(settings), recorded_hz)

    # one effect in a long recording, cut as if it began at each sample of a trial
    lowest_hz = min((low for (low, _), _ in filters if low), default=PERIODS)
    half = round(recorded_hz * (PERIODS / lowest_hz + 4))
    onsets = half - np.rint(times_ms * recorded_hz / 1000).astype(np.int64)
    begun = times_ms.copy()
    for length_ms in EFFECTS_MS:
        ramps = 2 * RAMP_MS / length_ms
        effect = tukey(round(length_ms * recorded_hz / 1000), ramps)
        samples = np.zeros(2 * half)
        samples[half : half + len(effect)] = effect
        for edges, phase in filters:
            samples = filter_samples(samples, recorded_hz, edges, phase)
        cut = cutting.cut_trials([samples], ["effect"], onsets, 1.0)[
            :, 0
        ]  # [effects, T]
        is_shown = np.abs(cut) >= LEAK * np.abs(samples).max()
        shown_ms = np.where(is_shown, times_ms[:, None], -np.inf).max(0)
        begun = np.maximum(begun, shown_ms)

    # what shows earlier may show here too; effects after the trial were not tried
    begun = np.maximum.accumulate(begun)
    is_bounded = (begun < times_ms[-1]) | (begun <= times_ms)
    return np.where(is_bounded, begun, np.inf)
