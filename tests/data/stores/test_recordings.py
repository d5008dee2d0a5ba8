"""The signal store: what goes in comes out, mapped; a half-written one does not open."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.data.model_input import match_stimuli
from brainhive_cli.data.spaces import Sensors, Voxels
from brainhive_cli.data.stores import hdf5, recordings
from brainhive_cli.data.stores.recordings import SignalStore
from brainhive_cli.data.trials import COPIED_STIMULI, Trials
from tests.mapped import is_mapped
from tests.resealed import resealed


def recording(count: int, most: int, **fields: Any) -> Trials:
    made = {
        "signal": np.random.default_rng(count).normal(size=(count, most, 3, 5)),
        "image_ids": [f"train/c/p{number}" for number in range(count)],
        "space": Sensors(("O1", "Oz", "O2")),
        "times_s": np.arange(5) / 250,
        "rate_hz": 250.0,
        "unit": "µV",
        "provenance": {"source": "test"},
    }
    return Trials(**{**made, **fields})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return recordings.path_of(tmp_path, "set", "default", 3)


def test_both_splits_come_back_mapped_with_all_that_describes_them(path: Path) -> None:
    train, test = recording(COPIED_STIMULI + 3, 2), recording(4, 7, repetitions=np.array([7, 1, 3, 7]))
    SignalStore.write(path, {"train": train, "test": test})
    found = SignalStore.open(path)
    for split, written in {"train": train, "test": test}.items():
        assert is_mapped(found[split].signal[:])
        np.testing.assert_array_equal(found[split].signal, written.signal.astype(np.float32))
        np.testing.assert_allclose(found[split].times_s, written.times_s)
        for name in ("image_ids", "rate_hz", "unit", "provenance"):
            assert np.all(np.asarray(getattr(found[split], name)) == np.asarray(getattr(written, name)))
        assert list(found[split].space.names) == ["O1", "Oz", "O2"]
    assert found["test"].repetitions.tolist() == [7, 1, 3, 7]
    assert set(found["train"].repetitions.tolist()) == {2}
    assert [path.name for path in path.parent.iterdir()] == ["sub-03.h5"]


@pytest.mark.parametrize(
    ("shown_ms", "marks"),
    [
        ([100.0, 100.0], {"stimulus": (0.0, 100.0)}),
        ([100.0, 200.0], {"onset": 0.0}),
        ([None, None], {"onset": 0.0}),
    ],
)
def test_a_stimulus_is_marked_for_as_long_as_all_sessions_say_that_it_was_shown(path, shown_ms, marks):
    provenance = {"sessions": [{"stimulus_ms": length_ms} for length_ms in shown_ms]}
    SignalStore.write(path, {"train": recording(4, 2, provenance=provenance)})
    assert SignalStore.open(path)["train"].stimulus_marks == marks


@pytest.mark.parametrize("rate_hz", [512, 30_000, 100_000])
def test_times_come_back_exactly_whatever_the_rate(path: Path, rate_hz: int) -> None:
    times_s = np.arange(5) / rate_hz - 0.1
    SignalStore.write(path, {"train": recording(4, 2, times_s=times_s, rate_hz=rate_hz)})
    np.testing.assert_array_equal(SignalStore.open(path)["train"].times_s, times_s)


def test_sessions_and_their_whiteners_come_back(path: Path) -> None:
    sessions = np.array([[0, 1, -1], [1, 1, 1], [0, -1, -1]], np.int8)
    whiteners = np.random.default_rng(0).normal(size=(2, 3, 3))
    counts = np.array([2, 3, 1])
    written = recording(3, 3, repetitions=counts, sessions=sessions, whiteners=whiteners)
    SignalStore.write(path, {"train": written, "test": recording(2, 1)})
    found = SignalStore.open(path)
    np.testing.assert_array_equal(found["train"].sessions, sessions)
    np.testing.assert_array_equal(found["train"].whiteners, whiteners)
    assert found["test"].sessions is None and found["test"].whiteners is None


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
    ({"space": Sensors(("O1", "O2"))}, "come with 2 channels, not 3"),
    ({"space": Sensors(("O1", "Oz", "O2"), np.zeros((2, 3)))}, "come with 2 positions, not 3"),
    ({"space": Voxels({"V1": np.ones(4, bool)})}, "come with 4 voxels in the mask of region V1, not 3"),
    ({"rate_hz": None}, "signals of 5 samples have no sampling rate"),
    ({"times_s": np.arange(6) / 250}, "come with 6 times, not 5"),
    ({"times_s": np.arange(5) / 200}, "times lie 5 ms apart, not 4 ms as at 250 Hz"),
    ({"times_s": np.array([0, 1, 2, 5, 6]) / 250}, "times lie 12 ms apart, not 4 ms as at 250 Hz"),
    ({"times_s": np.full(5, np.nan)}, "times lie nan ms apart, not 4 ms as at 250 Hz"),
    ({"repetitions": np.array([2, 2, 2])}, "come with 3 repetitions, not 4"),
    ({"repetitions": np.array([2, 2, 0, 2])}, "counts of repetitions beyond 1 to 2"),
    ({"repetitions": np.array([2, 2, 3, 2])}, "counts of repetitions beyond 1 to 2"),
    ({"sessions": np.zeros((4, 3), np.int8)}, "sessions that are not one a repetition"),
    ({"sessions": np.array([[0, -1]] * 4, np.int8)}, "sessions that are not one a repetition"),
    ({"whiteners": np.zeros((2, 5, 5))}, r"come with whiteners \[2, 5, 5\]"),
    (
        {"sessions": np.ones((4, 2), np.int8), "whiteners": np.ones((1, 3, 3))},
        "1 whiteners for more",
    ),
    ({"signal": np.zeros((4, 3, 5))}, r"signals \[4, 3, 5\] are not \[N, R, C, T\]"),
]


@pytest.mark.parametrize(("fields", "what"), UNFIT)
def test_an_axis_of_another_length_than_its_list_is_no_recording(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(BrainhiveError, match=what):
        recording(4, 2, **fields)


def test_times_that_differ_as_after_resampling_are_those_of_the_rate() -> None:
    assert recording(4, 2, times_s=np.arange(5) / 250.25).rate_hz == 250


def test_a_recording_of_which_nobody_knows_what_was_seen_is_read_and_not_stored(path: Path) -> None:
    signal = np.random.default_rng(0).normal(size=(4, 2, 3, 5))
    unlabelled = recording(4, 2, signal=signal, image_ids=())
    first = unlabelled.hold_out(np.array([[True, False]] * 4), "test")
    np.testing.assert_allclose(first.select().averages, signal[:, 0], atol=1e-6)
    with pytest.raises(BrainhiveError, match="nothing says which pictures the train signals are of"):
        SignalStore.write(path, {"train": unlabelled})
    assert not path.exists()
    with pytest.raises(BrainhiveError, match=r"^window: nothing says which pictures were shown$"):
        match_stimuli(unlabelled, None, "window")  # no store is looked into
    signal[2] = np.nan
    with pytest.raises(BrainhiveError, match="a signal is not finite, of row 2, channel O1"):
        _ = replace(unlabelled, signal=signal).select().averages


@pytest.mark.parametrize("name", ["times_s", "channels"])
def test_a_store_whose_lists_do_not_fit_its_signals_does_not_open(path: Path, name: str) -> None:
    SignalStore.write(path, {"train": recording(4, 2)})
    with resealed(path) as file:
        longer = [*hdf5.get_attributes(file)[name]] * 2
        hdf5.set_attributes(file, {name: longer})
    with pytest.raises(BrainhiveError, match=rf"sub-03\.h5: signals .* come with {len(longer)}") as caught:
        SignalStore.open(path)
    assert caught.value.hint == "delete it and run again"


def voxels(count: int, **regions: list[int]) -> Trials:
    signal = np.random.default_rng(count).normal(size=(count, 2, 3, 1)).astype(np.float16)
    space = Voxels({name: np.array(mask, bool) for name, mask in regions.items()})
    return recording(count, 2, signal=signal, space=space, times_s=np.zeros(1), rate_hz=None)


def test_voxels_come_back_with_their_regions_and_without_a_rate(path: Path) -> None:
    written = voxels(4, V1=[1, 0, 1], FFA=[0, 0, 0])
    SignalStore.write(path, {"train": written, "test": voxels(2, V1=[1, 0, 1], FFA=[0, 0, 0])})
    found = SignalStore.open(path)["train"]
    assert isinstance(found.space, Voxels) and found.rate_hz is None
    assert {name: mask.tolist() for name, mask in found.space.regions.items()} == {
        "V1": [True, False, True],
        "FFA": [False, False, False],
    }
    assert found.signal.dtype == np.float16
    np.testing.assert_array_equal(found.signal, written.signal)


def test_voxels_without_regions_come_back(path: Path) -> None:
    SignalStore.write(path, {"train": voxels(4)})
    assert SignalStore.open(path)["train"].space == Voxels({})


def test_voxels_keep_their_noise_ceiling(path: Path) -> None:
    written = replace(voxels(4), space=Voxels({}, {"ncsnr": np.array([0.5, 0, 2])}))
    SignalStore.write(path, {"train": written})
    np.testing.assert_array_equal(SignalStore.open(path)["train"].space.maps["ncsnr"], [0.5, 0, 2])
    with pytest.raises(BrainhiveError, match="come with 2 values of the map ncsnr, not 3"):
        replace(written, space=Voxels({}, {"ncsnr": np.ones(2)}))


def test_a_store_whose_region_masks_do_not_match_its_voxels_does_not_open(path: Path) -> None:
    SignalStore.write(path, {"train": voxels(4, V1=[1, 0, 1])})
    with resealed(path) as file:
        del file["region_masks"]
        file["region_masks"] = np.ones((1, 5), bool)
    with pytest.raises(BrainhiveError, match=r"sub-03\.h5: .* 5 voxels in the mask of region V1, not 3"):
        SignalStore.open(path)


def test_positions_of_sensors_come_back(path: Path) -> None:
    places = np.arange(9.0).reshape(3, 3)
    SignalStore.write(path, {"train": recording(4, 2, space=Sensors(("O1", "Oz", "O2"), places))})
    found = SignalStore.open(path)["train"].space
    assert isinstance(found, Sensors)
    np.testing.assert_array_equal(found.positions, places)


def test_a_store_of_another_format_is_refused(path: Path) -> None:
    SignalStore.write(path, {"train": recording(4, 2)})
    with resealed(path) as file:
        file.attrs["format"] = 1
    with pytest.raises(BrainhiveError, match=r"sub-03\.h5 is not a signal store of format 3") as caught:
        SignalStore.open(path)
    assert caught.value.hint == "delete it and run again"


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (voxels(2, V1=[1, 1, 1]), "voxels in the mask of region V1"),
        (voxels(2, V2=[1, 0, 1]), "space"),
        (recording(2, 2, signal=np.zeros((2, 2, 3, 1)), times_s=np.zeros(1)), "space"),
    ],
)
def test_splits_of_other_voxels_are_not_written(path: Path, other: Trials, difference: str) -> None:
    with pytest.raises(BrainhiveError, match=f"the test signals have other {difference} than the first"):
        SignalStore.write(path, {"train": voxels(4, V1=[1, 0, 1]), "test": other})


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
    with pytest.raises(BrainhiveError, match=r"sub-03\.h5 is damaged or cut short"):
        SignalStore.open(path)
    hdf5.create(path, {"embedding": ((2, 2), "float32")}, {}, {"format": 1})
    hdf5.seal(path)
    with pytest.raises(BrainhiveError, match="is not a signal store"):
        SignalStore.open(path)


@pytest.mark.parametrize(
    "provenance", [{"preparation": "damaged"}, {"sessions": 3}, {"sessions": [{"session": "x"}]}]
)
def test_provenance_of_odd_types_is_refused_where_a_store_is_opened(path: Path, provenance: Any) -> None:
    written = recording(4, 2)
    object.__setattr__(written, "provenance", provenance)  # a recording itself would refuse it
    SignalStore.write(path, {"train": written})
    with pytest.raises(BrainhiveError, match=rf"provenance of a recording: {next(iter(provenance))}"):
        SignalStore.open(path)


PREPARED = {"kind": "things-eeg", "sessions": [1, 2], "rate_hz": 100.0, "seed": 20200220}


@pytest.mark.parametrize(
    ("name", "provenance", "line"),
    [
        ("default", {}, recordings.AGAIN),
        ("default", {"preparation": {"kind": "nsd"}}, "brainhive prepare --from nsd --subjects 3"),
        (
            "slow",
            {"preparation": PREPARED, "dtype": "float16"},
            "brainhive prepare --from things-eeg --subjects 3 --name slow preparation.rate_hz=100.0 "
            "'preparation.sessions=[1, 2]' dtype=float16",
        ),
        ("default", {"preparation": {"kind": "my.module"}}, recordings.AGAIN),
    ],
    ids=["of a data set's files", "defaults", "with knobs", "by foreign code"],
)
def test_a_damaged_row_is_named_with_the_line_that_prepares_it_again(
    tmp_path: Path, name: str, provenance: dict[str, Any], line: str
) -> None:
    path = recordings.path_of(tmp_path, "set", name, 3)
    SignalStore.write(path, {"train": recording(9, 2, provenance=provenance)})
    content = bytearray(path.read_bytes())
    row_bytes = SignalStore.open(path)["train"].signal[0].nbytes
    with h5py.File(path) as file:
        content[file["train/signal"].id.get_offset() + 5 * row_bytes] ^= 1
    path.write_bytes(content)
    found = SignalStore.open(path)
    with pytest.raises(BrainhiveError, match="row 5 of train/signal does not match its checksum") as caught:
        found["train"].signal[:]
    assert caught.value.hint == f"delete it, then: {line}"
    with pytest.raises(BrainhiveError, match="1 of 9 rows of train/signal") as caught:
        found.verify()
    assert caught.value.hint == f"delete it, then: {line}"


def test_a_store_that_could_not_be_written_is_written_by_the_same_process(tmp_path):
    class Failing(np.ndarray):
        def __getitem__(self, index):
            raise OSError(5, "Input/output error")

    failing = recording(4, 2)
    failing = replace(failing, signal=np.array(failing.signal).view(Failing))
    path = tmp_path / "sub-01.h5"
    with pytest.raises(OSError) as kept:  # its traceback holds what has claimed the store
        SignalStore.write(path, {"train": failing})
    writing = threading.Thread(target=SignalStore.write, args=(path, {"train": recording(4, 2)}), daemon=True)
    writing.start()
    writing.join(20)
    assert kept.value.errno == 5 and not writing.is_alive() and path.is_file()
