"""Raw recordings of THINGS-EEG2, prepared as the published code prepares them."""

import numpy as np
import pytest

from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.seeds import shuffled
from brainhive_cli.data.published.things_eeg_raw import Raw


@pytest.fixture(scope="module")
def raw(mini_raw, small_eeg, tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    mini_raw.make_eeg(folder, small_eeg, seed=3)
    return folder


@pytest.fixture(scope="module")
def published(mini_raw, golden_eeg, tmp_path_factory):
    """The recordings that the golden files were made of."""
    folder = tmp_path_factory.mktemp("published")
    mini_raw.make_eeg(folder, golden_eeg.size, golden_eeg.seed)
    return folder


def sessions(raw, subject=1, **knobs):
    made = Raw(root=str(raw), **knobs).build(Paths())
    return [made.session(subject, session) for session in made.sessions(subject)]


def published_sessions(published, golden_eeg, **knobs):
    """Prepare them with the repetitions and the seed of the golden files."""
    return sessions(published, golden_eeg.size.subject, **golden_eeg.knobs, **knobs)


def merged(found, split, seed):
    """Join the repetitions of each picture over sessions, shuffled as published."""
    trials = [each[split] for each in found]
    pictures = sorted({name for each in trials for name in each.image_ids})
    rows = []
    for picture in pictures:
        own = [
            each.signal[np.array(each.image_ids) == picture][:, 0] for each in trials
        ]
        rows.append(np.concatenate(own)[shuffled(sum(map(len, own)), seed)])
    return np.stack(rows)


def test_trials_have_the_published_baseline_and_resampling(
    golden, published, golden_eeg
):
    steps = np.load(golden / "prepare/eeg_steps.npz")
    expected = steps["epochs_ses1_train"]  # in volts
    found = published_sessions(published, golden_eeg, whiten="no")[0]["train"]
    assert found.unit == "µV"
    signal = found.signal.reshape(expected.shape) * 1e-6
    assert np.abs(signal - expected).max() <= 1e-6 * np.abs(expected).max()


def test_alignvis_preparation_is_the_published_one(golden, published, golden_eeg):
    found = published_sessions(published, golden_eeg, shuffle=True)
    steps = np.load(golden / "prepare/eeg_steps.npz")
    whiteners = np.stack([session["train"].whiteners[0] for session in found]) * 1e6
    np.testing.assert_allclose(
        whiteners, steps["whitener"], atol=5e-6 * np.abs(steps["whitener"]).max()
    )
    for split in ("train", "test"):
        expected = np.load(golden / f"prepare/eeg250_{split}.npz")
        joined = merged(found, split, golden_eeg.repetition_seed)
        np.testing.assert_allclose(joined, expected["data"], atol=1.5e-5)
    times_s = found[0]["train"].times_s
    assert len(times_s) == expected["data"].shape[-1] and times_s[0] == 0


@pytest.mark.parametrize("across", ("time", "epochs"))
def test_preparation_of_the_data_set_s_authors_is_theirs(
    golden, published, golden_eeg, across
):
    expected = np.load(golden / "prepare/eeg100_authors.npz")
    found = published_sessions(
        published,
        golden_eeg,
        channels=[str(name) for name in expected["ch_names"]],
        epoch_ms=(-200, 800),
        keep_ms=(-200, 800),
        rate_hz=100,
        whiten=across,
        whiten_by="both",
    )
    for split in ("train", "test"):
        joined = merged(found, split, golden_eeg.repetition_seed)
        np.testing.assert_allclose(joined, expected[f"{across}_{split}"], atol=1.5e-5)
    times_s = found[0]["train"].times_s
    np.testing.assert_allclose(times_s, expected["times"], atol=1e-9)


def test_all_repetitions_are_kept_by_default_and_counted(raw):
    found = sessions(raw)[0]["train"]
    counts = np.unique(found.image_ids, return_counts=True)[1]
    assert sorted(counts) == [2, 2, 3] and found.provenance["dropped"] == {
        "target": 1,
        "beyond the recording": 0,
    }


def test_test_trials_do_not_change_the_whitener(mini_raw, small_eeg, raw, tmp_path):
    mini_raw.make_eeg(tmp_path, small_eeg, seed=3)
    for session in range(1, 5):
        path = tmp_path / f"raw_eeg/sub-01/ses-{session:02d}/raw_eeg_test.npy"
        other = tmp_path / f"raw_eeg/sub-01/ses-{session % 4 + 1:02d}/raw_eeg_test.npy"
        path.write_bytes(other.read_bytes())
    for before, after in zip(sessions(raw), sessions(tmp_path), strict=True):
        np.testing.assert_array_equal(
            before["train"].whiteners[0], after["train"].whiteners[0]
        )
        np.testing.assert_array_equal(before["train"].signal, after["train"].signal)
    both = (
        sessions(root, whiten_by="both")[0]["train"].whiteners[0]
        for root in (raw, tmp_path)
    )
    # which the test trials of other sessions do change
    assert not np.array_equal(*both)


def test_signals_are_neuralbench_s_before_trials_are_cut(raw):
    """By the functions that its own code calls, of mne and scikit-learn."""
    mne = pytest.importorskip("mne")
    from sklearn.preprocessing import RobustScaler

    window = {"epoch_ms": (-200, 800), "keep_ms": (-200, 800), "rate_hz": 120}
    window |= {"sessions": [1], "channels": ["Pz", "O1"]}
    found = sessions(raw, continuous="neuralbench", whiten="no", **window)[0]["train"]
    path = raw / "raw_eeg/sub-01/ses-01/raw_eeg_training.npy"
    content = np.load(path, allow_pickle=True).item()
    names = [*found.space.names]
    info = mne.create_info(names, 1000, "eeg")
    rows = [content["ch_names"].index(name) for name in names]
    whole = mne.io.RawArray(content["raw_eeg_data"][rows].astype(float), info)
    mains_hz = [*range(50, 301, 50), *range(60, 301, 60)]
    whole.notch_filter(mains_hz, verbose="ERROR")
    whole.filter(0.1, 75, verbose="ERROR").resample(120, verbose="ERROR")
    scaled = RobustScaler().fit_transform(whole.get_data().T).T
    first = round(float(found.onset_s[0, 0]) * 120) - 24
    trial = scaled[:, first : first + 121]
    trial = (trial - trial[:, :25].mean(1, keepdims=True))[:, :120].clip(-20, 20)

    assert found.unit == "IQR" and found.signal.shape[2:] == (len(names), 120)
    assert np.abs(found.signal[0, 0] - trial).max() <= 1e-5 * np.abs(trial).max()
