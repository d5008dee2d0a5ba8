"""Windows of successive trials that overlap in time."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from brainhive_cli.core.base import Float64
from brainhive_cli.data.signals.trials import Trials

TIME_TOLERANCE_S = 1e-6
"""Largest difference of times that count as equal."""
SHORT_SPACING_QUANTILE = 0.05
"""Share of the times between trials that are shorter than `Overlap.short_spacing_s`."""


@dataclass(frozen=True)
class Overlap:
    """Windows of successive trials that are longer than the time between the trials.

    Attributes:
        median_spacing_s: Median time from an onset to the next in its run.
        short_spacing_s: Quantile `SHORT_SPACING_QUANTILE` of this time.
        overlap_s: Overlap of the windows at this short time.
        end_s: Time of the last sample after the onset.
    """

    median_spacing_s: float
    short_spacing_s: float
    overlap_s: float
    end_s: float

    @classmethod
    def measure(cls, recordings: Iterable[Trials], times_s: Float64) -> Self | None:
        """Compare a window with the time between onsets.

        Args:
            recordings: Trials of the same runs, such as the splits of a store.
            times_s: Times [T] of the samples of the window.

        Returns:
            The overlap, or None if windows do not overlap or onsets are unknown.
        """
        all_trials = list(recordings)
        spacing_s = measure_spacing_s(all_trials)
        if not len(spacing_s):
            return None

        # length of the window, its last sample included
        median_s = float(np.quantile(spacing_s, 0.5))
        short_s = float(np.quantile(spacing_s, SHORT_SPACING_QUANTILE))
        rate_hz = all_trials[0].rate_hz
        window_s = float(times_s[-1] - times_s[0]) + (1 / rate_hz if rate_hz else 0)
        if window_s <= short_s + TIME_TOLERANCE_S:
            return None
        return cls(median_s, short_s, window_s - short_s, float(times_s[-1]))

    @property
    def description(self) -> str:
        """Description for messages."""
        has_shorter = self.short_spacing_s < self.median_spacing_s - TIME_TOLERANCE_S
        limit = "up to " if has_shorter else ""
        return (
            f"a picture was shown every {self.median_spacing_s:.2f} s, so trials "
            f"overlap by {limit}{self.overlap_s:.2f} s"
        )


def measure_spacing_s(recordings: Iterable[Trials]) -> Float64:
    """Measure the times from each onset to the next in the same run, in seconds.

    Args:
        recordings: Trials of the same runs, such as the splits of a store.

    Returns:
        Times [K]. Empty if onsets are unknown.
    """
    # session, run and onset of the trials of all splits
    columns = []
    for trials in recordings:
        if trials.onset_s is None:
            return np.empty(0)
        zeros = np.zeros(len(trials.onset_s))
        sessions = zeros if trials.sessions is None else trials.sessions
        runs = zeros if trials.runs is None else trials.runs
        columns.append(np.stack([sessions, runs, trials.onset_s]))
    session, run, onset_s = np.concatenate(columns, 1)

    order = np.lexsort((onset_s, run, session))
    is_same_session = np.diff(session[order]) == 0
    is_same_run = is_same_session & (np.diff(run[order]) == 0)
    return np.diff(onset_s[order])[is_same_run]
