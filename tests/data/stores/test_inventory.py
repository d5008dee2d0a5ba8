"""What there is of a data set: complete, missing or bad, and the first bad thing by
name.
"""

import numpy as np
import pytest

from brainhive_cli.core import parts
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.signals.spaces import Sensors
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores import inventory
from brainhive_cli.data.stores.signal_store import SignalStore, build_store_path
from tests.worlds.own_recordings import PICTURES, write_pictures


@pytest.fixture
def pictures(home):
    write_pictures(home / "data/image-folder")
    return home / "data/image-folder"


def take(kind="image_folder", **how):
    return inventory.inspect_dataset(
        parts.resolve("datasets", kind), Paths(), how.pop("subjects", None), **how
    )


def recording(ids, **changes):
    signal = (
        np.random.default_rng(0).normal(size=(len(ids), 2, 3, 5)).astype(np.float32)
    )
    counts = np.array([1, *[2] * (len(ids) - 1)])
    return Trials(
        **{
            **{
                "signal": signal,
                "image_ids": ids,
                "space": Sensors(("a", "b", "c")),
                "rate_hz": 250.0,
            },
            **{
                "times_s": np.arange(5) / 250,
                "unit": "µV",
                "repetitions": counts,
                **changes,
            },
        }
    )


def keep(home, train, test):
    path = build_store_path(home / "signals", "image-folder", "default", 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    SignalStore.write(path, {"train": train, "test": test})


def exit_code(found):
    """Tell the code with which `check` ends: of what is missing, else of what is bad,
    else 0.
    """
    return max((error.exit_code for error in found[2]), default=0)


def problems(found):
    return [error.in_one_line for error in found[2]]


def states(found):
    return {part["name"]: part["state"] for part in listed(found)}


def listed(found):
    return [{"name": name, **part} for name, part in found[1]["parts"].items()]


def test_pictures_that_were_not_fetched_are_counted_and_named(pictures):
    """Half of them are links of DataLad to nowhere, which were no pictures before."""
    files = sorted(pictures.rglob("train/**/*.png"))
    for file in files[::2]:
        file.unlink()
        file.symlink_to("../../.git/annex/objects/0k/MD5E-s1--1d8/MD5E-s1--1d8")
    _, facts, (problem,), _ = take()
    assert facts["parts"]["pictures"]["state"] == "missing"
    assert f"{len(files[::2])} of {len(files)} files" in problem.message
    assert str(files[0]) in problem.message and "datalad get" in problem.hint
    dataset = parts.resolve("datasets", "image_folder").build(Paths())
    assert len(dataset.images("train")) == len(files)


def test_a_data_set_that_is_there_is_counted_by_split_and_subject(home, pictures):
    keep(home, recording(PICTURES["train"]), recording(PICTURES["test"]))
    found = take(checks_all=True)
    assert states(found) == {
        "pictures": "complete",
        "signals default/sub-01": "complete",
    }
    assert listed(found)[0]["counts"] == {"train": "6", "test": "2"}
    assert listed(found)[1]["counts"] == {"train": "6 × 1–2", "test": "2 × 1–2"}
    assert problems(found) == [] and exit_code(found) == 0


def change(signal, **to):
    signal = signal.copy()
    for row, value in to.items():
        signal[int(row.removeprefix("row"))] = value
    return signal


BASE = recording(PICTURES["train"]).signal


def test_what_is_absent_is_missing_once_for_each_way_to_get_it(home):
    found = take("things_eeg", subjects=[1, 2, 3])
    assert set(states(found).values()) == {"missing"} and exit_code(found) == 3
    assert len(problems(found)) == 1 and "and 3 more" in problems(found)[0]
    assert "brainhive fetch things-eeg" in problems(found)[0]


def test_raw_recordings_are_named_with_the_line_that_prepares_them(
    mini_raw, small_eeg, home
):
    mini_raw.make_eeg(home / "data/things-eeg", small_eeg, seed=3)
    found = take("things_eeg", subjects=[1, 2])
    assert [part["name"] for part in listed(found)] == [
        "pictures",
        "subject 1, raw",
        "subject 2",
    ]
    assert listed(found)[1]["state"] == "not prepared" and exit_code(found) == 3
    assert listed(found)[1]["problem"] == (
        "things-eeg subject 1: raw recordings that are not prepared (brainhive prepare "
        "--from things-eeg)"
    )


def test_bad_signals_are_named(home, pictures):
    train, test = (recording(PICTURES[split]) for split in ("train", "test"))
    zebra = recording([*PICTURES["train"][:5], "zebra"])
    flat = recording(
        PICTURES["train"], signal=BASE * np.array([[1], [0], [1]], np.float32)
    )
    infinite = recording(PICTURES["train"], signal=change(BASE, row5=np.nan))
    for message, kept in (
        ("pictures that the data set does not have: 2 of 2: test/", (test, train)),
        ("pictures that the data set does not have: 1 of 6: zebra", (zebra, test)),
        ("values that are not finite", (infinite, test)),
        ("1 flat channels or voxels of 3", (flat, test)),
    ):
        keep(home, *kept)
        found = take()
        assert (
            states(found)["signals default/sub-01"] == "bad" and exit_code(found) == 1
        )
        assert (
            "sub-01.h5, train" in problems(found)[0] and message in problems(found)[0]
        )


@pytest.mark.parametrize(
    ("count", "rows"), [(0, []), (1, [0]), (3, [0, 1, 2]), (64, [*range(64)])]
)
def test_few_rows_are_all_looked_at(count, rows):
    assert inventory._sample_rows(count) == rows


def test_many_rows_are_looked_at_evenly():
    rows = inventory._sample_rows(500)
    assert len(rows) == 64 and rows[0] == 0 and rows[-1] == 499
    assert {*np.diff(rows).tolist()} == {7, 8}


def test_a_channel_is_flat_only_where_several_trials_have_one_value():
    signal = np.random.default_rng(0).normal(size=(3, 2, 3, 5)).astype(np.float32)
    signal[:, 0, 1] = 4
    names = ["a", "b", "c"]
    assert inventory._describe_bad_values(recording(names, signal=signal)).startswith(
        "1 flat"
    )
    one = recording(names[:1], signal=signal[:1], repetitions=np.array([1]))
    assert not inventory._describe_bad_values(one)
    # each trial by itself is constant
    signal[1, 0, 1] = 5
    assert not inventory._describe_bad_values(recording(names, signal=signal))
