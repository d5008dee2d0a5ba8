"""Inventory of a data set: complete, missing and bad parts."""

from dataclasses import replace

import numpy as np
import pytest

from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.signals import Sensors, Trials
from brainhive_cli.data.stores import inventory
from brainhive_cli.data.stores.signal_store import SignalStore, build_store_path
from tests.worlds.own_recordings import PICTURES, write_pictures


@pytest.fixture
def pictures(home):
    write_pictures(home / "data/image-folder")
    return home / "data/image-folder"


def inspect(kind="image_folder", subjects=None, **options):
    """Inspect a data set: its name, facts, problems and table."""
    config = parts.resolve("datasets", kind)
    return inventory.inspect_dataset(config, Paths(), subjects, **options)


def make_recording(ids, **changes):
    """Make trials of pictures, two repetitions of each except the first."""
    signal = np.random.default_rng(0).normal(size=(len(ids), 2, 3, 5))
    repetitions = np.full(len(ids), 2)
    repetitions[0] = 1
    fields = {
        "signal": signal.astype(np.float32),
        "image_ids": ids,
        "space": Sensors(("a", "b", "c")),
        "rate_hz": 250.0,
        "times_s": np.arange(5) / 250,
        "unit": "µV",
        "repetitions": repetitions,
    }
    return Trials.from_repetitions(**{**fields, **changes})


def write_store(home, train, test):
    """Write the signal store of subject 1."""
    path = build_store_path(home / "signals", "image-folder", "default", 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    SignalStore.write(path, {"train": train, "test": test})


def get_exit_code(inventory_of_set):
    """Return the largest exit code of the problems, or 0 without problems."""
    return max((error.exit_code for error in inventory_of_set[2]), default=0)


def list_problems(inventory_of_set):
    return [error.in_one_line for error in inventory_of_set[2]]


def get_states(inventory_of_set):
    parts_of_set = inventory_of_set[1]["parts"]
    return {name: values["state"] for name, values in parts_of_set.items()}


def test_pictures_that_were_not_fetched_are_counted_and_named(pictures):
    """Half of the pictures are dangling links of DataLad."""
    files = sorted(pictures.rglob("train/**/*.png"))
    for file in files[::2]:
        file.unlink()
        file.symlink_to("../../.git/annex/objects/0k/MD5E-s1--1d8/MD5E-s1--1d8")
    _, facts, (problem,), _ = inspect()
    assert facts["parts"]["pictures"]["state"] == "missing"
    assert f"{len(files[::2])} of {len(files)} files" in problem.message
    assert str(files[0]) in problem.message
    assert "datalad get" in problem.hint
    dataset = parts.resolve("datasets", "image_folder").build(Paths())
    assert len(dataset.images("train")) == len(files)


def test_a_complete_data_set_is_counted_by_split_and_subject(home, pictures):
    train = make_recording(PICTURES["train"])
    write_store(home, train, make_recording(PICTURES["test"]))
    stored_data = inspect(checks_all=True)
    parts_of_set = stored_data[1]["parts"]
    store = "signals default/sub-01"
    assert get_states(stored_data) == {"pictures": "complete", store: "complete"}
    assert parts_of_set["pictures"]["counts"] == {"train": "6", "test": "2"}
    assert parts_of_set[store]["counts"] == {"train": "6 × 1–2", "test": "2 × 1–2"}
    assert list_problems(stored_data) == []
    assert get_exit_code(stored_data) == 0


def test_missing_parts_with_the_same_advice_are_a_single_problem(home):
    stored_data = inspect("things_eeg", subjects=[1, 2, 3])
    assert set(get_states(stored_data).values()) == {"missing"}
    assert get_exit_code(stored_data) == 3
    (problem,) = list_problems(stored_data)
    assert "3 more" in problem
    assert "brainhive fetch things-eeg" in problem


def test_raw_recordings_are_listed_with_the_line_to_prepare(mini_raw, small_eeg, home):
    mini_raw.make_eeg(home / "data/things-eeg", small_eeg, seed=3)
    stored_data = inspect("things_eeg", subjects=[1, 2])
    parts_of_set = stored_data[1]["parts"]
    assert list(parts_of_set) == ["pictures", "subject 1, raw", "subject 2"]
    raw = parts_of_set["subject 1, raw"]
    assert raw["state"] == "not prepared"
    assert get_exit_code(stored_data) == 3
    assert "things-eeg subject 1" in raw["problem"]
    assert "brainhive prepare --from things-eeg" in raw["problem"]


def test_bad_signals_are_named(home, pictures):
    train = make_recording(PICTURES["train"])
    test = make_recording(PICTURES["test"])
    unknown_picture = make_recording(list(PICTURES["train"][:5]) + ["zebra"])
    gain = np.array([[1], [0], [1]], np.float32)
    flat = replace(train, signal=train.signal * gain)
    signal = np.array(train.signal)
    signal[5] = np.nan
    not_finite = replace(train, signal=signal)
    for fact, recordings in (
        ("2 of 2: test/", (test, train)),
        ("1 of 6: zebra", (unknown_picture, test)),
        ("finite", (not_finite, test)),
        ("1 flat channels or voxels of 3", (flat, test)),
    ):
        write_store(home, *recordings)
        stored_data = inspect()
        assert get_states(stored_data)["signals default/sub-01"] == "bad"
        assert get_exit_code(stored_data) == 1
        problem = list_problems(stored_data)[0]
        assert "sub-01.h5, train" in problem
        assert fact in problem


@pytest.mark.parametrize(
    ("count", "rows"), [(0, []), (1, [0]), (3, [0, 1, 2]), (64, list(range(64)))]
)
def test_few_rows_are_all_sampled(count, rows):
    assert inventory._sample_rows(count) == rows


def test_many_rows_are_sampled_evenly():
    rows = inventory._sample_rows(500)
    assert len(rows) == 64
    assert rows[0] == 0
    assert rows[-1] == 499
    assert set(np.diff(rows).tolist()) == {7, 8}


def test_a_channel_is_flat_if_several_trials_have_equal_values():
    signal = np.random.default_rng(0).normal(size=(3, 2, 3, 5)).astype(np.float32)
    signal[:, 0, 1] = 4
    names = ["a", "b", "c"]
    flat = make_recording(names, signal=signal)
    assert inventory._describe_bad_values(flat).startswith("1 flat")
    single_trial = make_recording(
        names[:1], signal=signal[:1], repetitions=np.array([1])
    )
    assert not inventory._describe_bad_values(single_trial)
    # every trial is constant, with another value
    signal[1, 0, 1] = 5
    steps = make_recording(names, signal=signal)
    assert not inventory._describe_bad_values(steps)
