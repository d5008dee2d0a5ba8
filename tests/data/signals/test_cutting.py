"""The steps from a recording to trials: resampling as mne's own, and which times they give."""

import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.data.signals.cutting import ROWS, Cutting, Resampling, Steps, normalise


@pytest.mark.parametrize("recorded_hz", (128, 256, 512, 1000))
@pytest.mark.parametrize("to_hz", (100, 250))
def test_times_are_mne_s_where_no_sample_lies_at_the_start_of_a_trial(recorded_hz, to_hz):
    mne = pytest.importorskip("mne")
    raw = mne.io.RawArray(
        np.zeros((1, 4 * recorded_hz)), mne.create_info(1, recorded_hz, "eeg"), verbose="ERROR"
    )
    events = np.array([[recorded_hz, 0, 1]])
    epochs = mne.Epochs(raw, events, tmin=-0.2, tmax=1, baseline=None, preload=True, verbose="ERROR")
    if to_hz < recorded_hz:
        epochs.resample(to_hz, verbose="ERROR")
    steps = Steps(rate_hz=to_hz, keep_ms=(0, 1000))
    kept = (epochs.times > -1e-9) & (epochs.times < 1 - 1e-9)
    np.testing.assert_allclose(Cutting(steps, recorded_hz).times_s, epochs.times[kept], atol=1e-9)


def test_times_between_which_no_sample_lies_are_refused():
    with pytest.raises(BrainhiveError, match=r"no sample at 250 Hz lies in keep_ms \[1.0, 2.0\]"):
        Cutting(Steps(keep_ms=(1, 2)), 1000).times_s  # noqa: B018


def test_the_noise_of_a_single_sample_is_refused_where_it_is_measured_over_samples():
    with pytest.raises(BrainhiveError, match=r"keep_ms \[100.0, 104.0\] holds 1 sample at 250 Hz"):
        Cutting(Steps(keep_ms=(100, 104)), 1000).times_s  # noqa: B018
    assert [*Cutting(Steps(keep_ms=(100, 104), whiten="time"), 1000).times_s] == [0.1]


def test_values_too_large_to_whiten_are_named():
    epochs = np.random.default_rng(0).normal(size=(4, 3, 20)).astype(np.float32)
    epochs[2, 1, 5] = 1e25
    with pytest.raises(BrainhiveError, match=r"channel Pz has values of up to 1e\+25") as caught:
        normalise({"train": epochs}, {"train": np.arange(4)}, Steps(), ("Cz", "Pz", "Oz"))
    assert "preparation.channels" in caught.value.hint


def test_a_trial_longer_than_an_hour_is_refused():
    with pytest.raises(ValueError, match="epoch_ms"):
        Steps(epoch_ms=(-1e300, 1000))


def test_whose_noise_is_idle_where_none_is_normalised():
    with pytest.raises(RecipeError, match=r"^whiten_by has no effect where nothing is whitened"):
        Steps(whiten="no", whiten_by="both")


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
        cutting = Cutting(Steps(baseline=baseline), rate_hz)
        return cutting.cut([volts], ["Oz"], starts + 200, 1e6)[:, 0]

    time = starts[:, None] + 4 * np.arange(50, 300) + 1  # 1 ms late
    expected = np.sin(2 * np.pi * 3 * time / rate_hz)
    inner = slice(20, -20)  # where the edges do not matter
    np.testing.assert_allclose((cut_with(False) - 5e5)[:, inner], expected[:, inner], atol=0.05)
    before = np.stack([wave[start : start + 201].mean() for start in starts])[:, None]
    np.testing.assert_allclose(cut_with(True)[:, inner], (expected - before)[:, inner], atol=5e-3)


def test_a_value_that_is_not_finite_is_named():
    with pytest.raises(BrainhiveError, match="channel Pz has NaN or infinite values"):
        cutting = Cutting(Steps(epoch_ms=(0, 190), keep_ms=(0, 190), baseline=False), 100)
        cutting.cut([np.full(50, np.nan)], ["Pz"], np.array([2]), 1)
