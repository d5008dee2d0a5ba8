"""Windows around the events of a continuous signal, cut while it arrives."""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from brainhive_cli.core.base import BrainhiveError, Float32, Float64
from brainhive_cli.data.signals.cutting import Band, CausalFilter, Cutting

MIN_GAP_SAMPLES = 1.5
"""Smallest time between two samples, in units of 1 / rate, that counts as a gap."""
IN_GAP = "in a gap of the stream"
BEFORE_HISTORY = "before the samples that are kept"
AFTER_END = "beyond the end of the stream"
"""Reasons why an event has no window."""
HISTORY_S = 10.0
"""Time for which samples are kept beyond a window, for events that arrive after their
samples.
"""


@dataclass(frozen=True)
class CutWindow:
    """Window that was cut from a continuous signal.

    Attributes:
        name: Name of the event.
        time_s: Time of the event on the clock of the stream.
        sample: Number of its sample, counted from the opening of the stream.
        signal: Signal [C, T], not whitened.
        end_s: Time of the last sample that the window needs.
    """

    name: str
    time_s: float
    sample: int
    signal: Float32
    end_s: float


@dataclass
class Counts:
    """Counts of a stream since it was opened.

    Attributes:
        samples: Samples that arrived.
        lost: Samples that are missing in gaps.
        gaps: Gaps (`MIN_GAP_SAMPLES`).
        events: Events that arrived.
        windows: Windows that were cut.
        dropped: Events without a window, by reason.
    """

    samples: int = 0
    lost: int = 0
    gaps: int = 0
    events: int = 0
    windows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


class Windows:
    """Buffer of the newest samples, and the events whose windows are not yet cut.

    An event belongs to the sample nearest in time, by the times of the samples. A clock
    that drifts from the nominal rate therefore moves no window.

    Args:
        cutting: Cutting of trials at the rate of the stream.
        channels: Names [C], in the order of the samples.
        band_hz: Edges of the causal filter of samples, each None if there is no such
            edge.

    Attributes:
        next_sample: Number of the next sample.
        counts: Counts of the stream.
    """

    def __init__(
        self,
        cutting: Cutting,
        channels: Sequence[str],
        band_hz: Band = (None, None),
    ) -> None:
        self.cutting = cutting
        self.channels = tuple(channels)
        self.counts = Counts()
        self._filter = (
            CausalFilter(band_hz, cutting.recorded_hz) if any(band_hz) else None
        )
        start, stop = cutting.span
        self._size = stop - start + 1 + round(HISTORY_S * cutting.recorded_hz)
        # buffer [B, C], of which the first `_end` rows are filled
        self._samples = np.empty((0, len(self.channels)))
        self._times_s = np.empty(0)
        self._end = 0
        self.next_sample = 0
        # number of the first sample after each gap
        self._gaps: deque[int] = deque(maxlen=1000)
        # name and time of events, then with the number of their sample
        self._waiting: deque[tuple[str, float]] = deque()
        self._due: deque[tuple[str, float, int]] = deque()

    def add_samples(self, samples: Float64, times_s: Float64) -> list[int]:
        """Add samples to the buffer.

        Args:
            samples: Samples [n, C].
            times_s: Ascending times [n].

        Returns:
            Numbers of the samples that follow a gap.
        """
        if not len(samples):
            return []

        # nothing is filtered across a gap
        previous_s = self._times_s[self._end - 1] if self._end else times_s[0]
        steps = np.diff(times_s, prepend=previous_s) * self.cutting.recorded_hz
        breaks = np.flatnonzero(steps > MIN_GAP_SAMPLES).tolist()
        if self._filter is not None:
            filtered = []
            for index, piece in enumerate(np.split(samples, breaks)):
                if index > 0:
                    self._filter.reset()
                filtered.append(self._filter(piece))
            samples = np.concatenate(filtered)
        gaps = [self.next_sample + index for index in breaks]
        self._gaps.extend(gaps)
        self.counts.gaps += len(breaks)
        self.counts.lost += sum(round(steps[index]) - 1 for index in breaks)
        self.counts.samples += len(samples)

        # a full buffer is replaced, and its newest samples move to the front
        if self._end + len(samples) > len(self._samples):
            newest = slice(max(0, self._end - self._size), self._end)
            old_samples = self._samples[newest]
            old_times_s = self._times_s[newest]
            size = 2 * self._size + len(samples)
            self._samples = np.empty((size, len(self.channels)))
            self._times_s = np.empty(size)
            self._end = len(old_samples)
            self._samples[: self._end] = old_samples
            self._times_s[: self._end] = old_times_s
        rows = slice(self._end, self._end + len(samples))
        self._samples[rows] = samples
        self._times_s[rows] = times_s
        self._end += len(samples)
        self.next_sample += len(samples)
        return gaps

    def add_event(self, name: str, time_s: float) -> None:
        """Add an event, before or after the samples of its time."""
        self.counts.events += 1
        self._waiting.append((name, time_s))

    def locate_events(self) -> list[tuple[str, int]]:
        """Find the samples of events. Events without any are dropped and counted.

        Returns:
            Name and sample number of each located event.
        """
        if not self._end:
            return []
        oldest = max(0, self._end - self._size)
        times_s = self._times_s[oldest : self._end]
        oldest_sample = self.next_sample - self._end + oldest
        half_step_s = 0.5 / self.cutting.recorded_hz
        located = []
        waiting = deque[tuple[str, float]]()
        for name, time_s in self._waiting:
            # the samples of the event are still to come
            if time_s > times_s[-1] + half_step_s:
                waiting.append((name, time_s))
                continue
            index = int(np.abs(times_s - time_s).argmin())
            distance = abs(times_s[index] - time_s) * self.cutting.recorded_hz
            if distance > MIN_GAP_SAMPLES:
                reason = BEFORE_HISTORY if time_s < times_s[0] else IN_GAP
                self.counts.dropped[reason] += 1
                continue
            located.append((name, oldest_sample + index))
            self._due.append((name, time_s, oldest_sample + index))
        self._waiting = waiting
        return located

    def cut_windows(self) -> Iterator[CutWindow]:
        """Yield the windows whose samples have all arrived, in the order of the events.

        Windows are dropped and counted if samples are lost, flat or not finite.
        """
        start, stop = self.cutting.span
        buffer_start = self.next_sample - self._end  # number of the first sample
        due = self._due
        self._due = deque()
        for name, time_s, sample in due:
            first_sample = sample + start
            last_sample = sample + stop
            # across a gap, samples do not lie at their nominal times
            if any(first_sample < gap <= last_sample for gap in self._gaps):
                self.counts.dropped[IN_GAP] += 1
            elif first_sample < buffer_start:
                self.counts.dropped[BEFORE_HISTORY] += 1
            elif last_sample >= self.next_sample:
                self._due.append((name, time_s, sample))
            else:
                rows = slice(
                    first_sample - buffer_start, last_sample + 1 - buffer_start
                )
                samples = self._samples[rows].T.copy()  # [C, samples]
                onset = np.array([-start])
                try:
                    epochs = self.cutting.cut_trials(samples, self.channels, onset, 1.0)
                except BrainhiveError as error:
                    self.counts.dropped[error.message] += 1
                    continue
                self.counts.windows += 1
                end_s = float(self._times_s[rows][-1])
                yield CutWindow(name, time_s, sample, epochs[0], end_s)

    def drop_waiting(self) -> None:
        """Drop and count the events without a window at the end of the stream."""
        count = len(self._waiting) + len(self._due)
        if count:
            self.counts.dropped[AFTER_END] += count
        self._waiting.clear()
        self._due.clear()
