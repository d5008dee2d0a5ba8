"""Continuous signal without hardware: noise with events; of a simulated data set, its person's responses."""

import numpy as np
from pydantic import Field

from brainhive_cli.core.arrays import Float64
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.streams import Chunk, Clock, Event, StreamConfig, StreamFormat, Wanted
from brainhive_cli.data.trials import Trials

CHUNK_S = 0.02
"""Samples arrive in chunks of this length."""
NOISE = 10.0
"""Spread of the noise, in the unit of the signals: that of EEG in microvolts."""
PROVENANCE = "noise of brainhive_cli.data.streams.mock: no brain was recorded"


class Config(StreamConfig):
    """Signal with the model's channels and rate, and an event for each picture."""

    interval_s: float = Field(1.2, gt=0, le=3600, description="seconds from event to event")
    events: int | None = Field(
        None,
        gt=0,
        le=10**9,
        description="events until the stream ends; of a simulated data set at most those of all trials, the "
        "default",
    )
    speed: float = Field(1.0, gt=0, le=1e6, description="seconds of the stream in a second")
    seed: int = Field(0, ge=0, description="seed of the noise and the order of pictures")

    def build(self, wanted: Wanted) -> "MockStream":
        """Lay out the signal; it is made while it is read.

        Raises:
            MissingData: if the run's data set is simulated, and the person has no signals.
        """
        recording = wanted.open_recording()
        is_continuous = (
            recording is not None
            and "simulated" in recording.provenance
            and "preparation" not in recording.provenance
            and isinstance(recording.space, Sensors)
            and recording.times_s[0] == 0
        )
        return MockStream(self, wanted, recording if is_continuous else None, Clock(self.speed))


TINY = Config(events=3)


class MockStream:
    """Trials of a simulated person with noise between them, or noise alone.

    Between two trials lies the one reversed, fading into the next one reversed: the signal has no step, and
    the spectrum of the trials.

    Args:
        config: Its keys.
        wanted: Channels, unit, rate and pictures.
        recording: Simulated trials from onset on; None for noise alone.
        clock: Decides what has arrived.
    """

    def __init__(self, config: Config, wanted: Wanted, recording: Trials | None, clock: Clock) -> None:
        self.clock, self._recording, self._next = clock, recording, 0
        self._random = np.random.default_rng(config.seed)
        rate_hz, channels, simulated = wanted.rate_hz, wanted.channels, PROVENANCE
        self._names = list(wanted.image_ids)
        if recording is not None:
            assert isinstance(recording.space, Sensors) and recording.rate_hz is not None
            rate_hz, channels = recording.rate_hz, tuple(recording.space.names)
            simulated = str(recording.provenance["simulated"])
            rows = np.argwhere(recording.is_there)
            self._trials = rows[self._random.permutation(len(rows))]
        self._rate_hz, self._interval = rate_hz, max(1, round(config.interval_s * rate_hz))
        most = 10**9 if recording is None else len(self._trials)
        self._count = min(config.events or most, most)
        self._ready = np.empty((0, len(channels)))  # [n, C] that are made and not yet read
        self._made, self._events = 0, list[Event]()  # trials that are made, and events not yet read
        kinds, units = (wanted.kind,) * len(channels), (wanted.unit,) * len(channels)
        self.format = StreamFormat("mock", channels, kinds, units, rate_hz, simulated=simulated)

    def now_s(self) -> float:
        """Read the clock of the stream, whose first sample is at 0."""
        return self.clock.now_s()

    def read(self, wait_s: float) -> Chunk | None:
        """Return the samples that are due, and the events among them."""
        chunk = max(1, round(CHUNK_S * self._rate_hz))
        while len(self._ready) < chunk and self._made <= self._count:
            self._ready = np.concatenate([self._ready, self._make(self._made)])
            self._made += 1
        if not len(self._ready):
            return None
        stop = self._next + min(chunk, len(self._ready))
        if not self.clock.wait_until((stop - 1) / self._rate_hz, wait_s):
            return Chunk(self._ready[:0], np.empty(0))
        due = int(self.now_s() * self._rate_hz) + 1 - self._next
        count = min(max(stop - self._next, due), len(self._ready))
        samples, self._ready = self._ready[:count], self._ready[count:]
        times_s = np.arange(self._next, self._next + count) / self._rate_hz
        self._next += count
        events = tuple(event for event in self._events if event.time_s <= times_s[-1])
        self._events = self._events[len(events) :]
        return Chunk(samples, times_s, events)

    def _make(self, number: int) -> Float64:
        """Make the samples [n, C] from one event to the next; behind the last, those of one more interval."""
        shape = (self._interval, len(self.format.channels))
        first = number * self._interval
        if self._recording is None:
            if number < self._count:
                name = self._names[self._random.integers(len(self._names))]
                middle = first + self._interval // 2  # so that there are samples before the first event
                self._events.append(Event(middle / self._rate_hz, name))
            return NOISE * self._random.standard_normal(shape)

        # the trial, as far as the interval reaches
        if number >= self._count:
            return np.repeat(self._trial(number - 1)[-1:], self._interval, 0)
        trial = self._trial(number)  # [T, C]
        name = self._recording.image_ids[int(self._trials[number][0])]
        self._events.append(Event(first / self._rate_hz, name))
        rest = self._interval - len(trial)
        if rest <= 0:
            return trial[: self._interval]

        # this trial reversed, and the next one reversed
        following = self._trial(min(number + 1, len(self._trials) - 1))
        weight = np.linspace(0, np.pi / 2, rest)[:, None]
        back = np.resize(trial[::-1], (rest, shape[1]))
        ahead = np.resize(following, (rest, shape[1]))[::-1]
        return np.concatenate([trial, np.cos(weight) * back + np.sin(weight) * ahead])

    def _trial(self, number: int) -> Float64:
        assert self._recording is not None
        item, repetition = self._trials[max(0, number)].tolist()
        return np.asarray(self._recording.signal[item : item + 1])[0, repetition].T.astype(np.float64)

    def close(self) -> None:
        """Do nothing: no device is open."""
