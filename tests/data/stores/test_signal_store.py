"""Signal store: content, damaged files and interrupted writing."""

import threading
from dataclasses import replace

import h5py
import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError, MissingData
from brainhive_cli.data.files import hdf5
from brainhive_cli.data.signals import MAX_STIMULI_PER_READ, Sensors, Trials, Voxels
from brainhive_cli.data.stores import SignalStore, signal_store
from brainhive_cli.data.targets.model_input import match_stimuli
from tests.tools.mapped_arrays import is_mapped


def make_recording(count, n_repetitions, **fields):
    shape = (count, n_repetitions, 3, 5)
    defaults = {
        "signal": np.random.default_rng(count).normal(size=shape),
        "image_ids": [f"train/c/p{number}" for number in range(count)],
        "space": Sensors(("O1", "Oz", "O2")),
        "times_s": np.arange(5) / 250,
        "rate_hz": 250.0,
        "unit": "µV",
        "provenance": {"source": "test"},
    }
    return Trials.from_repetitions(**{**defaults, **fields})


@pytest.fixture
def path(tmp_path):
    return signal_store.build_store_path(tmp_path, "set", "default", 3)


def test_both_splits_are_read_back_and_mapped(path):
    train = make_recording(MAX_STIMULI_PER_READ + 3, 2)
    test = make_recording(4, 7, repetitions=np.array([7, 1, 3, 7]))
    SignalStore.write(path, {"train": train, "test": test})
    signal_store = SignalStore.open(path)
    for split, written_trials in {"train": train, "test": test}.items():
        assert is_mapped(signal_store[split].signal[:])
        np.testing.assert_array_equal(
            signal_store[split].signal,
            written_trials.signal.astype(np.float32),
        )
        np.testing.assert_allclose(signal_store[split].times_s, written_trials.times_s)
        for name in ("image_ids", "rate_hz", "unit", "provenance"):
            stored_values = np.asarray(getattr(signal_store[split], name))
            assert np.all(stored_values == np.asarray(getattr(written_trials, name)))
        assert list(signal_store[split].space.names) == ["O1", "Oz", "O2"]
    assert signal_store["test"].repetitions.tolist() == [7, 1, 3, 7]
    assert set(signal_store["train"].repetitions.tolist()) == {2}
    assert [path.name for path in path.parent.iterdir()] == ["sub-03.h5"]


def test_a_recording_without_image_ids_is_read_but_not_stored(path):
    signal = np.random.default_rng(0).normal(size=(4, 2, 3, 5))
    unlabelled = make_recording(4, 2, signal=signal, image_ids=())
    first_out = unlabelled.hold_out(unlabelled.repetition == 0, "test")
    np.testing.assert_allclose(first_out.select().averages, signal[:, 0], atol=1e-6)
    with pytest.raises(BrainhiveError, match=rf"{path.stem}: .*train"):
        SignalStore.write(path, {"train": unlabelled})
    assert not path.exists()
    with pytest.raises(BrainhiveError, match=r"^window: "):
        match_stimuli(unlabelled, None, "window")
    damaged = unlabelled.signal.copy()
    damaged[4] = np.nan
    with pytest.raises(BrainhiveError, match="row 4, channel O1"):
        _ = replace(unlabelled, signal=damaged).select().averages


def make_voxel_recording(count, **regions):
    values = np.random.default_rng(count).normal(size=(count, 2, 3, 1))
    signal = values.astype(np.float16)
    space = Voxels({name: np.array(mask, bool) for name, mask in regions.items()})
    return make_recording(
        count, 2, signal=signal, space=space, times_s=np.zeros(1), rate_hz=None
    )


def test_voxels_are_read_back_with_their_regions(path):
    voxel_recording = make_voxel_recording(4, V1=[1, 0, 1], FFA=[0, 0, 0])
    SignalStore.write(
        path,
        {
            "train": voxel_recording,
            "test": make_voxel_recording(2, V1=[1, 0, 1], FFA=[0, 0, 0]),
        },
    )
    train = SignalStore.open(path)["train"]
    assert isinstance(train.space, Voxels)
    assert train.rate_hz is None
    regions = train.space.regions
    assert list(regions) == ["V1", "FFA"]
    assert regions["V1"].tolist() == [True, False, True]
    assert not regions["FFA"].any()
    assert train.signal.dtype == np.float16
    np.testing.assert_array_equal(train.signal, voxel_recording.signal)


def test_a_damaged_or_foreign_file_is_an_error(path):
    SignalStore.write(path, {"train": make_recording(4, 2)})
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(BrainhiveError, match=r"sub-03\.h5"):
        SignalStore.open(path)
    hdf5.create(path, {"embedding": ((2, 2), "float32")}, {}, {"format": 1})
    hdf5.seal(path)
    with pytest.raises(BrainhiveError, match="is not a signal store"):
        SignalStore.open(path)


@pytest.mark.parametrize(
    "provenance",
    [
        {"sessions": 5},
        {"sessions": None},
        {"sessions": ["x"]},
        {"sessions": [{"preparation": 5}]},
        {"preparation": "x"},
    ],
)
def test_a_store_whose_provenance_has_other_types_is_damaged(path, provenance):
    SignalStore.write(path, {"train": make_recording(4, 2, provenance=provenance)})
    with pytest.raises(BrainhiveError, match=r"sub-03\.h5"):
        SignalStore.open(path)


