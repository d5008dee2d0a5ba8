"""Windows of a continuous signal: none lost under stalls and drift, cut as trials of a
recording are.
"""

import gc
import tracemalloc

import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.cutting import CausalFilter, Cutting, Steps
from brainhive_cli.data.signals.windows import HISTORY_S, Windows

RATE_HZ = 250
PLAIN = Steps.model_validate(
    {
        "epoch_ms": (-100, 200),
        "keep_ms": (-100, 200),
        "baseline": False,
        "whiten": "no",
        "rate_hz": RATE_HZ,
    }
)
CHANNELS = ("counter", "noise")


def open_windows(steps=PLAIN, rate_hz=RATE_HZ, band_hz=(None, None)):
    return Windows(Cutting(steps, rate_hz), CHANNELS, band_hz)


def count_samples(start, stop):
    """A signal [n, C] whose channels count its samples, one of them with noise."""
    numbers = np.arange(start, stop)
    noise = np.random.default_rng(start).standard_normal(stop - start)
    return np.stack([numbers, numbers + noise], axis=1)


def feed(windows, times_s, events, random, delay_s=0.0):
    """Feed samples at times [n] in uneven chunks, and events, late or early; return the
    cut windows.
    """
    cut, at, coming = [], 0, sorted(events, key=lambda event: event[1] + delay_s)
    while at < len(times_s):
        stalls = random.random() < 0.01
        # 3 s arrive at once after a stall
        size = 3 * RATE_HZ if stalls else int(random.integers(1, 40))
        stop = min(at + size, len(times_s))
        windows.add(count_samples(at, stop), times_s[at:stop])
        while coming and coming[0][1] + delay_s <= times_s[stop - 1]:
            windows.add_event(*coming.pop(0))
        windows.locate()
        cut += windows.cut()
        at = stop
    for event in coming:
        windows.add_event(*event)
    windows.locate()
    return [*cut, *windows.cut()]


@pytest.mark.parametrize(("drift", "delay_s"), [(-1e-4, -0.5), (1e-4, 1.5)])
def test_none_of_2_000_events_is_lost_under_stalls_and_drift(drift, delay_s):
    """The amplifier's clock is off by 100 ppm, and markers come before or after their
    samples.
    """
    random = np.random.default_rng(0)
    seconds = 2_000 * 0.2
    times_s = 5 + np.arange(round(seconds * RATE_HZ)) / (RATE_HZ * (1 + drift))
    onsets_s = np.sort(random.uniform(times_s[0] + 0.2, times_s[-1] - 0.3, 2_000))
    windows = open_windows()

    cut = feed(
        windows,
        times_s,
        [(f"event {n}", t) for n, t in enumerate(onsets_s)],
        random,
        delay_s,
    )

    assert (windows.counts.events, windows.counts.windows, len(cut)) == (
        2_000,
        2_000,
        2_000,
    )
    assert windows.counts.samples == len(times_s) and not windows.counts.dropped
    assert windows.counts.gaps == windows.counts.lost == 0
    assert {window.name for window in cut} == {f"event {n}" for n in range(2_000)}
    # in samples of the amplifier
    true = (onsets_s - times_s[0]) * RATE_HZ * (1 + drift)
    error = [window.signal[0, 25] - true[int(window.name.split()[1])] for window in cut]
    assert np.abs(error).max() <= 0.5 + 1e-6


def test_windows_are_trials_of_the_whole_recording():
    """Filtered and cut chunk by chunk, they are those of all samples at once."""
    steps = Steps.model_validate(
        {"epoch_ms": (-200, 800), "keep_ms": (0, 800), "rate_hz": 100}
    )
    rate_hz, band_hz = 500, (0.5, 40.0)
    random = np.random.default_rng(1)
    samples = 5000 + np.cumsum(random.standard_normal((20 * rate_hz, 2)), axis=0)
    onsets = np.array([700, 2500, 7001])
    windows = open_windows(steps, rate_hz, band_hz)
    cut, times_s = [], np.arange(len(samples)) / rate_hz
    for onset in onsets:
        windows.add_event(str(onset), onset / rate_hz)
    for start in range(0, len(samples), 37):
        windows.add(samples[start : start + 37], times_s[start : start + 37])
        windows.locate()
        cut += windows.cut()

    filtered = CausalFilter(band_hz, rate_hz)(samples)
    expected = Cutting(steps, rate_hz).cut(filtered.T, CHANNELS, onsets, 1.0)

    np.testing.assert_array_equal([window.signal for window in cut], expected)
    assert [window.sample for window in cut] == onsets.tolist()
    np.testing.assert_allclose([window.end_s - window.time_s for window in cut], 0.8)


def test_no_window_is_cut_across_a_gap_and_filters_start_anew():
    windows = open_windows(band_hz=(1.0, 40.0))
    times_s = np.arange(2000) / RATE_HZ
    times_s[1000:] += 0.5  # half a second is missing
    samples = np.where(times_s < times_s[1000], 100.0, 5000.0)[:, None] * np.ones(2)
    for name, onset_s in (
        ("before", 3.0),
        ("across", times_s[990]),
        ("within", 4.2),
        ("after", 5.5),
    ):
        windows.add_event(name, onset_s)

    gaps = windows.add(samples, times_s)
    windows.locate()
    cut = [*windows.cut()]

    assert gaps == [1000] and (windows.counts.gaps, windows.counts.lost) == (1, 125)
    assert [window.name for window in cut] == ["before", "after"]
    assert windows.counts.dropped == {"in a gap of the stream": 2}
    # no step of 4,900 rings
    assert max(np.abs(window.signal).max() for window in cut) < 1e-6


def test_an_event_older_than_what_is_kept_is_counted_and_one_to_come_waits():
    windows = open_windows()
    times_s = np.arange(round((HISTORY_S + 20) * RATE_HZ)) / RATE_HZ
    windows.add(count_samples(0, len(times_s)), times_s)
    windows.add_event("old", 1.0)
    windows.add_event("first", times_s[-1] + 60)
    windows.locate()
    assert [*windows.cut()] == [] and windows.counts.dropped == {
        "before the samples that are kept": 1
    }

    windows.drop_waiting()
    assert windows.counts.dropped["beyond the end of the stream"] == 1


def test_memory_does_not_grow():
    """Four minutes of two channels, with two events a second."""
    windows, samples = open_windows(), count_samples(0, RATE_HZ)
    tracemalloc.start()
    for second in range(240):
        windows.add(samples, second + np.arange(RATE_HZ) / RATE_HZ)
        windows.add_event("one", second + 0.3)
        windows.add_event("two", second + 0.6)
        windows.locate()
        assert len([*windows.cut()]) == 2 or second < 2
        if second == 60:
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after < before + 20_000


def test_a_filter_edge_beyond_half_the_rate_is_refused():
    with pytest.raises(
        BrainhiveError,
        match="a filter edge of 130 Hz is not below half the rate, 250 Hz",
    ):
        open_windows(band_hz=(1.0, 130.0))
