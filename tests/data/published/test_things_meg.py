"""Epochs of THINGS-MEG, as they are distributed."""

import importlib.util

import mne
import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data.published.things_meg import ThingsMegEpochs

pytest.importorskip("mne")


from tests.tools.trial_numbers import numbers_of_trials

CHANNELS, SAMPLES = 5, 281
TRIALS = [
    # trial_type, things_category_nr, image_path, session_nr
    ("exp", 1, "images_meg/aardvark/aardvark_01b.jpg", 1),
    ("catch", None, "images_catch_meg/catch1.jpg", 1),
    ("test", 2, "images_test_meg/wig_13s.jpg", 1),
    ("exp", 2, "images_meg/wig/wig_01b.jpg", 1),
    ("exp", 1, "images_meg/aardvark/aardvark_02s.jpg", 1),
    ("test", 2, "images_test_meg/wig_13s.jpg", 2),
    ("exp", 3, "images_meg/bat1/bat1_05s.jpg", 2),
]


def write_epochs(
    root,
    signal,
    trials=TRIALS,
    rate_hz=200.0,
    onsets_s=None,
    **saved,
):
    """Write epochs [n, C, T] of subject 1."""
    names = [f"MLO{number}1-1609" for number in range(CHANNELS)]
    info = mne.create_info(names, rate_hz, "mag", verbose="error")
    for number, channel in enumerate(info["chs"]):
        channel["loc"][:3] = number, 0, 0.1
    columns = ("trial_type", "things_category_nr", "image_path", "session_nr")
    table = [dict(zip(columns, trial, strict=True)) for trial in trials]
    for row, onset_s in zip(table, onsets_s or (), strict=False):
        row["onset"] = onset_s
    if importlib.util.find_spec("pandas"):  # mne then takes no list
        table = importlib.import_module("pandas").DataFrame(table)
    events = np.stack(
        [
            1000 + 300 * np.arange(len(trials)),
            np.zeros(len(trials)),
            np.arange(len(trials)) + 1,
        ]
    )
    epochs = mne.EpochsArray(
        signal,
        info,
        events.T.astype(int),
        tmin=-0.1,
        metadata=table,
        baseline=None,
        verbose="error",
    )
    path = root / "derivatives/preprocessed/preprocessed_P1-epo.fif"
    path.parent.mkdir(parents=True, exist_ok=True)
    epochs.save(path, overwrite=True, verbose="error", **saved)
    return path


@pytest.fixture
def signal():
    return (
        np.random.default_rng(0)
        .normal(size=(len(TRIALS), CHANNELS, SAMPLES))
        .astype(np.float32)
    )


def make_preparation(root, **keys):
    return ThingsMegEpochs(root=str(root), **keys).build(Paths())


def test_onsets_are_kept(tmp_path, signal):
    write_epochs(tmp_path, signal, onsets_s=[2.5, None, 5.0, 6.5, 8.0, 1.5, 3.0])
    session = make_preparation(tmp_path).session(1, 1)
    np.testing.assert_array_equal(session["train"].onset_s, [2.5, 8.0])
    np.testing.assert_array_equal(session["test"].onset_s, [5.0])


def test_trials_are_read_by_type_and_session(tmp_path, signal, recorded):
    write_epochs(tmp_path, signal)
    preparation = make_preparation(tmp_path)
    assert preparation.subjects == (1,)
    assert list(preparation.sessions(1)) == [1, 2]
    first_session = preparation.session(1, 1)
    second = preparation.session(1, 2)
    assert first_session["train"].image_ids == ["aardvark_01b", "aardvark_02s"]
    assert first_session["test"].image_ids == ["wig_13s"]
    assert second["train"].image_ids == ["bat1_05s"]
    assert second["test"].image_ids == ["wig_13s"]
    np.testing.assert_array_equal(
        first_session["train"].signal, signal[[0, 4], :, 20:221]
    )
    np.testing.assert_array_equal(second["test"].signal, signal[[5], :, 20:221])
    times_s = first_session["train"].times_s
    assert (len(times_s), times_s[0], times_s[-1]) == (201, 0, 1)
    assert first_session["train"].rate_hz == 200
    dropped = {"catch": 1, "category of a test picture": 1}
    assert first_session["train"].provenance["dropped"] == dropped
    assert first_session["test"].stimulus_marks == {"stimulus": (0.0, 500.0)}
    np.testing.assert_allclose(
        first_session["train"].space.positions[:, 0], np.arange(CHANNELS)
    )
    recorded(digits=5, **numbers_of_trials(first_session["train"]))


def test_other_times_can_be_kept(tmp_path, signal):
    write_epochs(tmp_path, signal)
    preparation = make_preparation(tmp_path, keep_ms=(-100, 1300))
    train = preparation.session(1, 1)["train"]
    assert train.image_ids == ["aardvark_01b", "aardvark_02s"]
    np.testing.assert_array_equal(train.signal, signal[[0, 4]])
    with pytest.raises(
        BrainhiveError, match=r"keep_ms \[-200.0, 1000.0\] .* -100 to 1300 ms"
    ):
        make_preparation(tmp_path, keep_ms=(-200, 1000)).sessions(1)


def test_epochs_that_are_cut_short_or_missing_are_named(tmp_path, signal):
    path = write_epochs(tmp_path, signal)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BrainhiveError, match=r"preprocessed_P1-epo\.fif"):
        make_preparation(tmp_path).session(1, 1)
    path.unlink()
    with pytest.raises(MissingData, match=r"preprocessed_P1-epo\.fif"):
        make_preparation(tmp_path).files(1)


def test_epochs_of_another_writer_give_their_evoked_responses(
    golden, tmp_path, monkeypatch
):
    pytest.importorskip("pandas")
    monkeypatch.syspath_prepend(golden / "prepare")
    import mini_raw

    size = mini_raw.Meg(noise=0.1)
    truth = mini_raw.make_meg(tmp_path, size, seed=1)
    preparation = make_preparation(tmp_path)
    sessions = [preparation.session(1, session) for session in preparation.sessions(1)]
    counts = {"train": 0, "test": 0}
    for session in sessions:
        for split, trials in session.items():
            counts[split] += len(trials.signal)
    train_concepts = size.concepts - size.test_concepts
    assert counts == {
        "train": train_concepts * size.images_per_concept,
        "test": size.test_concepts * size.test_repetitions,
    }
    test = np.concatenate([session["test"].signal for session in sessions])
    ids = np.concatenate([session["test"].image_ids for session in sessions])
    evoked = np.stack([test[ids == name].mean(0) for name in np.unique(ids)])
    expected = truth["evoked"][:, :, 20:221]
    for response in evoked:
        # the nearest expected response differs by noise alone
        assert np.abs(expected - response).max((1, 2)).min() < 0.3
