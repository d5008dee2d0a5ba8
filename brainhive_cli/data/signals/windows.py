"""Windows around the events of a continuous signal, cut while it arrives as trials are
cut of a recording.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from brainhive_cli.core.arrays import Float32, Float64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.cutting import Band, CausalFilter, Cutting

GAP_SAMPLES = 1.5
"""Time between two samples, in units of 1 / rate, from which on some are missing
between them.
"""
IN_GAP, LEFT = "in a gap of the stream", "before the samples that are kept"
"""Reasons why an event has no window."""
HISTORY_S = 10.0
"""Time for which samples are kept beyond a window, for events that arrive after their
samples.
"""


@dataclass(frozen=True)
class CutWindow:
    """Window that was cut of a continuous signal.

    Attributes:
        name: Name of the event.
        time_s: Time of the event, on the stream's clock.
        sample: Number of its sample since the stream was opened.
        signal: [C, T], not whitened.
        end_s: Time of the last sample that it needs.
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
        lost: Samples that should lie in gaps.
        gaps: Steps in time that are longer than `GAP_SAMPLES`.
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
    """Ring of the newest samples, and the events that wait for theirs.

    An event belongs to the sample nearest in time, by the samples' own times: a clock
    that drifts from the nominal rate moves no window.

    Args:
        cutting: Cutting of trials, of the stream's rate.
        channels: [C] names, in the order of the samples.
        band_hz: Edges of the causal filter of continuous samples; None where there is
            none.

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
        self._samples = np.empty(
            (0, len(self.channels))
        )  # [buffer, C], of which rows up to `_end` are filled
        self._times_s = np.empty(0)
        self._end = 0
        self.next_sample = 0
        # number of the first sample after each gap
        self._gaps: deque[int] = deque(maxlen=1000)
        self._waiting: deque[tuple[str, float]] = deque()
        # with the number of the event's sample
        self._due: deque[tuple[str, float, int]] = deque()

    def add_samples(self, samples: Float64, times_s: Float64) -> list[int]:
        """Add samples [n, C] at ascending times [n]; return the numbers of samples that
        follow a gap.
        """
        if not len(samples):
            return []

        # steps in time that hold no samples; nothing is filtered across them
        previous = self._times_s[self._end - 1] if self._end else times_s[0]
        # in samples
        steps = np.diff(times_s, prepend=previous) * self.cutting.recorded_hz
        breaks = np.flatnonzero(steps > GAP_SAMPLES).tolist()
        if self._filter is not None:
            first, *further = np.split(samples, breaks)
            filtered = [self._filter(first)]
            for part in further:
                self._filter.reset()
                filtered.append(self._filter(part))
            samples = np.concatenate(filtered)
        gaps = [self.next_sample + index for index in breaks]
        self._gaps.extend(gaps)
        self.counts.gaps += len(breaks)
        self.counts.lost += sum(round(steps[index]) - 1 for index in breaks)
        self.counts.samples += len(samples)

        # behind the newest; where there is no room, what is kept moves to the front of
        # a new buffer
        if self._end + len(samples) > len(self._samples):
            kept = slice(max(0, self._end - self._size), self._end)
            old = self._samples[kept]
            old_s = self._times_s[kept]
            size = 2 * self._size + len(samples)
            self._samples = np.empty((size, len(self.channels)))
            self._times_s = np.empty(size)
            self._samples[: len(old)], self._times_s[: len(old)] = old, old_s
            self._end = len(old)
        rows = slice(self._end, self._end + len(samples))
        self._samples[rows], self._times_s[rows] = samples, times_s
        self._end += len(samples)
        self.next_sample += len(samples)
        return gaps

    def add_event(self, name: str, time_s: float) -> None:
        """Add an event, before or after the samples of its time."""
        self.counts.events += 1
        self._waiting.append((name, time_s))

    def locate_events(self) -> list[tuple[str, int]]:
        """Find the samples of the events that waited for them; name and sample of
        each.
        """
        if not self._end:
            return []
        oldest = max(0, self._end - self._size)
        times_s = self._times_s[oldest : self._end]
        first = self.next_sample - self._end + oldest
        half_s = 0.5 / self.cutting.recorded_hz
        located = []
        waiting = deque[tuple[str, float]]()
        for name, time_s in self._waiting:
            if time_s > times_s[-1] + half_s:
                waiting.append((name, time_s))  # its samples are still to come
                continue
            # the sample nearest in time
            index = int(np.abs(times_s - time_s).argmin())
            distance = abs(times_s[index] - time_s) * self.cutting.recorded_hz
            # no sample of its time: it fell into a gap, or its sample has left the ring
            if distance > GAP_SAMPLES:
                self.counts.dropped[LEFT if time_s < times_s[0] else IN_GAP] += 1
                continue
            located.append((name, first + index))
            self._due.append((name, time_s, first + index))
        self._waiting = waiting
        return located

    def cut_windows(self) -> Iterator[CutWindow]:
        """Cut the windows whose samples are all there, in the order of their events.

        Raises:
            BrainhiveError: naming a channel with values that are not finite, or flat.
        """
        start, stop = self.cutting.span
        # of the sample at the front of the buffer
        number = self.next_sample - self._end
        due = self._due
        self._due = deque()
        for name, time_s, sample in due:
            first = sample + start
            last = sample + stop
            # across a gap, samples do not lie at their nominal times
            if any(first < gap <= last for gap in self._gaps):
                self.counts.dropped[IN_GAP] += 1
            elif first < number:
                self.counts.dropped[LEFT] += 1
            elif last >= self.next_sample:
                self._due.append((name, time_s, sample))
            else:
                rows = slice(first - number, last - number + 1)
                span, onset = self._samples[rows], np.array([-start])  # [span, C]
                try:
                    # [1, C, T]
                    epochs = self.cutting.cut_trials(
                        span.T.copy(), self.channels, onset, 1.0
                    )
                except BrainhiveError as error:
                    self.counts.dropped[error.message] += 1
                    continue
                self.counts.windows += 1
                end_s = float(self._times_s[rows][-1])
                yield CutWindow(name, time_s, sample, epochs[0], end_s)

    def drop_waiting(self) -> None:
        """Count the events whose windows can no longer be cut, as at the end of the
        stream.
        """
        if count := len(self._waiting) + len(self._due):
            self.counts.dropped["beyond the end of the stream"] += count
        self._waiting.clear()
        self._due.clear()
