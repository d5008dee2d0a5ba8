"""Raw recordings of THINGS-EEG2, prepared as the published code prepares them."""

import re
from pathlib import Path

import numpy as np
import pytest

from brainhive_cli.core.base.seeds import shuffle_range
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.files import pickles
from brainhive_cli.data.published.things_eeg_raw import TARGET, ThingsEegRaw
from brainhive_cli.data.signals.cutting import estimate_covariance
from tests.tools.trial_numbers import numbers_of_trials

SPLITS = {"training": "train", "test": "test"}
"""Name of the split by the name of its partition in files."""


@pytest.fixture(scope="module")
def raw(mini_raw, small_eeg, tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    mini_raw.make_eeg(folder, small_eeg, seed=3)
    return folder


@pytest.fixture(scope="module")
def published(mini_raw, golden_eeg, tmp_path_factory):
    """Write the recordings from which the golden files were made."""
    folder = tmp_path_factory.mktemp("published")
    mini_raw.make_eeg(folder, golden_eeg.size, golden_eeg.seed)
    return folder


def prepare_sessions(raw, subject=1, **keys):
    preparation = ThingsEegRaw(root=str(raw), **keys).build(Paths())
    numbers = preparation.sessions(subject)
    return [preparation.session(subject, number) for number in numbers]


def prepare_published(published, golden_eeg, **keys):
    """Prepare the sessions with the repetitions and the seed of the golden files."""
    return prepare_sessions(
        published, golden_eeg.size.subject, **golden_eeg.preparation_keys, **keys
    )


def read_author_settings(golden):
    """Return the settings of the data set's authors, without the whitening."""
    names = np.load(golden / "prepare/eeg100_authors.npz")["ch_names"]
    return {
        "channels": names.tolist(),
        "epoch_ms": (-200, 800),
        "keep_ms": (-200, 800),
        "rate_hz": 100,
    }


@pytest.fixture(scope="module")
def unwhitened(golden, published, golden_eeg):
    """Cut but do not whiten the sessions, by the golden file with their values."""
    settings = {"eeg_steps": {}, "eeg100_authors": read_author_settings(golden)}
    return {
        name: prepare_published(published, golden_eeg, whiten="no", **keys)
        for name, keys in settings.items()
    }


def merge_sessions(sessions, split, seed):
    """Join the repetitions of each picture over sessions, shuffled as published."""
    recordings = [session[split] for session in sessions]
    signal = np.concatenate([trials.signal for trials in recordings])
    image_ids = np.concatenate([trials.image_ids for trials in recordings])
    rows = []
    for picture in np.unique(image_ids):
        repetitions = signal[image_ids == picture]
        rows.append(repetitions[shuffle_range(len(repetitions), seed)])
    return np.stack(rows)


def test_raw_recordings_are_the_golden_ones(golden, published, golden_eeg):
    """Golden values: shapes, events, and some samples of each recording, which change
    if NumPy draws other numbers.
    """
    probe = np.load(golden / "prepare/eeg_raw_probe.npz")
    folder = published / f"raw_eeg/sub-{golden_eeg.size.subject:02d}"
    names = [key.removeprefix("shape_") for key in probe if key.startswith("shape_")]
    assert len(names) == golden_eeg.size.sessions * len(SPLITS)
    for name in names:
        session, _, split = name.partition("_")
        content = pickles.load(folder / session / f"raw_eeg_{split}.npy")
        signal = np.asarray(content["raw_eeg_data"])
        events = signal[content["ch_types"].index("stim")]
        onsets = np.flatnonzero(events)

        assert signal.shape == tuple(probe[f"shape_{name}"])
        np.testing.assert_array_equal(onsets, probe[f"onset_{name}"])
        np.testing.assert_array_equal(events[onsets], probe[f"code_{name}"])
        # the page of the golden files says that bits may differ
        samples = signal[:, :: int(probe["every"])]
        np.testing.assert_allclose(samples, probe[f"raw_{name}"], rtol=1e-9)


def test_each_session_draws_the_published_trials(
    golden, published, golden_eeg, unwhitened
):
    """Golden values: numbers of the drawn trials [picture, k] among those that show no
    target, and codes of the pictures.
    """
    steps = np.load(golden / "prepare/eeg_steps.npz")
    probe = np.load(golden / "prepare/eeg_raw_probe.npz")
    table = np.load(published / "image_metadata.npy", allow_pickle=True).item()
    for number, session in enumerate(unwhitened["eeg_steps"], 1):
        for partition, split in SPLITS.items():
            name = f"ses-{number:02d}_{partition}"
            step = steps[f"chosen_{name}"]
            codes = steps[f"images_{name}"]
            # a sample lasts a millisecond
            onsets = probe[f"onset_{name}"][probe[f"code_{name}"] != TARGET]
            files = np.array(table[f"{split}_img_files"])[codes - 1]

            trials = session[split]

            np.testing.assert_allclose(trials.onset_s, onsets[step].ravel() / 1000)
            picture_names = [
                f"{Path(image_id).name}.jpg" for image_id in trials.image_ids
            ]
            assert picture_names == files.repeat(step.shape[1]).tolist()


def test_shuffles_are_the_published_ones(golden, golden_eeg):
    """Golden values: `shuffle_n_of_k`, the first k of n, and the last shuffles."""
    steps = np.load(golden / "prepare/eeg_steps.npz")
    seed = golden_eeg.repetition_seed
    for partition in ("train", "test"):
        order = steps[f"order_{partition}"]
        np.testing.assert_array_equal(shuffle_range(len(order), seed), order)
    draws = [match for key in steps if (match := re.match(r"shuffle_(\d+)_of_", key))]
    assert draws
    for match in draws:
        expected = steps[match.string]
        shuffled = shuffle_range(int(match[1]), seed)[: len(expected)]
        np.testing.assert_array_equal(shuffled, expected)


@pytest.mark.parametrize("name", ["eeg_steps", "eeg250_train", "eeg250_test"])
def test_channels_are_in_the_published_order(golden, published, name):
    expected = np.load(golden / f"prepare/{name}.npz")["ch_names"]
    assert ThingsEegRaw(root=str(published)).build(Paths()).channels == tuple(expected)


def test_times_before_the_cut_are_the_published_ones(golden, published):
    expected = np.load(golden / "prepare/eeg_steps.npz")["times_before_cut"]
    preparation = ThingsEegRaw(root=str(published), keep_ms=(-200, 1000)).build(Paths())
    np.testing.assert_allclose(preparation.cutting.times_s, expected, atol=1e-9)


@pytest.mark.parametrize("name", ["eeg_steps", "eeg100_authors"])
def test_trials_have_the_published_baseline_and_resampling(golden, unwhitened, name):
    # from volts to microvolts
    expected = 1e6 * np.load(golden / f"prepare/{name}.npz")["epochs_ses1_train"]
    train = unwhitened[name][0]["train"]
    assert train.unit == "µV"
    signal = train.signal.reshape(expected.shape)
    assert np.abs(signal - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("name", "across", "prefix"),
    [
        ("eeg_steps", "epochs", "sigma_"),
        ("eeg100_authors", "time", "time_sigma_"),
        ("eeg100_authors", "epochs", "epochs_sigma_"),
    ],
)
def test_noise_of_each_partition_is_the_published_one(
    golden, unwhitened, name, across, prefix
):
    values = np.load(golden / f"prepare/{name}.npz")
    for split in ("train", "test"):
        # from square volts to square microvolts
        expected = 1e12 * values[f"{prefix}{split}"]
        noise_of_partitions = []
        for session in unwhitened[name]:
            trials = session[split]
            _, pictures = np.unique(trials.image_ids, return_inverse=True)
            noise_of_partitions.append(
                estimate_covariance(trials.signal, pictures, across)
            )
        # implementations in float32 differ by 2e-7, says the page of the golden files
        atol = 1e-6 * np.abs(expected).max()
        np.testing.assert_allclose(noise_of_partitions, expected, rtol=0, atol=atol)


def assert_whiteners_near(found, expected):
    """Compare whiteners [sessions, C, C], which the golden files have for volts."""
    whiteners = np.stack([session["train"].whiteners[0] for session in found])
    atol = 5e-6 * np.abs(1e-6 * expected).max()
    np.testing.assert_allclose(whiteners, 1e-6 * expected, rtol=1e-7, atol=atol)


def test_alignvis_preparation_is_the_published_one(golden, published, golden_eeg):
    published_sessions = prepare_published(published, golden_eeg, shuffle=True)
    steps = np.load(golden / "prepare/eeg_steps.npz")
    assert_whiteners_near(published_sessions, steps["whitener"])
    for split in ("train", "test"):
        expected = np.load(golden / f"prepare/eeg250_{split}.npz")
        joined = merge_sessions(published_sessions, split, golden_eeg.repetition_seed)
        np.testing.assert_allclose(joined, expected["data"], atol=1.5e-5)
    times_s = published_sessions[0]["train"].times_s
    assert len(times_s) == expected["data"].shape[-1]
    assert times_s[0] == 0


@pytest.mark.parametrize("across", ("time", "epochs"))
def test_preparation_of_the_data_set_s_authors_is_theirs(
    golden, published, golden_eeg, across
):
    expected = np.load(golden / "prepare/eeg100_authors.npz")
    published_sessions = prepare_published(
        published,
        golden_eeg,
        whiten=across,
        whiten_by="both",
        **read_author_settings(golden),
    )
    assert_whiteners_near(published_sessions, expected[f"{across}_whitener"])
    for split in ("train", "test"):
        joined = merge_sessions(published_sessions, split, golden_eeg.repetition_seed)
        np.testing.assert_allclose(joined, expected[f"{across}_{split}"], atol=1.5e-5)
    times_s = published_sessions[0]["train"].times_s
    np.testing.assert_allclose(times_s, expected["times"], atol=1e-9)


def test_all_repetitions_are_kept_by_default_and_counted(raw, recorded):
    train = prepare_sessions(raw)[0]["train"]
    counts = np.unique(train.image_ids, return_counts=True)[1]
    assert sorted(counts) == [2, 2, 3]
    dropped = {"target": 1, "beyond the recording": 0}
    assert train.provenance["dropped"] == dropped
    recorded(digits=5, **numbers_of_trials(train))


@pytest.mark.nightly
def test_test_trials_do_not_change_the_whitener(mini_raw, small_eeg, raw, tmp_path):
    mini_raw.make_eeg(tmp_path, small_eeg, seed=3)
    for session in range(1, 5):
        path = tmp_path / f"raw_eeg/sub-01/ses-{session:02d}/raw_eeg_test.npy"
        test_path = (
            tmp_path / f"raw_eeg/sub-01/ses-{session % 4 + 1:02d}/raw_eeg_test.npy"
        )
        path.write_bytes(test_path.read_bytes())
    for initial_session, final_session in zip(
        prepare_sessions(raw), prepare_sessions(tmp_path), strict=True
    ):
        np.testing.assert_array_equal(
            initial_session["train"].whiteners[0], final_session["train"].whiteners[0]
        )
        np.testing.assert_array_equal(
            initial_session["train"].signal, final_session["train"].signal
        )
    # they do with whiten_by=both
    whitener, other_whitener = (
        prepare_sessions(root, whiten_by="both")[0]["train"].whiteners[0]
        for root in (raw, tmp_path)
    )
    assert not np.array_equal(whitener, other_whitener)


def test_signals_are_neuralbench_s_before_trials_are_cut(raw, recorded):
    """Expected values come from the functions of mne and scikit-learn that it calls."""
    mne = pytest.importorskip("mne")
    from sklearn.preprocessing import RobustScaler

    window = {"epoch_ms": (-200, 800), "keep_ms": (-200, 800), "rate_hz": 120}
    window |= {"sessions": [1], "channels": ["Pz", "O1"]}
    train = prepare_sessions(raw, continuous="neuralbench", whiten="no", **window)[0][
        "train"
    ]
    path = raw / "raw_eeg/sub-01/ses-01/raw_eeg_training.npy"
    content = np.load(path, allow_pickle=True).item()
    names = list(train.space.names)
    info = mne.create_info(names, 1000, "eeg")
    rows = [content["ch_names"].index(name) for name in names]
    whole_raw_array = mne.io.RawArray(content["raw_eeg_data"][rows].astype(float), info)
    mains_hz = list(range(50, 301, 50)) + list(range(60, 301, 60))
    whole_raw_array.notch_filter(mains_hz, verbose="ERROR")
    whole_raw_array.filter(0.1, 75, verbose="ERROR").resample(120, verbose="ERROR")
    scaled = RobustScaler().fit_transform(whole_raw_array.get_data().T).T
    first_sample = round(float(train.onset_s[0]) * 120) - 24
    trial = scaled[:, first_sample : first_sample + 121]
    trial = (trial - trial[:, :25].mean(1, keepdims=True))[:, :120].clip(-20, 20)

    assert train.unit == "IQR"
    assert train.signal.shape[1:] == (len(names), 120)
    assert np.abs(train.signal[0] - trial).max() <= 1e-5 * np.abs(trial).max()
    recorded(digits=4, **numbers_of_trials(train))
