"""Epochs in memory and in files: names, runs, events and stores."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.data.recordings import epoch_files
from brainhive_cli.data.recordings.epochs import (
    as_trials,
    cut_trials,
    join_epochs,
    read_picture_names,
    require_span,
    warn_of_size,
)
from brainhive_cli.data.signals.cutting import Cutting, Steps
from brainhive_cli.data.stores import own_arrays
from brainhive_cli.data.stores.signal_store import SignalStore
from tests.tools.trial_numbers import numbers_in

CHANNELS = ("Cz", "EEG oz", "O1")


def arrays(**changes):
    """Make nine trials of three channels."""
    random = np.random.default_rng(0)
    pictures = ["train/a.png", "b", "other", "b.png", None, "c", "train/a", "c", "a"]
    values = {
        "signal": random.normal(size=(9, 3, 60)) + 3,
        "pictures": pictures,
        "channels": CHANNELS,
        "times_s": np.arange(60) / 100 - 0.2,
        "unit": "uV",
    }
    return {**values, **changes}


def test_arrays_are_stored_by_session_and_split(recorded, home):
    split_ids = {"train": ["train/a", "train/b"], "test": ["test/c"]}
    dataset = SimpleNamespace(
        name="set",
        recorded_as="set",
        are_categories=False,
        splits=list(split_ids),
        images=lambda split: SimpleNamespace(image_ids=split_ids[split]),
    )
    trials = as_trials(**arrays(onset_s=np.arange(9) * 1.5))
    session = ["late", "early"] + list(["late"] * 4) + list(["early"] * 3)
    stored = own_arrays.store_arrays(
        trials,
        dataset,
        home / "signals/sub-01.h5",
        1,
        session=session,
        run=[4, 4, 4, 2, 2, 2, 1, 1, 1],
        earlier_steps={"whitened": False},
    )
    splits = SignalStore.open(home / "signals/sub-01.h5")
    # rows 2 and 4 show no picture of the data set
    assert stored.index.tolist() == [0, 1, 3, 5, 6, 7, 8]
    train, test = splits["train"], splits["test"]
    assert train.pictures == ("train/a", "train/b")
    assert train.counts.tolist() == [3, 2]
    assert train.sessions.tolist() == [0, 0, 1, 0, 1]
    assert train.runs.tolist() == [0, 0, 2, 2, 1]
    assert train.onset_s.tolist() == [9, 12, 0, 1.5, 4.5]
    assert test.pictures == ("test/c",)
    assert test.onset_s.tolist() == [10.5, 7.5]
    recorded(
        digits=5,
        train=train.signal[:],
        test=test.signal[:],
        facts=numbers_in(train.provenance),
    )
    for columns in ({"session": [1, 2]}, {"run": [1] * 8}):
        with pytest.raises(BrainhiveError):
            own_arrays.store_arrays(
                trials, dataset, home / "signals/sub-02.h5", 1, {}, **columns
            )


def test_arrays_say_their_axes():
    timed = as_trials(**arrays(onset_s="in order"))
    assert timed.signal.shape == (9, 3, 60)
    assert timed.signal[:].mean() == pytest.approx(2.9923, rel=1e-4)
    assert timed.rate_hz == pytest.approx(100)
    assert timed.channels == ("Cz", "Oz", "O1")
    assert timed.trial_numbers.tolist() == list(range(9))
    assert as_trials(**arrays(rate_hz=[99.5])).rate_hz == 99.5
    # signals [N, V] are betas of voxels, at a single time
    betas = as_trials(np.ones((4, 6)), ["0", "1", "2", "3"], onset_s="in order")
    assert betas.signal.shape == (4, 6, 1)
    assert betas.times_s.tolist() == [0]
    assert betas.counts.tolist() == [1, 1, 1, 1]
    for changes in (
        {"channels": None},
        {"unit": None},
        {"times_s": None},
        {"times_s": np.arange(60)},
        {"times_s": np.arange(60)[::-1] / 100},
        {"rate_hz": 0.0},
        {"onset_s": "soon"},
        {"colour": "red"},
    ):
        with pytest.raises(BrainhiveError):
            as_trials(**arrays(**changes))


@pytest.mark.parametrize("onset_s", [None, "unknown"])
def test_the_order_of_rows_is_unknown_unless_it_is_given(onset_s):
    assert as_trials(**arrays(onset_s=onset_s)).times_in_run is None


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        (["run-01", "Run 2", "3.0"], [1, 2, 3]),
        (["b", "a", "b"], [2, 1, 2]),
        (["1", "run-1", "2"], [1, 3, 2]),
        (["a10", "a9", "2"], [3, 2, 1]),
    ],
)
def test_labels_of_runs_are_numbered(labels, numbers):
    assert epoch_files._number_runs(labels).tolist() == numbers


def test_names_of_pictures_are_texts():
    names = ["a", b"b", None, np.nan, "n/a", "", 3]
    assert read_picture_names(names) == ["a", "b", "", "", "", "", "3"]
    for wrong in ([["a"]], 3):
        with pytest.raises(BrainhiveError):
            read_picture_names(wrong)


def test_numbers_of_labels_are_sorted_and_one_is_that_of_all():
    numbers, labels = own_arrays._number_labels(["b", "a", "b"], "session", 3)
    assert (numbers.tolist(), labels) == ([1, 0, 1], ["a", "b"])
    assert own_arrays._number_labels("x", "run", 2)[0].tolist() == [0, 0]
    assert own_arrays._number_labels(None, "run", 2)[1] == [0]


@pytest.mark.parametrize(
    ("span", "is_refused"),
    [((-20, 50), False), ((-21, 51), False), ((-19, 50), True), ((-20, 49), True)],
)
def test_trials_reach_as_far_as_the_window(span, is_refused):
    cutting = Cutting(Steps(epoch_ms=(-200, 500), keep_ms=(0, 500)), 100)
    if is_refused:
        with pytest.raises(BrainhiveError):
            require_span(cutting, span)
    else:
        require_span(cutting, span)


def test_trials_are_cut_as_those_of_a_recording():
    signal = np.random.default_rng(0).normal(size=(4, 2, 90)).astype(np.float32)
    times_s = np.arange(90) / 100 - 0.3
    steps = Steps(epoch_ms=(-200, 500), keep_ms=(0, 400), rate_hz=100, whiten="no")
    cut_trials_, cutting = cut_trials(signal, times_s, 100.0, steps, ["a", "b"])
    expected = signal[:, :, 30:70] - signal[:, :, 10:31].mean(2, keepdims=True)
    np.testing.assert_allclose(cut_trials_, expected, atol=1e-6)
    np.testing.assert_allclose(cutting.times_s, times_s[30:70], atol=1e-9)


def eeglab(*events, trials=3):
    """Make the EEG structure of epochs of 50 samples with the onset at sample 10."""
    structures = [{"latency": latency, "type": kind} for latency, kind in events]
    names = {"pnts": 50, "xmin": -0.1, "srate": 100, "trials": trials}
    return {**names, "event": structures[0] if len(structures) == 1 else structures}


def test_events_of_eeglab_are_those_at_the_onset():
    content = eeglab(
        (11, "a"), (11, "a"), (11.3, 7.0), (30, "key"), (62, "b"), (61.4, "c")
    )
    names = epoch_files._name_eeglab_trials(content, Path("x.set"))
    assert names == [("a", "7"), ("c",), ()]
    assert epoch_files._name_eeglab_trials(
        eeglab((11, "a"), trials=1), Path("x.set")
    ) == [("a",)]
    with pytest.raises(BrainhiveError):
        epoch_files._name_eeglab_trials(eeglab((14, "a"), (64, "b")), Path("x.set"))


def test_lines_of_a_table_are_chosen_by_codes():
    """The second of five events is ignored, and the third is rejected."""
    stand_in = SimpleNamespace(
        drop_log=((), ("IGNORED",), ("BAD",), (), ()),
        selection=np.array([0, 3, 4]),
        events=np.array([[9, 0, 1], [30, 0, 2], [40, 0, 1]]),
    )
    epochs_cut = type("Cut", (), {**vars(stand_in), "__len__": lambda self: 3})()

    def choose(*pictures):
        rows = [{"picture": name} for name in pictures]
        table = Path("trials.csv")
        return [
            row["picture"]
            for row in epoch_files._choose_rows(rows, epochs_cut, "picture", table)
        ]

    assert choose("a", "b", "a") == ["a", "b", "a"]
    assert choose("a", "x", "y", "b", "a") == ["a", "b", "a"]
    assert choose("a", "y", "b", "a") == ["a", "b", "a"]


def test_epochs_lie_end_to_end():
    mne = pytest.importorskip("mne")
    signal = np.random.default_rng(0).normal(size=(4, 3, 20)) * 1e-5
    info = mne.create_info(["Cz", "Pz", "O1"], 100.0, "eeg")
    events = np.array([[100, 0, 1], [180, 0, 1], [290, 0, 2], [300, 0, 1]])

    def lay(events):
        epochs_array = mne.EpochsArray(
            signal, info, events, tmin=-0.05, verbose="ERROR"
        )
        return join_epochs(epochs_array, Path("x"), {}, "", [("a",)] * 4)

    positions = lay(events)
    joined = np.concatenate(list(signal), 1)
    np.testing.assert_allclose(positions.raw.get_data(), joined)
    assert positions.span == (-5, 14)
    assert positions.onset_s.tolist() == [
        1.0,
        1.8,
        2.9,
        3.0,
    ]
    counted_events = events.copy()
    counted_events[:, 0] = np.arange(4)
    assert lay(counted_events).onset_s is None


def test_tables_of_trials_are_called_as_their_file():
    names = [
        path.name for path in epoch_files.name_trial_tables(Path("d/sub-01-epo.fif.gz"))
    ]
    assert names == [
        "sub-01_trials.csv",
        "sub-01_trials.tsv",
        "sub-01-epo_trials.csv",
        "sub-01-epo_trials.tsv",
    ]


def test_signals_of_no_brain_s_size_are_warned_of(
    capsys,
):
    trials = as_trials(**arrays())
    warn_of_size(trials, "sub-01")
    assert not capsys.readouterr().err
    warn_of_size(replace(trials, unit="V"), "sub-01")
    assert "sub-01" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("unit", "factor", "stored_unit"),
    [
        ("V", 1e6, "µV"),
        ("mV", 1e3, "µV"),
        ("uV", 1.0, "µV"),
        ("T", 1e15, "fT"),
        ("T/m", 1e13, "fT/cm"),
        ("a.u.", 1.0, "a.u."),
    ],
)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_arrays_are_converted_to_the_units_of_files(unit, factor, stored_unit, dtype):
    given_arrays = arrays(unit=unit)
    given_arrays["signal"] = (given_arrays["signal"] / factor).astype(dtype)
    trials = as_trials(**given_arrays)
    assert trials.unit == stored_unit
    np.testing.assert_allclose(trials.signal, arrays()["signal"], rtol=1e-6)
