"""Times before its beginning at which an effect shows, because filters of the preparation look ahead."""

import numpy as np
from scipy.signal.windows import tukey

from brainhive_cli.core.arrays import Float64
from brainhive_cli.data.recording_files import filter_samples
from brainhive_cli.data.signals.cutting import Cutting, Steps
from brainhive_cli.data.trials import Trials

EFFECTS_MS, RAMP_MS = (50, 100, 300, 500), 20
"""Lengths of the effects that are tried, and how long they rise: a high-pass filter spreads long ones
further, a low-pass filter the rise of short ones."""
LEAK = 0.03
"""Share of its largest value from which an effect can be found: strong ones are before they begin
(`benchmarks/simulated_statistics.py --only onsets`)."""
PERIODS = 8
"""Seconds of the simulated recording, before and after the effect, times the lower edge of the filter: mne's
filter is 3.3 long."""
BASELINE_MS = -100
"""Start of the baseline where a store names none, as of THINGS-MEG."""


def latest_beginnings(recording: Trials) -> Float64:
    """Find how late an effect may begin that shows at each sample.

    Effects that begin at each sample go through the filter, the cut, the baseline and the resampling that the
    store names, by the functions of prepare.

    Args:
        recording: Signals of sensors, with the provenance of their store.

    Returns:
        [T] ms after stimulus onset: the sample's own time where nothing shows before it begins; inf where an
        effect at the end of the trial does; NaN where nobody knows how the signals were filtered.
    """
    times_ms, latest = np.asarray(recording.times_s, np.float64) * 1000, []
    for session in recording.provenance.get("sessions") or [{}]:
        source = {**recording.provenance, **session}
        steps = source.get("preparation", {})
        if "epoch_ms" in steps or "filtered_hz" in source:
            # the filters: of the files, whose phase nobody knows, and of the preparation
            rate_hz = float(recording.rate_hz or 0)
            span_ms = (times_ms[0], times_ms[-1] + 1000 / rate_hz)
            start_ms = min(BASELINE_MS, times_ms[0])
            settings = {"epoch_ms": (start_ms, span_ms[1]), "keep_ms": span_ms, "rate_hz": rate_hz}
            settings |= {key: value for key, value in steps.items() if key in Steps.model_fields}
            recorded_hz = float(source.get("recorded_hz", rate_hz))
            bands = [source.get("filtered_hz"), steps.get("band_hz")]
            filters = []
            for band, phase in zip(bands, ["zero", steps.get("phase", "zero")], strict=True):
                if band:  # an edge of None lets everything pass
                    low, high = band
                    edges = low or None, high if high and high < 0.49 * recorded_hz else None
                    filters.append((edges, phase))

            # a long recording with an effect in its middle, cut as if it began at each sample of a trial
            settings |= {"whiten": "no", "whiten_by": "training"}
            cutting = Cutting(Steps.model_validate(settings), recorded_hz)
            lowest_hz = min((low for (low, _), _ in filters if low), default=PERIODS)
            half = round(recorded_hz * (PERIODS / lowest_hz + 4))
            onsets = half - np.rint(times_ms * recorded_hz / 1000).astype(np.int64)
            begun = times_ms.copy()
            for length_ms in EFFECTS_MS:
                effect = tukey(round(length_ms * recorded_hz / 1000), 2 * RAMP_MS / length_ms)
                samples = np.zeros(2 * half)
                samples[half : half + len(effect)] = effect
                for edges, phase in filters:
                    samples = filter_samples(samples, recorded_hz, edges, phase)
                shown = np.abs(cutting.cut([samples], ["effect"], onsets, 1.0)[:, 0])  # [effects, T]
                is_shown = shown >= LEAK * np.abs(samples).max()
                begun = np.maximum(begun, np.where(is_shown, times_ms[:, None], -np.inf).max(0))

            # an effect that shows earlier may show here; nothing is known of effects after the trial
            begun = np.maximum.accumulate(begun)
            latest.append(np.where((begun < times_ms[-1]) | (begun <= times_ms), begun, np.inf))
        elif "simulated" in source and not steps:  # signals of a program, which nothing filtered
            latest.append(times_ms)
        else:
            latest.append(np.full(len(times_ms), np.nan))
    return np.max(latest, 0)
