"""Trials cut from a recording, against mne's own resampling."""

import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.preparations._epochs import ROWS, Resampling, cut


@pytest.mark.parametrize(
    ("samples", "rate_hz", "to_hz"),
    (
        (1201, 1000, 250),
        (1001, 1000, 100),
        (1201, 1000, 333),
        (500, 512, 128),
        (1201, 1000, 999.9),  # as many samples after as before, with the padding
        (1201, 999.9, 1000 / 3),
        (40, 100, 50),
    ),
)
def test_resampling_is_mne_s(samples, rate_hz, to_hz):
    mne = pytest.importorskip("mne")
    epochs = np.random.default_rng(0).normal(size=(3, samples))
    expected = mne.filter.resample(epochs, up=to_hz, down=rate_hz, npad="auto", pad="edge", verbose="error")
    np.testing.assert_allclose(Resampling(samples, rate_hz, to_hz)(epochs), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("samples", "to_hz", "late_ms", "true_hz"), ((1201, 250, 1.0, 250), (1001, 100, -3.507, 100.098))
)
def test_the_time_shift_of_the_published_preparations_is_known(samples, to_hz, late_ms, true_hz):
    resampling = Resampling(samples, 1000, to_hz)
    assert resampling.time_shift == {"late_ms": late_ms, "rate_hz": true_hz}
    centre = samples // 2
    bump = np.exp(-0.5 * ((np.arange(samples) - centre) / 20) ** 2)[None]  # at a known time
    found_ms = np.average(
        np.arange(samples * to_hz // 1000), weights=resampling(bump)[0][: samples * to_hz // 1000]
    )
    assert found_ms * 1000 / true_hz + late_ms == pytest.approx(centre, abs=0.01)


def test_a_slow_wave_comes_back_whatever_the_offset_of_the_recording():
    rng = np.random.default_rng(0)
    rate_hz, starts = 1000, np.sort(rng.integers(0, 8000, ROWS + 3))
    wave = np.sin(2 * np.pi * 3 * np.arange(10_000) / rate_hz)
    volts = 0.5 + 1e-6 * wave  # half a volt of offset

    def cut_with(baseline):
        resampling = Resampling(1201, rate_hz, 250)
        return cut(lambda index: volts, ["Oz"], starts, resampling, slice(50, 300), baseline, 1e6)[:, 0]

    time = starts[:, None] + 4 * np.arange(50, 300) + 1  # 1 ms late
    expected = np.sin(2 * np.pi * 3 * time / rate_hz)
    inner = slice(20, -20)  # where the edges do not matter
    np.testing.assert_allclose((cut_with(None) - 5e5)[:, inner], expected[:, inner], atol=0.05)
    before = np.stack([wave[start : start + 201].mean() for start in starts])[:, None]
    np.testing.assert_allclose(cut_with(slice(0, 201))[:, inner], (expected - before)[:, inner], atol=5e-3)


def test_a_value_that_is_not_finite_is_named():
    with pytest.raises(BrainhiveError, match="channel Pz has NaN or infinite values"):
        cut(
            lambda index: np.full(50, np.nan),
            ["Pz"],
            np.array([2]),
            Resampling(20, 100, 100),
            slice(0, 20),
            None,
            1,
        )
