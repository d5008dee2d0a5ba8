"""Streams of fixed samples, compared with recorded results."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from brainhive_cli.data.streams import (
    Clock,
    Event,
    Replay,
    StreamFormat,
    StreamRequest,
    mock as mocks,
)
from brainhive_cli.data.streams._sample_times import SampleTimes
from tests.tools.recorded_numbers import Recorded

RATE_HZ = 100.0
FORMAT = StreamFormat("cap", ("Fz", "Cz"), ("eeg", "eeg"), ("µV", "µV"), RATE_HZ)


class Pause:
    """Clock that advances by a fixed time at each reading and by each sleep."""

    def __init__(self, step_s: float) -> None:
        self.time_s, self.step_s = 50.0, step_s
        self.slept_s: list[float] = []

    def read(self) -> float:
        self.time_s += self.step_s
        return self.time_s

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.time_s += seconds


def blocks() -> Iterator[Any]:
    """Yield blocks of 7 samples, some with an event."""
    for number in range(6):
        start = 7 * number
        samples = np.arange(start, start + 7)[:, None] + [0.0, 0.5]
        events = [Event((start + 3) / RATE_HZ, f"picture {number}")]
        yield samples, events if number % 2 else []


@pytest.mark.parametrize("speed", [1.0, 3.0])
@pytest.mark.parametrize("step_s", [0.0, 0.013, 0.09])
def test_chunks_of_a_replay(recorded: Recorded, speed: float, step_s: float) -> None:
    pause = Pause(step_s)
    clock = Clock(speed, pause.read, pause.sleep)
    stream = Replay(FORMAT, clock, blocks(), starts=[20, 9, 20])
    chunks = []
    for wait_s in [0.004, 1.0] * 50:
        chunk = stream.read(wait_s)
        if chunk is None:
            break
        chunks.append([chunk.samples[:, 0], chunk.times_s, *chunk.events])
    assert stream.read(1.0) is None and chunks[-1][0][-1] == 41
    recorded(chunks=chunks, slept_s=pause.slept_s, now_s=stream.now_s())


@pytest.mark.parametrize(
    ("time_s", "most_s", "slept_s", "has_come"),
    [
        (3.0, 2.0, [1.5], True),
        (3.0, 1.5, [1.5], True),
        (3.0, 1.4, [1.4], False),
        (0.0, 1.0, [], True),
        (-1.0, 0.0, [], True),
    ],
)
def test_a_clock_waits_in_seconds_of_the_wall(
    time_s: float, most_s: float, slept_s: list[float], has_come: bool
) -> None:
    pause = Pause(0.0)
    clock = Clock(2.0, pause.read, pause.sleep)
    assert clock.now_s() == 0
    assert clock.wait_until(time_s, most_s) == has_come and pause.slept_s == slept_s
    pause.time_s += 4
    assert clock.now_s() == pytest.approx(8 + 2 * sum(slept_s))


def test_noise_with_events(recorded: Recorded) -> None:
    request = StreamRequest(
        ("O1", "Cz"), "eeg", "µV", 30.0, (0.0, 1.0), list("abcdef"), lambda: None
    )
    config = mocks.Config(events=4, interval_s=0.5)
    made = [
        [samples, *events]
        for samples, events in mocks.make_noise(config, request, 30.0)
    ]
    shown = [" ".join(str(ord(event.name)) for event in events) for _, *events in made]
    recorded(5, blocks=made, shown=shown)


def send(rate_hz: float, seed: int) -> np.ndarray:
    """Return time stamps with jitter, of which some are late, lost or repeated."""
    random = np.random.default_rng(seed)
    true_s = 20 + np.arange(2400) / (rate_hz * 1.0002)
    true_s[700:] += 3.4 / rate_hz
    true_s[1100:] += 1.2
    true_s[1500:] -= 0.5
    true_s[2000:] += 1.0 / rate_hz
    late_s = np.repeat(np.abs(random.normal(0, 0.3 / rate_hz, 240)), 10)
    late_s[330:340] += 0.06
    late_s[1800:1830] += 20 / rate_hz
    return true_s + late_s


@pytest.mark.parametrize("rate_hz", [100.0, 250.0])
def test_times_of_samples_that_jitter_and_are_lost(
    recorded: Recorded, rate_hz: float
) -> None:
    times, settled, counts = SampleTimes(rate_hz), [], []
    for timestamps in np.split(send(rate_hz, 0), 240):
        settled.append(times.settle_times(timestamps))
        counts.append(len(settled[-1]))
    values = np.concatenate(settled)
    steps = np.flatnonzero(np.diff(values) > 1.5 / rate_hz)
    recorded(
        6,
        times=values,
        parts=[part.mean() for part in np.array_split(np.nan_to_num(values), 12)],
        first=values[:12],
        steps=steps,
        missing=np.flatnonzero(np.isnan(values)),
        counts=np.array(counts),
        jitter_s=times._jitter_s,
        period_s=times._period_s,
        locked=times._locked,
    )


@pytest.mark.parametrize("share", [0.94, 0.955, 0.965, 1.0, 1.035, 1.045, 1.3])
def test_rates_that_differ_from_the_declared_one(
    recorded: Recorded, share: float
) -> None:
    times, found = SampleTimes(RATE_HZ), []
    timestamps = 5 + np.arange(1400) / (share * RATE_HZ)
    # two long gaps, and a clock that goes back
    timestamps[150:] += 0.45
    timestamps[200:] += 0.55
    timestamps[900:] -= 0.2
    for number, part in enumerate(np.split(timestamps, 140)):
        rate_hz = times.measure_rate(part)
        found += [] if rate_hz is None else [[number, rate_hz]]
    recorded(found=found, measured=len(times._measured), is_known=times._is_measured)
