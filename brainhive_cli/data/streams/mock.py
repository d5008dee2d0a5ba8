"""Simulated stream of noise, or of the trials of a simulated person."""

import numpy as np
from pydantic import Field

from brainhive_cli.core.base import Float64
from brainhive_cli.data.signals import Trials
from brainhive_cli.data.streams import (
    Clock,
    Event,
    Replay,
    SampleBlocks,
    StreamConfig,
    StreamFormat,
    StreamRequest,
)

SEED = 0
"""Seed of the noise and the order of pictures."""
MAX_EVENTS = 10**9


class Config(StreamConfig):
    """Simulated signal with the model's channels and rate."""

    has_markers = False

    interval_s: float = Field(
        1.2, gt=0, le=3600, description="seconds from event to event"
    )
    events: int | None = Field(
        None,
        gt=0,
        le=MAX_EVENTS,
        description="number of events until the stream ends; default and maximum for a "
        "simulated data set: its trials",
    )
    speed: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="speed of the stream; 2: twice as fast as a recording",
    )

    def build(self, request: StreamRequest) -> Replay:
        """Return the stream, whose signal is computed while it is read.

        Raises:
            MissingData: if the data set is simulated, and has no signals of the person.
        """
        # unprepared trials that begin at their event can be joined to a signal
        recording = request.open_recording()
        is_continuous = (
            recording is not None
            and "simulated" in recording.provenance
            and "preparation" not in recording.provenance
            and recording.rate_hz is not None
            and recording.times_s[0] == 0
        )
        return simulate(
            self, request, recording if is_continuous else None, Clock(self.speed)
        )


TINY = Config(events=3)


def simulate(
    config: Config, request: StreamRequest, recording: Trials | None, clock: Clock
) -> Replay:
    """Simulate a stream.

    Args:
        config: Interval and number of events.
        request: Pictures to show, and the channels, unit and rate of the signal.
        recording: Simulated trials that begin at their event, or None for noise alone.
        clock: Clock that decides which samples have arrived.
    """
    rate_hz = request.rate_hz
    channels = request.channels
    provenance = "noise of brainhive_cli.data.streams.mock: no brain was recorded"
    simulated = provenance
    blocks = make_noise(config, request, rate_hz)
    if recording is not None:
        assert recording.rate_hz is not None
        rate_hz = recording.rate_hz
        channels = tuple(recording.space.names)
        simulated = str(recording.provenance["simulated"])
        blocks = join_trials(config, recording, rate_hz)
    types = (request.kind,) * len(channels)
    units = (request.unit,) * len(channels)
    stream_format = StreamFormat(
        "mock", channels, types, units, rate_hz, simulated=simulated
    )
    return Replay(stream_format, clock, blocks)


def make_noise(config: Config, request: StreamRequest, rate_hz: float) -> SampleBlocks:
    """Yield intervals of noise with an event in the middle, and a last without any."""
    random = np.random.default_rng(SEED)
    names = list(request.image_ids)
    interval = max(1, round(config.interval_s * rate_hz))
    count = config.events or MAX_EVENTS
    for number in range(count + 1):
        events = []
        if number < count:
            name = names[random.integers(len(names))]
            middle = number * interval + interval // 2
            events = [Event(middle / rate_hz, name)]
        # Standard deviation of the noise in the unit of the signals, as of EEG in µV.
        yield 10.0 * random.standard_normal((interval, len(request.channels))), events


def join_trials(config: Config, recording: Trials, rate_hz: float) -> SampleBlocks:
    """Yield simulated trials that begin at their events, and a last interval.

    A straight line leads from each trial to the next, so that the signal has no step.
    """
    rows = np.random.default_rng(SEED).permutation(len(recording.signal))
    interval = max(1, round(config.interval_s * rate_hz))
    count = min(config.events or len(rows), len(rows))

    def read_trial(number: int) -> Float64:  # [T, C]
        row = rows[min(number, len(rows) - 1)]
        return np.asarray(recording.signal[row]).T.astype(np.float64)

    for number in range(count):
        trial = read_trial(number)
        samples = trial
        name = recording.image_ids[int(rows[number])]
        event = Event(number * interval / rate_hz, name)
        pause = interval - len(trial)
        if pause > 0:
            next_sample = read_trial(number + 1)[0]
            line = np.linspace(trial[-1], next_sample, pause + 2)[1:-1]
            samples = np.concatenate([trial, line])
        yield samples[:interval], [event]
    # the last window may be longer than its interval
    yield np.repeat(read_trial(count - 1)[-1:], interval, 0), []
