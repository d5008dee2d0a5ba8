"""The signal store: what goes in comes out, mapped; a half-written one does not open."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.stores import hdf5, recordings
from brainhive_cli.stores.recordings import CHUNK, Recording, SignalStore


def recording(count: int, most: int, **fields: Any) -> Recording:
    made = {
        "signal": np.random.default_rng(count).normal(size=(count, most, 3, 5)),
        "image_ids": [f"train/c/p{number}" for number in range(count)],
        "channels": ("O1", "Oz", "O2"),
        "times_s": np.arange(5) / 250,
        "rate_hz": 250.0,
        "unit": "µV",
        "provenance": {"source": "test"},
    }
    return Recording(**{**made, **fields})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return recordings.path_of(tmp_path, "set", "default", 3)


def test_both_splits_come_back_mapped_with_all_that_describes_them(path: Path) -> None:
    train, test = recording(CHUNK + 3, 2), recording(4, 7, repetitions=np.array([7, 1, 3, 7]))
    SignalStore.write(path, {"train": train, "test": test})
    found = SignalStore.open(path)
    for split, written in {"train": train, "test": test}.items():
        assert isinstance(found[split].signal, np.memmap)
        np.testing.assert_array_equal(found[split].signal, written.signal.astype(np.float32))
        np.testing.assert_allclose(found[split].times_s, written.times_s)
        for name in ("image_ids", "channels", "rate_hz", "unit", "provenance"):
            assert np.all(np.asarray(getattr(found[split], name)) == np.asarray(getattr(written, name)))
    assert found["test"].repetitions.tolist() == [7, 1, 3, 7]
    assert set(found["train"].repetitions.tolist()) == {2}
    assert [path.name for path in path.parent.iterdir()] == ["sub-03.h5"]


def test_float16_stays_and_takes_half_the_bytes(path: Path) -> None:
    signal = np.random.default_rng(0).normal(size=(4, 2, 3, 5))
    half = recording(4, 2, signal=signal.astype(np.float16))
    SignalStore.write(path, {"train": half, "test": recording(4, 2, signal=signal)})
    found = SignalStore.open(path)
    assert found["train"].signal.dtype == np.float16 and found["test"].signal.dtype == np.float32
    np.testing.assert_array_equal(found["train"].signal, half.signal)
    assert [recordings.size_of(found[split]) for split in ("train", "test")] == [240, 480]
    assert recordings.size_of(recording(4, 2)) == 480  # float64 becomes float32


UNFIT = [
    ({"image_ids": ["a"] * 5}, r"signals \[4, 2, 3, 5\] come with 5 image ids, not 4"),
    ({"channels": ("O1", "O2")}, "come with 2 channels, not 3"),
    ({"times_s": np.arange(6) / 250}, "come with 6 times, not 5"),
    ({"times_s": np.arange(5) / 200}, "times lie 5 ms apart, not 4 ms as at 250 Hz"),
    ({"times_s": np.array([0, 1, 2, 5, 6]) / 250}, "times lie 12 ms apart, not 4 ms as at 250 Hz"),
    ({"times_s": np.full(5, np.nan)}, "times lie nan ms apart, not 4 ms as at 250 Hz"),
    ({"repetitions": np.array([2, 2, 2])}, "come with 3 repetitions, not 4"),
    ({"repetitions": np.array([2, 2, 0, 2])}, "counts of repetitions beyond 1 to 2"),
    ({"repetitions": np.array([2, 2, 3, 2])}, "counts of repetitions beyond 1 to 2"),
    ({"signal": np.zeros((4, 3, 5))}, r"signals \[4, 3, 5\] are not \[N, R, C, T\]"),
]


@pytest.mark.parametrize(("fields", "what"), UNFIT)
def test_an_axis_of_another_length_than_its_list_is_no_recording(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(BrainhiveError, match=what):
        recording(4, 2, **fields)


def test_times_that_differ_as_after_resampling_are_those_of_the_rate() -> None:
    assert recording(4, 2, times_s=np.arange(5) / 250.25).rate_hz == 250


@pytest.mark.parametrize("name", ["times_s", "channels"])
def test_a_store_whose_lists_do_not_fit_its_signals_does_not_open(path: Path, name: str) -> None:
    SignalStore.write(path, {"train": recording(4, 2)})
    with h5py.File(path, "r+") as file:
        longer = [*hdf5.get_attributes(file)[name]] * 2
        hdf5.set_attributes(file, {name: longer})
    with pytest.raises(BrainhiveError, match=rf"sub-03\.h5: signals .* come with {len(longer)}") as caught:
        SignalStore.open(path)
    assert caught.value.hint == "delete it and run again"


def test_splits_that_do_not_share_their_lists_are_not_written(path: Path) -> None:
    other = recording(4, 2, times_s=np.arange(5) / 250 + 0.2)
    with pytest.raises(BrainhiveError, match="sub-03: the test signals have other times than the first"):
        SignalStore.write(path, {"train": recording(4, 2), "test": other})
    assert not list(path.parent.glob("*"))


def test_a_store_whose_writing_broke_does_not_open_and_is_written_anew(path: Path) -> None:
    class Broken(np.ndarray):  # type: ignore[type-arg]
        def __getitem__(self, at: Any) -> Any:
            raise OSError(28, "No space left on device")

    broken = recording(4, 2)
    with pytest.raises(OSError, match="No space left"):
        SignalStore.write(path, {"train": broken, "test": recording(4, 2, signal=broken.signal.view(Broken))})
    with pytest.raises(MissingData, match="is not finished"):
        SignalStore.open(path)
    SignalStore.write(path, {"train": broken})
    assert list(SignalStore.open(path).splits) == ["train"]


def test_a_split_that_is_not_there_is_missing_data(path: Path) -> None:
    SignalStore.write(path, {"train": recording(4, 2)})
    with pytest.raises(MissingData, match="has no test signals") as caught:
        SignalStore.open(path)["test"]
    assert caught.value.hint == "it has: train"


def test_a_damaged_or_foreign_file_is_one_clear_error(path: Path) -> None:
    SignalStore.write(path, {"train": recording(4, 2)})
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(BrainhiveError, match=r"sub-03\.h5 is corrupt or cut short"):
        SignalStore.open(path)
    hdf5.create(path, {"embedding": ((2, 2), "float32")}, {}, {"format": 1})
    with pytest.raises(BrainhiveError, match="is not a signal store"):
        SignalStore.open(path)
