"""Continuous signal without hardware: noise with events; of a simulated data set, its
person's responses.
"""

import numpy as np
from pydantic import Field

from brainhive_cli.core.arrays import Float64
from brainhive_cli.data.signals.spaces import Sensors
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.streams import (
    Blocks,
    Clock,
    Event,
    Replay,
    StreamConfig,
    StreamFormat,
    StreamRequest,
)

NOISE = 10.0
"""Spread of the noise, in the unit of the signals: that of EEG in microvolts."""
SEED = 0
"""Seed of the noise and the order of pictures."""
PROVENANCE = "noise of brainhive_cli.data.streams.mock: no brain was recorded"


class Config(StreamConfig):
    """Signal with the model's channels and rate, and an event for each picture."""

    has_markers = False

    interval_s: float = Field(
        1.2, gt=0, le=3600, description="seconds from event to event"
    )
    events: int | None = Field(
        None,
        gt=0,
        le=10**9,
        description="events until the stream ends; of a simulated data set at most "
        "those of all trials, the default",
    )
    speed: float = Field(
        1.0, gt=0, le=1e6, description="seconds of the stream in a second"
    )

    def build(self, request: StreamRequest) -> Replay:
        """Lay out the signal; it is made while it is read.

        Raises:
            MissingData: if the run's data set is simulated, and the person has no
                signals.
        """
        # only continuous, unprepared trials from onset on can be joined to a signal
        recording = request.open_recording()
        is_continuous = (
            recording is not None
            and "simulated" in recording.provenance
            and "preparation" not in recording.provenance
            and isinstance(recording.space, Sensors)
            and recording.times_s[0] == 0
        )
        return simulate(
            self, request, recording if is_continuous else None, Clock(self.speed)
        )


TINY = Config(events=3)


def simulate(
    config: Config, request: StreamRequest, recording: Trials | None, clock: Clock
) -> Replay:
    """Simulate a stream: trials of a simulated person with a signal between them, or
    noise alone.

    Args:
        config: Its keys.
        request: Channels, unit, rate and pictures.
        recording: Simulated trials from onset on; None for noise alone.
        clock: Decides what has arrived.
    """
    # format: that of the recording, or that which the model wants
    rate_hz = request.rate_hz
    channels = request.channels
    simulated = PROVENANCE
    if recording is not None:
        assert isinstance(recording.space, Sensors) and recording.rate_hz is not None
        rate_hz = recording.rate_hz
        channels = tuple(recording.space.names)
        simulated = str(recording.provenance["simulated"])
    kinds = (request.kind,) * len(channels)
    units = (request.unit,) * len(channels)
    stream_format = StreamFormat(
        "mock", channels, kinds, units, rate_hz, simulated=simulated
    )
    if recording is None:
        return Replay(stream_format, clock, make_noise(config, request, rate_hz))
    return Replay(stream_format, clock, join_trials(config, recording, rate_hz))


def make_noise(config: Config, request: StreamRequest, rate_hz: float) -> Blocks:
    """Make noise, an event in the middle of each interval, and one more interval behind
    the last.
    """
    # one interval of noise an event [n, C]; the last one lets its window end
    random = np.random.default_rng(SEED)
    names = list(request.image_ids)
    interval = max(1, round(config.interval_s * rate_hz))
    count = config.events or 10**9
    for number in range(count + 1):
        events = []
        if number < count:
            name = names[random.integers(len(names))]
            # so that there are samples before the first event
            middle = number * interval + interval // 2
            events = [Event(middle / rate_hz, name)]
        yield NOISE * random.standard_normal((interval, len(request.channels))), events


def join_trials(config: Config, recording: Trials, rate_hz: float) -> Blocks:
    """Join simulated trials, each at its event, and one more interval behind the last.

    Between two trials a straight line leads from the one to the next: the signal has no
    step.
    """
    # trials [n, 2] in random order, as item and repetition
    rows = np.argwhere(recording.is_there)
    rows = rows[np.random.default_rng(SEED).permutation(len(rows))]
    interval = max(1, round(config.interval_s * rate_hz))
    count = min(config.events or len(rows), len(rows))

    def read_trial(number: int) -> Float64:  # [T, C]
        item, repetition = rows[min(number, len(rows) - 1)].tolist()
        return np.asarray(recording.signal[item : item + 1])[0, repetition].T.astype(
            np.float64
        )

    for number in range(count):
        # the trial, as far as the interval reaches
        trial = samples = read_trial(number)
        event = Event(
            number * interval / rate_hz, recording.image_ids[int(rows[number][0])]
        )
        # a rest between trials is filled without a step in the signal
        rest = interval - len(trial)
        if rest > 0:
            line = np.linspace(trial[-1], read_trial(number + 1)[0], rest + 2)[1:-1]
            samples = np.concatenate([trial, line])
        yield samples[:interval], [event]
    # the last window may reach beyond its interval
    yield np.repeat(read_trial(count - 1)[-1:], interval, 0), []
