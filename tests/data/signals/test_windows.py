"""Windows of a continuous signal, which stalls and drift do not lose."""

import gc
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.signals.cutting import CausalFilter, Cutting, Steps
from brainhive_cli.data.signals.windows import (
    BEFORE_HISTORY,
    HISTORY_S,
    IN_GAP,
    Windows,
)

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
    """Make a signal [n, C] whose channels count the samples, the second with noise."""
    numbers = np.arange(start, stop)
    noise = np.random.default_rng(start).standard_normal(stop - start)
    return np.stack([numbers, numbers + noise], axis=1)


def feed(windows, times_s, events, random, delay_s=0.0):
    """Feed samples in uneven chunks, and events late or early. Return the windows."""
    cut, position, coming = [], 0, sorted(events, key=lambda event: event[1] + delay_s)
    while position < len(times_s):
        stalls = random.random() < 0.01
        # 3 s arrive at once after a stall
        size = 3 * RATE_HZ if stalls else int(random.integers(1, 40))
        stop = min(position + size, len(times_s))
        windows.add_samples(count_samples(position, stop), times_s[position:stop])
        while coming and coming[0][1] + delay_s <= times_s[stop - 1]:
            windows.add_event(*coming.pop(0))
        windows.locate_events()
        cut += windows.cut_windows()
        position = stop
    for event in coming:
        windows.add_event(*event)
    windows.locate_events()
    return list(cut) + list(windows.cut_windows())


@pytest.mark.nightly
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

    cut_feed = feed(
        windows,
        times_s,
        [(f"event {n}", t) for n, t in enumerate(onsets_s)],
        random,
        delay_s,
    )

    assert (windows.counts.events, windows.counts.windows, len(cut_feed)) == (
        2_000,
        2_000,
        2_000,
    )
    assert windows.counts.samples == len(times_s)
    assert not windows.counts.dropped
    assert windows.counts.gaps == windows.counts.lost == 0
    assert {window.name for window in cut_feed} == {f"event {n}" for n in range(2_000)}
    # in samples of the amplifier
    true_samples = (onsets_s - times_s[0]) * RATE_HZ * (1 + drift)
    error = [
        window.signal[0, 25] - true_samples[int(window.name.split()[1])]
        for window in cut_feed
    ]
    assert np.abs(error).max() <= 0.5 + 1e-6


def test_windows_are_trials_of_the_whole_recording():
    """Filtering and cutting in chunks gives the same as all samples at once."""
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
        windows.add_samples(samples[start : start + 37], times_s[start : start + 37])
        windows.locate_events()
        cut += windows.cut_windows()

    filtered = CausalFilter(band_hz, rate_hz)(samples)
    expected = Cutting(steps, rate_hz).cut_trials(filtered.T, CHANNELS, onsets, 1.0)

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

    gaps = windows.add_samples(samples, times_s)
    windows.locate_events()
    cut_windows = list(windows.cut_windows())

    assert gaps == [1000]
    assert (windows.counts.gaps, windows.counts.lost) == (1, 125)
    assert [window.name for window in cut_windows] == ["before", "after"]
    assert windows.counts.dropped == {"in a gap of the stream": 2}
    # no step of 4,900 rings
    assert max(np.abs(window.signal).max() for window in cut_windows) < 1e-6


def test_late_events_are_counted_and_future_events_wait():
    windows = open_windows()
    times_s = np.arange(round((HISTORY_S + 20) * RATE_HZ)) / RATE_HZ
    windows.add_samples(count_samples(0, len(times_s)), times_s)
    windows.add_event("old", 1.0)
    windows.add_event("first", times_s[-1] + 60)
    windows.locate_events()
    assert list(windows.cut_windows()) == []
    assert windows.counts.dropped == {"before the samples that are kept": 1}

    windows.drop_waiting()
    assert windows.counts.dropped["beyond the end of the stream"] == 1


