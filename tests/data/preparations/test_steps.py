"""The steps from a recording to trials: which times they give."""

import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.data.preparations._steps import Cutting, Steps, normalise


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