def test_optional_arrays_and_float16_are_read_back(path):
    sessions = np.array([[0, 1, -1], [1, 1, 1], [0, -1, -1]], np.int8)
    whiteners = np.random.default_rng(0).normal(size=(2, 3, 3))
    optional_arrays = {
        "repetitions": np.array([2, 3, 1]),
        "sessions": sessions,
        "whiteners": whiteners,
    }
    space = Sensors(("O1", "Oz", "O2"), np.arange(9.0).reshape(3, 3))
    times_s = np.arange(5) / 30_000 - 0.1
    axes = {"space": space, "times_s": times_s, "rate_hz": 30_000}
    half_random = np.random.default_rng(0).normal(size=(3, 3, 3, 5)).astype(np.float16)
    recording = make_recording(3, 3, signal=half_random, **optional_arrays, **axes)
    SignalStore.write(path, {"train": recording, "test": make_recording(2, 1, **axes)})
    read_store = SignalStore.open(path)
    np.testing.assert_array_equal(read_store["train"].sessions, [0, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(read_store["train"].whiteners, whiteners)
    np.testing.assert_array_equal(read_store["train"].space.positions, space.positions)
    np.testing.assert_array_equal(read_store["train"].times_s, times_s)
    assert read_store["test"].sessions is None
    assert read_store["test"].whiteners is None
    assert read_store["train"].signal.dtype == np.float16
    assert read_store["test"].signal.dtype == np.float32
    assert signal_store.count_bytes(read_store["train"]) == 180
    assert signal_store.count_bytes(read_store["test"]) == 120


def test_a_stimulus_has_an_offset_if_all_sessions_agree(path):
    for second_ms, expected_marks in (
        (100.0, {"stimulus": (0.0, 100.0)}),
        (200.0, {"onset": 0.0}),
    ):
        provenance = {
            "sessions": [{"stimulus_ms": length_ms} for length_ms in (100.0, second_ms)]
        }
        SignalStore.write(path, {"train": make_recording(4, 2, provenance=provenance)})
        assert SignalStore.open(path)["train"].stimulus_marks == expected_marks


UNFIT = [
    ({"image_ids": ["a"] * 5}, r"signals \[4, 2, 3, 5\] come with 5 image ids, not 4"),
    (
        {"space": Voxels({"V1": np.ones(4, bool)})},
        "come with 4 voxels in the mask of region V1, not 3",
    ),
    ({"rate_hz": None}, "signals of 5 samples have no sampling rate"),
    ({"sessions": np.zeros((4, 3), np.int8)}, r"signals \[4, 2, 3, 5\] .*sessions"),
]


def test_an_axis_of_another_length_than_its_list_is_refused():
    for fields, message in UNFIT:
        with pytest.raises(BrainhiveError, match=message):
            make_recording(4, 2, **fields)
    # resampling may change times slightly
    assert make_recording(4, 2, times_s=np.arange(5) / 250.25).rate_hz == 250


def test_a_store_is_written_again_after_an_error(path):
    class FailingArray(np.ndarray):  # type: ignore[type-arg]
        def __getitem__(self, index):
            raise OSError(28, "No space left on device")

    sound = make_recording(4, 2)
    failing = replace(sound, signal=sound.signal.view(FailingArray))
    # the traceback of the error keeps the claim on the store alive
    with pytest.raises(OSError, match="No space left") as caught:
        SignalStore.write(path, {"train": sound, "test": failing})
    with pytest.raises(MissingData, match="not finished"):
        SignalStore.open(path)
    writing = threading.Thread(
        target=SignalStore.write, args=(path, {"train": sound}), daemon=True
    )
    writing.start()
    writing.join(20)
    assert caught.value.errno == 28
    assert not writing.is_alive()
    assert list(SignalStore.open(path).splits) == ["train"]


def test_a_damaged_row_is_named_with_advice(tmp_path):
    path = signal_store.build_store_path(tmp_path, "set", "slow", 3)
    SignalStore.write(path, {"train": make_recording(9, 2)})
    content = bytearray(path.read_bytes())
    row_bytes = SignalStore.open(path)["train"].signal[0].nbytes
    with h5py.File(path) as file:
        content[file["train/signal"].id.get_offset() + 5 * row_bytes] ^= 1
    path.write_bytes(content)
    read_store = SignalStore.open(path)
    with pytest.raises(BrainhiveError, match="row 5 of train/signal") as caught:
        read_store["train"].signal[:]
    assert caught.value.hint == f"delete it, then: {signal_store.REMAKE_HINT}"
    with pytest.raises(BrainhiveError, match="row 5 of train/signal") as caught:
        read_store.verify()
    assert caught.value.hint == f"delete it, then: {signal_store.REMAKE_HINT}"


def test_a_store_of_an_older_format_names_the_line_to_prepare(path, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr(signal_store, "FORMAT", 3)
        SignalStore.write(path, {"train": make_recording(4, 2)})
    with pytest.raises(BrainhiveError, match=r"sub-03\.h5 .*format 4") as caught:
        SignalStore.open(path)
    assert "brainhive prepare --again" in caught.value.hint
