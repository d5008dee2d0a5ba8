"""Contract of streams: continuous signals with events, read while recorded, replayed or
simulated.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np

from brainhive_cli.core import parts
from brainhive_cli.core.arrays import Float64
from brainhive_cli.data.recordings.stim_channels import FindPictures
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.signals.windows import CutWindow

CHUNK_S = 0.02
"""Samples of a replay arrive in chunks of this length, as those of amplifiers do."""


class StreamConfig(parts.Config):
    """Base of the Configs of streams; `build(request)` opens a `Stream`, or a
    `WindowStream`.
    """

    has_windows: ClassVar[bool] = False
    """Whether windows come prepared as they are offline: a `WindowStream`."""
    is_file: ClassVar[bool] = False
    """Whether it is a file, which can be opened at any time."""
    has_markers: ClassVar[bool] = True
    """Whether events have the names that the lab gives them, which a table explains."""


class Event(NamedTuple):
    """Event of a stream.

    Attributes:
        time_s: On the clock of the samples.
        name: Marker or code, as text.
    """

    time_s: float
    name: str


Blocks = Iterator[tuple[Float64, Sequence[Event]]]
"""Samples [n, C] with the events among them, one block after the other."""


@dataclass(frozen=True)
class StreamFormat:
    """Facts of a stream that hold as long as it is open.

    Attributes:
        name: Name of the stream, or of the file that is replayed.
        channels: [C] names, as prepared recordings have them (`standardise_name`).
        channel_types: [C] types, as mne names them: eeg, mag, grad, eog, stim, misc …
        units: [C] units of the samples; empty where the stream declares none.
        rate_hz: Nominal sampling rate.
        positions: [C, 3] positions of the sensors in metres, NaN where unknown; None
            where none is known.
        simulated: Program that makes the signal; empty for recorded ones.
        dropped: Events that are left out beforehand, by reason, such as those in BAD
            spans of a file.
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
    """Samples and events that arrived together; either may be empty.

    Attributes:
        samples: [n, C] in the units of the format.
        times_s: [n] on the stream's clock, ascending.
        events: They may come before or after the samples of their time.
    """

    samples: Float64
    times_s: Float64
    events: tuple[Event, ...] = ()


class Stream(Protocol):
    """An open stream; `read` is called by one thread.

    Attributes:
        format: Channels, units and rate.
    """

    format: StreamFormat

    def now_s(self) -> float:
        """Read the clock of the samples' times."""

    def read(self, wait_s: float) -> Chunk | None:
        """Return what has arrived, oldest first.

        Args:
            wait_s: How long to wait for the first sample or event; then the chunk is
                empty.

        Returns:
            A chunk; None once the stream has ended.

        Raises:
            BrainhiveError: if the stream is lost for good.
        """

    def close(self) -> None:
        """Close the stream; may be called twice."""


@dataclass(frozen=True)
class StreamRequest:
    """Purpose of an opened stream: the model's input, and the pictures that are
    searched.

    Attributes:
        channels: [C] channels of the model, in its order.
        kind: Their type as mne names it: eeg, mag …
        unit: Unit of continuous samples that the model's preparation begins with: µV,
            fT …
        rate_hz: Rate of the model's signals.
        span_s: Start and stop of a window after the event.
        image_ids: Pictures of the gallery, which simulated events name.
        open_recording: Opens the recording of the person that tests the model, in the
            run's data set; None where the person has none.
        delay_s: Seconds from an event to its picture on the screen, as in the model's
            recordings.
        find_pictures: Finds those of some events that stand for pictures.
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
    """A stream whose windows are prepared already, such as a signal store.

    Attributes:
        template: Trials of one stimulus, which say channels, times, unit and
            preparation of all windows.
    """

    template: Trials

    def now_s(self) -> float:
        """Read the clock of the windows' times."""

    def read_windows(self, wait_s: float) -> list[CutWindow] | None:
        """Return the windows that are due, after at most `wait_s`; None once the stream
        has ended.
        """

    def close(self) -> None:
        """Close the stream; may be called twice."""


@dataclass
class Clock:
    """Clock of a replay, which may run faster than time.

    Attributes:
        speed: Seconds of the replay in a second.
        read: Reads the time in seconds.
        sleep: Waits for seconds.
    """

    speed: float = 1.0
    read: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        """Stand at 0 until the time is read."""
        self._start: float | None = None

    def now_s(self) -> float:
        """Read the seconds of the replay since they were first read."""
        # the clock starts at its first reading, not while files are opened
        if self._start is None:
            self._start = self.read()
        return (self.read() - self._start) * self.speed

    def wait_until(self, time_s: float, most_s: float) -> bool:
        """Wait until a time of the replay, at most so many seconds; whether it has
        come.
        """
        # missing time of the replay, in seconds of the wall clock
        missing_s = (time_s - self.now_s()) / self.speed
        if missing_s > 0:
            self.sleep(min(missing_s, most_s))
        return missing_s <= most_s


class Replay:
    """A continuous signal that arrives by a clock, in chunks as those of amplifiers.

    Args:
        stream_format: Channels, units and rate.
        clock: Decides what has arrived.
        blocks: Successive samples [n, C] with the events among them; read when they are
            needed.
        starts: Numbers of the samples that follow a break, which takes the time of one.
    """

    def __init__(
        self,
        stream_format: StreamFormat,
        clock: Clock,
        blocks: Blocks,
        starts: Sequence[int] = (),
    ) -> None:
        self._starts = np.unique(np.array(starts, np.int64))
        self.format = stream_format
        self.clock = clock
        self._blocks = blocks
        # [n, C] that have not arrived yet
        self._samples = np.empty((0, len(stream_format.channels)))
        # events that have not, and the number of the next sample
        self._events = list[Event]()
        self._next = 0

    def now_s(self) -> float:
        """Read the clock of the signal, whose first sample is at 0."""
        return self.clock.now_s()

    def compute_times(self, numbers: Any) -> Any:
        """Give the seconds of samples by their numbers."""
        breaks = np.searchsorted(self._starts, numbers, "right")
        return (numbers + breaks) / self.format.rate_hz

    def read(self, wait_s: float) -> Chunk | None:
        """Return the samples that are due, and the events among them; waits for a chunk
        of them.
        """
        rate_hz = self.format.rate_hz
        # blocks are read until a chunk is full, so memory holds one block at most
        chunk = max(1, round(CHUNK_S * rate_hz))
        while (
            len(self._samples) < chunk
            and (block := next(self._blocks, None)) is not None
        ):
            self._samples = np.concatenate([self._samples, block[0]])
            self._events += block[1]
        if not len(self._samples):
            return None

        # all that is due by now, at most to the end of the blocks in memory
        least = min(chunk, len(self._samples))
        if not self.clock.wait_until((self._next + least - 1) / rate_hz, wait_s):
            return Chunk(self._samples[:0], np.empty(0))
        due = int(self.now_s() * rate_hz) + 1 - self._next
        count = min(max(least, due), len(self._samples))
        # split what is due from what follows: [count, C]
        samples = self._samples[:count]
        self._samples = self._samples[count:]
        times_s = self.compute_times(np.arange(self._next, self._next + count))
        self._next += count
        # events up to the last sample; later ones come with their samples
        events = tuple(event for event in self._events if event.time_s <= times_s[-1])
        self._events = self._events[len(events) :]
        return Chunk(samples, times_s, events)

    def close(self) -> None:
        """Do nothing: no device is open, and files are open only while a block is
        read.
        """