@pytest.mark.nightly
def test_memory_does_not_grow():
    """Four minutes of two channels, with two events a second."""
    windows, samples = open_windows(), count_samples(0, RATE_HZ)
    tracemalloc.start()
    for second in range(240):
        windows.add_samples(samples, second + np.arange(RATE_HZ) / RATE_HZ)
        windows.add_event("one", second + 0.3)
        windows.add_event("two", second + 0.6)
        windows.locate_events()
        assert len(list(windows.cut_windows())) == 2 or second < 2
        if second == 60:
            gc.collect()
            bytes_before, _ = tracemalloc.get_traced_memory()
    gc.collect()
    bytes_after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert bytes_after < bytes_before + 20_000


def test_a_filter_edge_beyond_half_the_rate_is_refused():
    with pytest.raises(
        BrainhiveError,
        match=r"130 Hz.* 250 Hz",
    ):
        open_windows(band_hz=(1.0, 130.0))


@pytest.mark.nightly
@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_windows_are_the_same_in_chunks_of_any_size(seed):
    """Steps of up to 1.5 samples are no gap. The first channel counts the samples."""
    random = np.random.default_rng(seed)
    steps = random.choice([1, 1.4, 1.6, 60], 700, p=[0.97, 0.01, 0.01, 0.01])
    # the next test covers gaps in windows that start before the first sample
    steps[:75] = np.minimum(steps[:75], 1.4)
    times_s = 3 + np.cumsum(steps) / RATE_HZ
    events = [
        (f"e{n}", time_s)
        for n, time_s in enumerate(
            random.uniform(times_s[0] - 0.1, times_s[-1] + 0.1, 40)
        )
    ]
    windows, windows_cut, position = open_windows(), [], 0
    for name, time_s in events:
        windows.add_event(name, time_s)
    while position < len(times_s):
        stop = position + int(random.integers(0, 90))
        windows.add_samples(
            count_samples(position, position + len(times_s[position:stop])),
            times_s[position:stop],
        )
        windows.locate_events()
        windows_cut += windows.cut_windows()
        position = stop
    windows.drop_waiting()

    gaps = [n for n in range(1, 700) if times_s[n] - times_s[n - 1] > 1.5 / RATE_HZ]
    windows_by_event, in_gap, n_left, n_beyond = {}, 0, 0, 0
    for name, time_s in events:
        sample = min(range(700), key=lambda n: abs(times_s[n] - time_s))
        distance = abs(times_s[sample] - time_s) * RATE_HZ
        if time_s > times_s[-1] + 0.5 / RATE_HZ:
            n_beyond += 1
        elif distance > 1.5:
            n_left += time_s < times_s[0]
            in_gap += time_s >= times_s[0]
        elif any(sample - 25 < gap <= sample + 50 for gap in gaps):
            in_gap += 1
        elif sample < 25:
            n_left += 1
        elif sample + 50 >= 700:
            n_beyond += 1
        else:
            windows_by_event[name] = sample
    assert {window.name: window.sample for window in windows_cut} == windows_by_event
    for window in windows_cut:
        first_sample = window.sample - 25
        np.testing.assert_allclose(window.signal[0], first_sample + np.arange(75))
        assert window.end_s == times_s[window.sample + 50]
    counts = windows.counts
    dropped = [
        counts.dropped[reason]
        for reason in (IN_GAP, BEFORE_HISTORY, "beyond the end of the stream")
    ]
    assert dropped == [in_gap, n_left, n_beyond]
    assert counts.windows == len(windows_cut)
    assert (counts.gaps, counts.samples, counts.events) == (len(gaps), 700, 40)
    assert counts.lost == sum(round(steps[gap]) - 1 for gap in gaps)


@pytest.mark.parametrize(
    ("first_stop", "reason"), [(40, BEFORE_HISTORY), (41, IN_GAP), (200, IN_GAP)]
)
def test_a_window_is_in_a_gap_only_if_the_gap_has_arrived(first_stop, reason):
    """The window of sample 10 starts at -15, and a gap precedes sample 40."""
    times_s = np.arange(200) / RATE_HZ
    times_s[40:] += 1
    windows = open_windows()
    windows.add_event("early", times_s[10])
    for rows in (slice(0, first_stop), slice(first_stop, 200)):
        windows.add_samples(count_samples(0, 200)[rows], times_s[rows])
        windows.locate_events()
        assert list(windows.cut_windows()) == []
    assert windows.counts.dropped == {reason: 1}
