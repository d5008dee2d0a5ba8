"""Steps from a recording to trials, compared with MNE, SciPy and scikit-learn."""

import numpy as np
import pytest
from scipy import signal as scipy_signal
from sklearn.covariance import ledoit_wolf

from brainhive_cli.core.base.errors import BrainhiveError, RecipeError
from brainhive_cli.data.signals import cutting
from brainhive_cli.data.signals.cutting import (
    TRIALS_PER_BATCH,
    CausalFilter,
    Cutting,
    Resampling,
    Steps,
)


def test_times_equal_mne_if_a_trial_starts_between_samples():
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
        is_inside = (epochs.times > -1e-9) & (epochs.times < 1 - 1e-9)
        np.testing.assert_allclose(
            Cutting(steps, recorded_hz).times_s, epochs.times[is_inside], atol=1e-9
        )


def test_resampling_is_mne_s():
    mne = pytest.importorskip("mne")
    for samples, rate_hz, to_hz in (
        (1201, 1000, 250),
        (1201, 1000, 333),
        (1201, 1000, 999.9),  # as many samples after as before, with the padding
        (50, 100, 50),
        (1800, 1000, 250),  # a longer padding would need the next power of two
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


def test_slow_waves_survive_any_offset_of_the_recording():
    rng = np.random.default_rng(0)
    rate_hz, starts = 1000, np.sort(rng.integers(0, 8000, TRIALS_PER_BATCH + 3))
    wave = np.sin(2 * np.pi * 3 * np.arange(10_000) / rate_hz)
    volts = 0.5 + 1e-6 * wave  # half a volt of offset

    def cut_with(baseline):
        cutting = Cutting(Steps(baseline=baseline), rate_hz)
        return cutting.cut_trials([volts], ["Oz"], starts + 200, 1e6)[:, 0]

    time = starts[:, None] + 4 * np.arange(50, 300) + 1  # 1 ms late
    expected = np.sin(2 * np.pi * 3 * time / rate_hz)
    inner = slice(20, -20)  # where the edges do not matter
    np.testing.assert_allclose(
        (cut_with(False) - 5e5)[:, inner], expected[:, inner], atol=0.05
    )
    initial_stacked = np.stack([wave[start : start + 201].mean() for start in starts])[
        :, None
    ]
    np.testing.assert_allclose(
        cut_with(True)[:, inner], (expected - initial_stacked)[:, inner], atol=5e-3
    )


def draw_epochs(trials, seed=0):
    """Draw correlated trials [n, 4, 30] of different sizes and offsets."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(4, 4)) * [[1], [3], [0.5], [2]]
    return (mixing @ random.normal(size=(trials, 4, 30)) + 2).astype(np.float32)


def shrink_slowly(observations):
    """Compute the covariance [C, C] of observations [T, C] as scikit-learn does.

    Its discriminant analysis shrinks standardised columns (Ledoit-Wolf).
    """
    spread = observations.std(0)
    standardised = (observations - observations.mean(0)) / spread
    return ledoit_wolf(standardised)[0] * np.outer(spread, spread)


@pytest.mark.parametrize("across", ["epochs", "time"])
@pytest.mark.parametrize("chunk", [1, 500, 2**18])
def test_the_noise_is_the_mean_of_scikit_learns_covariances(monkeypatch, across, chunk):
    """Stimuli have equal weights. A single trial has no spread over trials."""
    monkeypatch.setattr(cutting, "VALUES_PER_BATCH", chunk)
    epochs = draw_epochs(12)
    stimuli = np.array([5, 2, 5, 7, 2, 5, 2, 9, 9, 5, 1, 1])

    covariance = cutting.estimate_covariance(epochs.copy(), stimuli, across)

    covariances = []
    for stimulus in np.unique(stimuli):
        trials = epochs[stimuli == stimulus].astype(float)
        if across == "epochs":
            covariances.append(np.mean([shrink_slowly(trial.T) for trial in trials], 0))
        elif len(trials) > 1:
            covariances += [shrink_slowly(trials[:, :, time]) for time in range(30)]
    np.testing.assert_allclose(covariance, np.mean(covariances, 0), rtol=1e-4)


def test_noise_over_time_needs_a_stimulus_that_was_shown_twice():
    epochs = draw_epochs(3)
    with pytest.raises(BrainhiveError, match="twice"):
        cutting.estimate_covariance(epochs, np.array([1, 2, 3]), "time")
    assert cutting.estimate_covariance(epochs, np.array([1, 2, 2]), "time").any()


def test_whitened_trials_have_uncorrelated_noise_of_size_one():
    names = list("abcd")
    for whiten_by, measured_splits in (
        ("training", ["train"]),
        ("both", ["train", "test"]),
    ):
        epochs = {"train": draw_epochs(9), "test": draw_epochs(7, 1)}
        initial_signals_by_name = {
            split: signal.copy() for split, signal in epochs.items()
        }
        stimuli = {split: np.arange(len(signal)) for split, signal in epochs.items()}
        steps = Steps(whiten_by=whiten_by)  # type: ignore[arg-type]

        matrix = cutting.whiten_session(epochs, stimuli, steps, names)

        assert matrix is not None
        noise = np.mean(
            [
                cutting.estimate_covariance(
                    initial_signals_by_name[split], stimuli[split], "epochs"
                )
                for split in measured_splits
            ],
            0,
        )
        np.testing.assert_allclose(matrix @ noise @ matrix, np.eye(4), atol=1e-5)
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-9)
        for split, signal in epochs.items():
            expected = np.einsum("cd,ndt->nct", matrix, initial_signals_by_name[split])
            np.testing.assert_allclose(signal, expected, rtol=1e-3, atol=1e-4)

    plain_epochs = {"train": draw_epochs(9)}
    session = cutting.whiten_session(plain_epochs, {}, Steps(whiten="no"), names)
    assert session is None
    assert np.array_equal(plain_epochs["train"], draw_epochs(9))


def test_noise_is_measured_in_splits_that_there_are():
    assert cutting.require_noise_splits(["train", "test"], Steps()) == ["train"]
    both_steps = Steps(whiten_by="both")
    assert cutting.require_noise_splits(["train", "test"], both_steps) == [
        "train",
        "test",
    ]
    assert cutting.require_noise_splits(["test"], both_steps) == ["test"]
    assert cutting.require_noise_splits(["test"], Steps(whiten="no")) == []
    with pytest.raises(BrainhiveError, match="training trials"):
        cutting.require_noise_splits(["test"], Steps())


def test_channels_without_signal_of_their_own_are_refused():
    names, noise = ["a", "b", "c"], np.diag([4.0, 1.0, 2.0])
    root = cutting.compute_whitener(noise, names)
    np.testing.assert_allclose(root @ root, np.linalg.inv(noise))
    for smallest, hint in (
        (0.0, "exclude=[b]"),
        (3.9e-18, "exclude=[b]"),
        (4.1e-18, "units"),
        (3.9e-9, "units"),
    ):
        with pytest.raises(BrainhiveError, match=r"\bb\b") as error:
            cutting.refuse_flat_channels(np.array([4.0, smallest, 2.0]), names)
        assert hint in error.value.hint
    cutting.refuse_flat_channels(np.array([4.0, 4.1e-9, 2.0]), names)
    summed = np.ones((3, 3)) + np.diag([1.0, 0.0, 0.0])
    with pytest.raises(BrainhiveError) as error:
        cutting.compute_whitener(summed, names)
    assert "preparation.whiten=no" in error.value.hint
    huge = {"train": draw_epochs(4).astype(np.float32)}
    huge["train"][:, 2] *= 1e30
    with pytest.raises(BrainhiveError, match="channel c"):
        cutting.measure_noise(huge, {"train": np.arange(4)}, Steps(), list("abcd"))


@pytest.mark.parametrize(
    ("band_hz", "kind"),
    [((1.0, 30.0), "bandpass"), ((2.0, None), "high"), ((None, 20.0), "low")],
)
def test_a_filter_in_chunks_is_scipys_from_a_steady_state(band_hz, kind):
    signal = np.random.default_rng(0).normal([500, -3], size=(300, 2))
    edges = band_hz if all(band_hz) else max(edge or 0 for edge in band_hz)
    sections = scipy_signal.butter(4, edges, kind, fs=200, output="sos")
    # the first sample lasted for ever before
    lasting = np.concatenate([np.repeat(signal[:1], 20_000, 0), signal])
    expected = scipy_signal.sosfilt(sections, lasting, axis=0)[20_000:]
    causal = CausalFilter(band_hz, 200)

    parts = [causal(chunk) for chunk in np.split(signal, [0, 1, 90, 90, 250])]

    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-6)
    causal.reset()
    np.testing.assert_allclose(causal(signal), expected, atol=1e-6)
    assert causal(signal).dtype == np.float64
    for edge in (100.0, 120.0):
        with pytest.raises(BrainhiveError, match=f"{edge:g} Hz.* 200 Hz"):
            CausalFilter((None, edge), 200)
    assert CausalFilter((None, 99.0), 200)


@pytest.mark.parametrize(
    ("steps", "is_sound"),
    [
        ({"epoch_ms": (-100, 100), "keep_ms": (-100, 100)}, True),
        ({"epoch_ms": (0, 100), "keep_ms": (0, 100)}, True),
        ({"epoch_ms": (1, 100), "keep_ms": (1, 100)}, False),
        ({"epoch_ms": (1, 100), "keep_ms": (1, 100), "baseline": False}, True),
        ({"epoch_ms": (-100, 100), "keep_ms": (-101, 100)}, False),
        ({"epoch_ms": (-100, 100), "keep_ms": (-100, 101)}, False),
        ({"epoch_ms": (-100, 100), "keep_ms": (50, 50)}, False),
        ({"epoch_ms": (-100, -100), "keep_ms": (-100, -100)}, False),
        ({"whiten": "no"}, True),
        ({"whiten": "no", "whiten_by": "both"}, False),
    ],
)
def test_times_that_are_kept_lie_in_the_trial_around_the_onset(steps, is_sound):
    if is_sound:
        assert Steps(**steps)
    else:
        with pytest.raises((ValueError, RecipeError)):
            Steps(**steps)


@pytest.mark.parametrize("baseline", [True, False])
def test_trials_are_the_samples_around_their_onsets(baseline):
    steps = Steps(epoch_ms=(-40, 80), keep_ms=(-20, 60), rate_hz=500, baseline=baseline)
    cutting = Cutting(steps, 100.0)  # never resampled to more than was recorded
    recording = np.random.default_rng(0).normal(size=(2, 40)) + 1000
    onsets = np.array([4, 20, 31])

    trials = cutting.cut_trials(recording, ["a", "b"], onsets, 2.0)

    assert cutting.span == (-4, 8)
    assert cutting.rate_hz == 100
    np.testing.assert_allclose(cutting.times_s, np.arange(-2, 6) / 100, atol=1e-12)
    assert trials.shape == (3, 2, 8)
    assert trials.dtype == np.float32
    for trial, onset in zip(trials, onsets, strict=True):
        for values, channel in zip(trial, recording, strict=True):
            # the onset is part of the baseline
            mean = channel[onset - 4 : onset + 1].mean() if baseline else 0
            expected = 2 * (channel[onset - 2 : onset + 6] - mean)
            np.testing.assert_allclose(values, expected, atol=1e-3)
    assert cutting.are_complete(np.array([3, 4, 31, 32]), 40).tolist() == [
        False,
        True,
        True,
        False,
    ]
    # resampled, a constant stays what it is
    constant = np.full((1, 40), 7.0)
    # the noise finds flat channels where it is measured
    assert np.isfinite(cutting.cut_trials(constant, ["a"], onsets, 2.0)).all()
    steps = steps.model_copy(update={"rate_hz": 50.0, "whiten": "no"})
    flat = Cutting(steps, 100.0)
    if not baseline:
        np.testing.assert_allclose(flat.cut_trials(constant, ["a"], onsets, 2.0), 14)
    else:
        with pytest.raises(BrainhiveError, match=r"(?m)\ba$"):
            flat.cut_trials(constant, ["a"], onsets, 2.0)


def test_lost_trials_are_nan_and_other_infinite_values_refused(
    monkeypatch,
):
    steps = Steps(epoch_ms=(-40, 80), keep_ms=(-20, 60), whiten="no")
    cut, names = Cutting(steps, 100.0), ["a", "b"]
    recording = np.random.default_rng(0).normal(size=(2, 60))
    onsets = np.array([4, 20, 34, 45])
    whole_trials = cut.cut_trials(recording.copy(), names, onsets, 1.0)
    recording[:, 33] = np.nan

    trials = cut.cut_trials(recording.copy(), names, onsets, 1.0, may_be_lost=True)

    assert np.isnan(trials).all((1, 2)).tolist() == [False, False, True, False]
    np.testing.assert_allclose(trials[[0, 1, 3]], whole_trials[[0, 1, 3]])
    monkeypatch.setattr(cutting, "TRIALS_PER_BATCH", 1)
    second_trials = cut.cut_trials(
        recording.copy(), names, onsets, 1.0, may_be_lost=True
    )
    np.testing.assert_array_equal(second_trials, trials)
    with pytest.raises(BrainhiveError, match=r"channel a, b has .* 1 of 4"):
        cut.cut_trials(recording.copy(), names, onsets, 1.0)
    recording[0, 20:24] = np.inf
    with pytest.raises(BrainhiveError, match=r"channel a has .* 1 of 4"):
        cut.cut_trials(recording.copy(), names, onsets, 1.0, may_be_lost=True)


@pytest.mark.parametrize(
    ("keep_ms", "whiten", "is_sound"),
    [
        ((0, 21), "epochs", True),
        ((0, 20), "epochs", True),
        ((0, 10), "epochs", False),
        ((0, 10), "time", True),
        ((1, 9), "time", False),
    ],
)
def test_as_many_samples_are_kept_as_the_whitening_needs(keep_ms, whiten, is_sound):
    steps = Steps(epoch_ms=(-40, 80), keep_ms=keep_ms, whiten=whiten)
    if is_sound:
        assert len(Cutting(steps, 100.0).times_s) == max(1, int(keep_ms[1] / 10 + 0.9))
    else:
        with pytest.raises(BrainhiveError, match="keep_ms"):
            Cutting(steps, 100.0)
