"""Contract of streams, which are signals with events that arrive in real time."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np

from brainhive_cli.core.base import Float64
from brainhive_cli.core.recipes import parts
from brainhive_cli.data.recordings import FindPictures
from brainhive_cli.data.signals import CutWindow, Trials


class StreamConfig(parts.Config):
    """Base of stream configs, whose `build(request)` opens a stream."""

    has_windows: ClassVar[bool] = False
    """If True, `build` opens a `WindowStream` of prepared windows."""
    is_file: ClassVar[bool] = False
    """If True, the key `file` names a file, which can be opened at any time."""
    has_markers: ClassVar[bool] = True
    """If True, events have the lab's names, which a table may translate."""


class Event(NamedTuple):
    """Event of a stream.

    Attributes:
        time_s: Time on the clock of the samples.
        name: Marker or code, as text.
    """

    time_s: float
    name: str


SampleBlocks = Iterator[tuple[Float64, Sequence[Event]]]
"""Iterator over blocks of samples [n, C] and the events among them."""


@dataclass(frozen=True)
class StreamFormat:
    """Facts of a stream that do not change while it is open.

    Attributes:
        name: Name of the stream or of the replayed file.
        channels: Names [C], spelled as in prepared recordings (`standardise_name`).
        channel_types: Types [C], named as in MNE: eeg, mag, grad, eog, stim, misc …
        units: Units [C] of the samples, empty if the stream declares none.
        rate_hz: Nominal sampling rate.
        positions: Positions [C, 3] of the sensors in metres, with NaN if unknown. None
            if all are unknown.
        simulated: Program that made the signal, empty for a recorded signal.
        dropped: Numbers of events that are left out beforehand, keyed by the reason,
            such as a BAD span.
    """

    name: str
    channels: tuple[str, ...]
    channel_types: tuple[str, ...]
    units: tuple[str, ...]
    rate_hz: float
    positions: Float64 | None = None
    simulated: str = ""
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Chunk:
    """Samples and events that arrived together.

    Attributes:
        samples: Samples [n, C] in the units of the format.
        times_s: Ascending times [n] on the stream's clock.
        events: Events, which may precede or follow the samples of their time.
    """

    samples: Float64
    times_s: Float64
    events: tuple[Event, ...] = ()


class Stream(Protocol):
    """Open stream. All calls of `read` come from the same thread.

    Attributes:
        format: Channels, units and rate.
    """

    format: StreamFormat

    def now_s(self) -> float:
        """Read the clock of the samples' times."""

    def read(self, wait_s: float) -> Chunk | None:
        """Return the samples and events that have arrived, oldest first.

        Args:
            wait_s: Longest time to wait for the first sample or event. Without any, the
                chunk is empty.

        Returns:
            A chunk, or None at the end of the stream.

        Raises:
            BrainhiveError: if the stream is lost for good.
        """

    def close(self) -> None:
        """Close the stream. A second call has no effect."""


@dataclass(frozen=True)
class StreamRequest:
    """Input of the model for which a stream is opened.

    Attributes:
        channels: Names [C] of the channels of the model, in order.
        kind: Type of the channels, named as in MNE: eeg, mag …
        unit: Unit of the samples before the model's preparation: µV, fT …
        rate_hz: Rate of the model's signals.
        span_s: Start and stop of a window after the event.
        image_ids: Pictures of the gallery, which simulated events name.
        open_recording: Returns the person's recording that tests the model, or None
            without a recording.
        delay_s: Seconds from an event to its picture on the screen, as in the model's
            recordings.
        find_pictures: Returns the names of events that stand for pictures.
    """

    channels: tuple[str, ...]
    kind: str
    unit: str
    rate_hz: float
    span_s: tuple[float, float]
    image_ids: Sequence[str]
    open_recording: Callable[[], Trials | None]
    delay_s: float = 0.0
    find_pictures: FindPictures = lambda events: ()


