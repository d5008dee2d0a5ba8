"""Windows of successive trials that overlap in time."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from brainhive_cli.core.arrays import Bool, Float64
from brainhive_cli.data.signals.trials import Trials

ROUNDING_S = 1e-6
"""Times closer than this are equal."""


@dataclass(frozen=True)
class Overlap:
    """Time between successive trials that is shorter than their windows.

    Attributes:
        spacing_s: From an onset to the next in its run, median.
        least_s: The same, such that 5 % are shorter.
        length_s: By how long windows overlap then.
        end_s: Time of the last sample after the onset.
    """

    spacing_s: float
    least_s: float
    length_s: float
    end_s: float

    @classmethod
    def measure(cls, recordings: Iterable[Trials], times_s: Float64) -> Self | None:
        """Compare a window with the time between onsets.

        Args:
            recordings: Trials of the same runs, as the splits of a store.
            times_s: [T] samples of the window.

        Returns:
            None where windows do not overlap, or onsets are not known.
        """
        listed = list(recordings)
        if any(trials.onset_s is None for trials in listed):
            return None
        # onsets of all splits, run by run
        columns = []
        for trials in listed:
            absent = np.zeros(trials.is_there.shape)
            times = (
                absent if values is None else values
                for values in (trials.sessions, trials.runs, trials.onset_s)
            )
            columns.append(np.stack([each[trials.is_there] for each in times]))
        session, run, onset_s = np.concatenate(columns, 1)
        line = np.lexsort((onset_s, run, session))
        is_next = (np.diff(session[line]) == 0) & (np.diff(run[line]) == 0)
        spacing_s = np.diff(onset_s[line])[is_next]
        if not len(spacing_s):
            return None

        # the window of a trial, its last sample included
        least, median = np.quantile(spacing_s, (0.05, 0.5)).tolist()
        length_s = float(times_s[-1] - times_s[0]) + 1 / (listed[0].rate_hz or np.inf)
        if length_s <= least + ROUNDING_S:
            return None
        return cls(median, least, length_s - least, float(times_s[-1]))

    @property
    def description(self) -> str:
        """The overlap in words."""
        most = "up to " if self.least_s < self.spacing_s - ROUNDING_S else ""
        return (
            f"a picture every {self.spacing_s:.2f} s, windows overlap by {most}"
            f"{self.length_s:.2f} s"
        )

    @property
    def problem(self) -> str:
        """Reason why nothing can be tested where labels follow each other in the same
        pairs.
        """
        start_ms = 1000 * (self.end_s - self.least_s)
        stop_ms = 1000 * self.least_s
        free = f" (free of it: {start_ms:.0f} to {stop_ms:.0f} ms)"
        return (
            f"{self.description}, and the same labels follow each other, so the "
            "response to one reveals the other"
            f"{free if start_ms < stop_ms else ''}"
        )

    def find_free(self, times_s: Float64) -> Bool:
        """Find the samples [T] at which neither the trial before, in its window, nor
        the next one was shown.
        """
        is_after = times_s > self.end_s - self.least_s + ROUNDING_S
        return is_after & (times_s < self.least_s - ROUNDING_S)
