"""Epochs of THINGS-MEG, as they are distributed."""

import importlib.util
from pathlib import Path

import mne
import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.published.things_meg import ThingsMegEpochs

pytest.importorskip("mne")


from tests.tools.trial_numbers import numbers_of_preparation

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


def write(
    root: Path,
    signal: np.ndarray,
    trials=TRIALS,
    rate_hz: float = 200.0,
    onsets_s=None,
    **saved,
) -> Path:
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
def signal() -> np.ndarray:
    return (
        np.random.default_rng(0)
        .normal(size=(len(TRIALS), CHANNELS, SAMPLES))
        .astype(np.float32)
    )


def made(root: Path, **knobs):
    return ThingsMegEpochs(root=str(root), **knobs).build(Paths())


def test_when_each_trial_happened_is_kept_where_the_table_says_it(
    tmp_path, signal
) -> None:
    preparation = made(
        write(tmp_path, signal, onsets_s=[2.5, None, 5.0, 6.5, 8.0, 1.5, 3.0]).parents[
            2
        ]
    )
    one = preparation.session(1, 1)
    np.testing.assert_array_equal(one["train"].onset_s, [[2.5], [8.0]])
    np.testing.assert_array_equal(one["test"].onset_s, [[5.0]])


def test_trials_are_sorted_by_their_type_and_session_and_read_as_they_are(
    tmp_path, signal, recorded
) -> None:
    write(tmp_path, signal)
    preparation = made(tmp_path)
    assert preparation.subjects == (1,) and list(preparation.sessions(1)) == [1, 2]
    one, two = (preparation.session(1, session) for session in (1, 2))
    assert one["train"].image_ids == ["aardvark_01b", "aardvark_02s"] and one[
        "test"
    ].image_ids == ["wig_13s"]
    assert two["train"].image_ids == ["bat1_05s"] and two["test"].image_ids == [
        "wig_13s"
    ]
    np.testing.assert_array_equal(one["train"].signal[:, 0], signal[[0, 4], :, 20:221])
    np.testing.assert_array_equal(two["test"].signal[:, 0], signal[[5], :, 20:221])
    times_s = one["train"].times_s
    assert (
        len(times_s) == 201
        and times_s[0] == 0
        and times_s[-1] == 1
        and one["train"].rate_hz == 200
    )
    assert one["train"].provenance["dropped"] == {
        "catch": 1,
        "category of a test picture": 1,
    }
    assert one["test"].stimulus_marks == {"stimulus": (0.0, 500.0)}
    np.testing.assert_allclose(one["train"].space.positions[:, 0], np.arange(CHANNELS))
    recorded(digits=5, **numbers_of_preparation(preparation))


def test_pictures_of_test_categories_and_other_times_are_kept_on_demand(
    tmp_path, signal
) -> None:
    write(tmp_path, signal)
    found = made(tmp_path, drop_test_categories=False, keep_ms=(-100, 1300)).session(
        1, 1
    )["train"]
    assert found.image_ids == ["aardvark_01b", "wig_01b", "aardvark_02s"]
    np.testing.assert_array_equal(found.signal[:, 0], signal[[0, 3, 4]])
    with pytest.raises(
        BrainhiveError, match=r"keep_ms \[-200.0, 1000.0\] goes beyond -100 to 1300 ms"
    ):
        made(tmp_path, keep_ms=(-200, 1000)).sessions(1)


def test_epochs_that_are_cut_short_or_missing_are_named(tmp_path, signal) -> None:
    path = write(tmp_path, signal)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BrainhiveError, match=r"preprocessed_P1-epo\.fif"):
        made(tmp_path).session(1, 1)
    path.unlink()
    with pytest.raises(MissingData, match=r"no epochs .*preprocessed_P1-epo\.fif"):
        made(tmp_path).files(1)


def test_files_of_an_independent_writer_give_their_evoked_responses(
    golden, tmp_path, monkeypatch
) -> None:
    pytest.importorskip("pandas")
    monkeypatch.syspath_prepend(golden / "prepare")
    import mini_raw

    size = mini_raw.Meg(noise=0.1)
    truth = mini_raw.make_meg(tmp_path, size, seed=1)
    preparation = made(tmp_path)
    sessions = [preparation.session(1, session) for session in preparation.sessions(1)]
    counts = {
        split: sum(len(each[split].signal) for each in sessions if split in each)
        for split in ("train", "test")
    }
    train_concepts = size.concepts - size.test_concepts
    assert counts == {
        "train": train_concepts * size.images_per_concept,
        "test": size.test_concepts * size.test_repetitions,
    }
    test = np.concatenate([each["test"].signal[:, 0] for each in sessions])
    ids = np.concatenate([each["test"].image_ids for each in sessions])
    evoked = np.stack([test[ids == name].mean(0) for name in np.unique(ids)])
    known = truth["evoked"][:, :, 20:221]
    for response in evoked:  # the nearest known response is the same but for noise
        assert min(np.abs(response - each).max() for each in known) < 0.3
