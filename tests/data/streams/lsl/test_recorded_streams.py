"""Streams of fixed samples, compared with recorded results."""

import numpy as np
import pytest

from brainhive_cli.data.streams import (
    Clock,
    StreamRequest,
    mock as mocks,
)
from brainhive_cli.data.streams._sample_times import SampleTimes


class Pause:
    """Clock that advances by a fixed time at each reading and by each sleep."""

    def __init__(self, step_s):
        self.time_s, self.step_s = 50.0, step_s
        self.slept_s = []

    def read_time(self):
        self.time_s += self.step_s
        return self.time_s

    def sleep(self, seconds):
        self.slept_s.append(seconds)
        self.time_s += seconds


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
def test_a_clock_waits_in_seconds_of_the_wall(time_s, most_s, slept_s, has_come):
    pause = Pause(0.0)
    clock = Clock(2.0, pause.read_time, pause.sleep)
    assert clock.now_s() == 0
    assert clock.wait_until(time_s, most_s) == has_come
    assert pause.slept_s == slept_s
    pause.time_s += 4
    assert clock.now_s() == pytest.approx(8 + 2 * sum(slept_s))


def test_noise_with_events():
    request = StreamRequest(
        ("O1", "Cz"), "eeg", "µV", 30.0, (0.0, 1.0), list("abcdef"), lambda: None
    )
    config = mocks.Config(events=4, interval_s=0.5)

    blocks_of_noise = list(mocks.make_noise(config, request, 30.0))

    # half a second at 30 Hz, of two channels
    assert [samples.shape for samples, _ in blocks_of_noise] == [(15, 2)] * 5
    event_times_s = [event.time_s for _, events in blocks_of_noise for event in events]
    assert event_times_s == pytest.approx([0.23333, 0.73333, 1.2333, 1.7333], rel=1e-4)
    names = [event.name for _, events in blocks_of_noise for event in events]
    assert names == ["f", "d", "f", "b"]
    means = [samples.mean() for samples, _ in blocks_of_noise]
    assert np.std(means) > 0


def send(rate_hz, seed):
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


def test_times_of_samples_that_jitter_and_are_lost(recorded):
    rate_hz = 250.0
    times = SampleTimes(rate_hz)
    settled_s = [
        times.settle_times(timestamps) for timestamps in np.split(send(rate_hz, 0), 240)
    ]

    times_s = np.concatenate(settled_s)
    recorded(
        6,
        times_s=times_s,
        means_of_parts_s=[
            timestamps.mean()
            for timestamps in np.array_split(np.nan_to_num(times_s), 12)
        ],
        losses=np.flatnonzero(np.diff(times_s) > 1.5 / rate_hz),
        untimed=np.flatnonzero(np.isnan(times_s)),
        n_settled=np.array([len(timestamps) for timestamps in settled_s]),
    )
