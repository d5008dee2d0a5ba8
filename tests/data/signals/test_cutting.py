"""The steps from a recording to trials: resampling as mne's own, and which times they
give.
"""

from typing import Any

import numpy as np
import pytest
from scipy import signal as scipy_signal

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.signals.cutting import (
    ROWS,
    CausalFilter,
    Cutting,
    Resampling,
    Steps,
)


def test_times_are_mne_s_where_no_sample_lies_at_the_start_of_a_trial():
    mne = pytest.importorskip("mne")
    for recorded_hz, to_hz in ((128, 250), (512, 100), (1000, 250)):
        info = mne.create_info(1, recorded_hz, "eeg")
        raw = mne.io.RawArray(np.zeros((1, 4 * recorded_hz)), info, verbose="ERROR")
        events = np.array([[recorded_hz, 0, 1]])
        epochs = mne.Epochs(
            raw, events, tmin=-0.2, tmax=1, baseline=None, preload=True, verbose="ERROR"
        )
        if to_hz < recorded_hz:
            epochs.resample(to_hz, verbose="ERROR")
        steps = Steps(rate_hz=to_hz, keep_ms=(0, 1000))
        kept = (epochs.times > -1e-9) & (epochs.times < 1 - 1e-9)
        np.testing.assert_allclose(
            Cutting(steps, recorded_hz).times_s, epochs.times[kept], atol=1e-9
        )


def test_resampling_is_mne_s():
    mne = pytest.importorskip("mne")
    for samples, rate_hz, to_hz in (
        (1201, 1000, 250),
        (1201, 1000, 333),
        (1201, 1000, 999.9),  # as many samples after as before, with the padding
        (40, 100, 50),
    ):
        epochs = np.random.default_rng(0).normal(size=(3, samples))
        options = {"npad": "auto", "pad": "edge", "verbose": "error"}
        expected = mne.filter.resample(epochs, up=to_hz, down=rate_hz, **options)
        np.testing.assert_allclose(
            Resampling(samples, rate_hz, to_hz)(epochs), expected, atol=1e-12
        )


@pytest.mark.parametrize(
    ("samples", "to_hz", "late_ms", "true_hz"),
    ((1201, 250, 1.0, 250), (1001, 100, -3.507, 100.098)),
)
def test_the_time_shift_of_the_published_preparations_is_known(
    samples, to_hz, late_ms, true_hz
):
    resampling = Resampling(samples, 1000, to_hz)
    assert resampling.time_shift == {"late_ms": late_ms, "rate_hz": true_hz}
    centre = samples // 2
    # at a known time
    bump = np.exp(-0.5 * ((np.arange(samples) - centre) / 20) ** 2)[None]
    found_ms = np.average(
        np.arange(samples * to_hz // 1000),
        weights=resampling(bump)[0][: samples * to_hz // 1000],
    )
    assert found_ms * 1000 / true_hz + late_ms == pytest.approx(centre, abs=0.01)


def test_a_slow_wave_comes_back_whatever_the_offset_of_the_recording():
    rng = np.random.default_rng(0)
    rate_hz, starts = 1000, np.sort(rng.integers(0, 8000, ROWS + 3))
    wave = np.sin(2 * np.pi * 3 * np.arange(10_000) / rate_hz)
    volts = 0.5 + 1e-6 * wave  # half a volt of offset

    def cut_with(baseline):
        cutting = Cutting(Steps(baseline=baseline), rate_hz)
        return cutting.cut([volts], ["Oz"], starts + 200, 1e6)[:, 0]

    time = starts[:, None] + 4 * np.arange(50, 300) + 1  # 1 ms late
    expected = np.sin(2 * np.pi * 3 * time / rate_hz)
    inner = slice(20, -20)  # where the edges do not matter
    np.testing.assert_allclose(
        (cut_with(False) - 5e5)[:, inner], expected[:, inner], atol=0.05
    )
    before = np.stack([wave[start : start + 201].mean() for start in starts])[:, None]
    np.testing.assert_allclose(
        cut_with(True)[:, inner], (expected - before)[:, inner], atol=5e-3
    )


@pytest.mark.parametrize(
    ("band_hz", "kind"),
    [((1.0, 30.0), "bandpass"), ((2.0, None), "high"), ((None, 20.0), "low")],
)
def test_a_filter_in_chunks_is_scipys_from_a_steady_state(
    band_hz: Any, kind: str
) -> None:
    signal = np.random.default_rng(0).normal([500, -3], size=(300, 2))
    edges = band_hz if all(band_hz) else max(edge or 0 for edge in band_hz)
    sections = scipy_signal.butter(4, edges, kind, fs=200, output="sos")
    # the first sample lasted for ever before
    lasting = np.concatenate([np.repeat(signal[:1], 20_000, 0), signal])
    expected = scipy_signal.sosfilt(sections, lasting, axis=0)[20_000:]
    causal = CausalFilter(band_hz, 200)

    parts = [causal(part) for part in np.split(signal, [0, 1, 90, 90, 250])]

    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-6)
    causal.reset()
    np.testing.assert_allclose(causal(signal), expected, atol=1e-6)
    assert causal(signal).dtype == np.float64
    for edge in (100.0, 120.0):
        with pytest.raises(BrainhiveError, match="half the rate"):
            CausalFilter((None, edge), 200)
    assert CausalFilter((None, 99.0), 200)
