"""Times of samples under jitter, drift and losses."""

import numpy as np
import pytest
from numpy.typing import NDArray

from brainhive_cli.data.streams._sample_times import SampleTimes

Numbers = NDArray[np.float64]


def settle(
    rate_hz,
    true_s,
    late_s=lambda chunk: 0.0,
    size=10,
):
    """Stamp the last sample of each chunk, and return settled and true times [n]."""
    times = SampleTimes(rate_hz)
    settled = []
    sent_s = 0.0
    for chunk, rows in enumerate(true_s.reshape(-1, size)):
        sent_s = max(sent_s, rows[-1] + late_s(chunk))
        settled.append(times.settle_times(sent_s - np.arange(size)[::-1] / rate_hz))
    values = np.concatenate(settled)
    is_timed = ~np.isnan(values)
    return values[is_timed], true_s[: len(values)][is_timed]


@pytest.mark.parametrize("ppm", [100])
def test_drift_is_followed_to_a_fraction_of_a_sample(ppm):
    true_s = 1000 + np.arange(60_000) / (1000 * (1 + ppm * 1e-6))
    settled_s, _ = settle(1000, true_s)
    assert np.abs(settled_s - true_s).max() < 0.0005


@pytest.mark.parametrize("jitter_s", [0.001, 0.02])
def test_jitter_never_looks_like_a_loss(
    jitter_s,
):
    true_s = 1000 + np.arange(60_000) / 1000
    random = np.random.default_rng(0)
    settled_s, true_s = settle(
        1000, true_s, lambda chunk: abs(random.normal(0, jitter_s))
    )
    error_s = (settled_s - true_s)[5000:]
    assert np.diff(settled_s).max() < 0.0015
    assert np.diff(settled_s).min() > 0
    assert np.abs(error_s - error_s.mean()).max() < max(0.0005, jitter_s / 8)


@pytest.mark.parametrize("lost", [1, 3000])
def test_lost_samples_are_a_step_in_times(lost):
    true_s = 1000 + np.arange(40_000) / 1000
    true_s[20_000:] += lost / 1000
    settled_s, true_s = settle(1000, true_s)
    steps = np.flatnonzero(np.diff(settled_s) > 0.0015)
    assert steps.tolist() == [19_999]
    assert np.abs(settled_s - true_s).max() < 1e-4


def test_a_late_chunk_is_no_loss():
    true_s = 1000 + np.arange(20_000) / 1000
    settled_s, _ = settle(1000, true_s, lambda chunk: 0.1 if chunk == 1500 else 0.0)
    assert np.diff(settled_s).max() < 0.0011
    assert len(settled_s) == 20_000


@pytest.mark.parametrize(
    ("true_hz", "lost_s", "is_other"),
    [
        (256, 0, False),
        (200, 0, True),
        # rates within 4 % count as the declared rate
        (256 * 0.955, 0, True),
        (256 * 0.965, 0, False),
        (256 * 1.035, 0, False),
        (256 * 1.045, 0, True),
        # losses and a clock that goes back are left out
        (256, 3, False),
        (200, 0.6, True),
        (256, -0.2, False),
    ],
)
def test_another_rate_than_the_declared_rate_is_measured(true_hz, lost_s, is_other):
    true_s = 1000 + np.arange(int(10 * true_hz) // 10 * 10) / true_hz
    true_s[200:] += lost_s
    measurement = SampleTimes(256)
    rates_hz = []
    for chunk_s in true_s.reshape(-1, 10):
        timestamps = chunk_s[-1] - np.arange(10)[::-1] / 256
        rate_hz = measurement.measure_rate(timestamps)
        if rate_hz is not None:
            rates_hz.append(rate_hz)
    assert rates_hz == (pytest.approx([true_hz], rel=0.03) if is_other else [])