@runtime_checkable
class WindowStream(Protocol):
    """Stream of prepared windows, such as a signal store.

    Attributes:
        template: Example, whose channels, times, unit and preparation all windows have.
    """

    template: Trials

    def now_s(self) -> float:
        """Read the clock of the windows' times."""

    def read_windows(self, wait_s: float) -> list[CutWindow] | None:
        """Wait up to `wait_s`, and return due windows. None at the end."""

    def close(self) -> None:
        """Close the stream. A second call has no effect."""


@dataclass
class Clock:
    """Clock of a replay, which starts when it is first read.

    Attributes:
        speed: Seconds of the replay in a second.
        read: Returns the time in seconds.
        sleep: Waits for some seconds.
    """

    speed: float = 1.0
    read: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        """Leave the clock stopped."""
        self._start: float | None = None

    def now_s(self) -> float:
        """Return the seconds of the replay since the first call."""
        if self._start is None:
            self._start = self.read()
        return (self.read() - self._start) * self.speed

    def wait_until(self, time_s: float, max_wait_s: float) -> bool:
        """Wait for a time of the replay, and return True if it has come.

        Args:
            time_s: Seconds of the replay.
            max_wait_s: Longest wait, in real seconds.
        """
        remaining_s = (time_s - self.now_s()) / self.speed
        if remaining_s > 0:
            self.sleep(min(remaining_s, max_wait_s))
        return remaining_s <= max_wait_s


class Replay:
    """Continuous signal that arrives in chunks by a clock.

    Args:
        stream_format: Channels, units and rate.
        clock: Clock that decides which samples have arrived.
        blocks: Blocks of samples and events, read when they are needed.
        starts: Numbers of the samples after a break. A break takes as long as a sample.
    """

    def __init__(
        self,
        stream_format: StreamFormat,
        clock: Clock,
        blocks: SampleBlocks,
        starts: Sequence[int] = (),
    ) -> None:
        self._starts = np.unique(np.array(starts, np.int64))
        self.format = stream_format
        self.clock = clock
        self._blocks = blocks
        # samples [n, C] and events that have not arrived, and the next sample's number
        self._samples = np.empty((0, len(stream_format.channels)))
        self._events = list[Event]()
        self._next = 0

    def now_s(self) -> float:
        """Return the time of the signal, whose first sample is at 0."""
        return self.clock.now_s()

    def compute_times(self, numbers: Any) -> Any:
        """Convert numbers of samples to times in seconds."""
        n_breaks = np.searchsorted(self._starts, numbers, "right")
        return (numbers + n_breaks) / self.format.rate_hz

    def read(self, wait_s: float) -> Chunk | None:
        """Return due samples and events. Empty after `wait_s`, and None at the end."""
        rate_hz = self.format.rate_hz
        # Length of the chunks of a replay, similar to the chunks of amplifiers.
        chunk_s = 0.02
        # read blocks until a chunk is complete
        chunk_size = max(1, round(chunk_s * rate_hz))
        while len(self._samples) < chunk_size:
            block = next(self._blocks, None)
            if block is None:
                break
            samples, events = block
            self._samples = np.concatenate([self._samples, samples])
            self._events += events
        if not len(self._samples):
            return None

        # wait for a chunk, and return all due samples in memory
        min_count = min(chunk_size, len(self._samples))
        if not self.clock.wait_until((self._next + min_count - 1) / rate_hz, wait_s):
            return Chunk(self._samples[:0], np.empty(0))
        n_due = int(self.now_s() * rate_hz) + 1 - self._next
        count = min(max(min_count, n_due), len(self._samples))
        samples = self._samples[:count]  # [count, C]
        self._samples = self._samples[count:]
        times_s = self.compute_times(np.arange(self._next, self._next + count))
        self._next += count
        # events, in the order of time, come with their samples
        due = [event for event in self._events if event.time_s <= times_s[-1]]
        self._events = self._events[len(due) :]
        return Chunk(samples, times_s, tuple(due))

    def close(self) -> None:
        """Do nothing, as files are open only while a block is read."""
