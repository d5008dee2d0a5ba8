"""Selected signals in memory and mapped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.responses import in_memory, mapped
from brainhive_cli.data.signals.normalisations import whiten
from brainhive_cli.data.signals.selection import Selection
from brainhive_cli.data.stores import hdf5
from brainhive_cli.data.stores.recordings import COPIED_STIMULI, Recording, Sensors, SignalStore
from tests.resealed import resealed

CHANNELS = ("P7", "Oz", "Cz")


def recorded(path: Path, seed: int = 0) -> Selection:
    """A selection of a subject's store, with ragged repetitions."""
    count, random = COPIED_STIMULI + 7, np.random.default_rng(seed)
    signal = random.normal(size=(count, 3, 3, 8)).astype(np.float32)
    repetitions = np.resize([3, 1, 2], count)
    ids = [f"c/p{number}" for number in range(count)]
    made = Recording(signal, ids, Sensors(CHANNELS), np.arange(8) / 100, 100.0, "µV", repetitions=repetitions)
    SignalStore.write(path, {"train": made})
    return Selection.of(SignalStore.open(path)["train"], ["Oz", "P7"], (10, 60), 2.0, "here")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sub-01.h5"


def test_mapped_signals_are_those_in_memory(path):
    whole = recorded(path)
    normaliser = whiten.TINY.build(whiten.TINY.measure(chunk for _, chunk in whole.averages()))
    for chosen in (
        whole,
        replace(whole, pictures=np.arange(0, 200, 3)),
        replace(whole, normaliser=normaliser),
    ):
        averages, trials = (mapped(chosen, kind, path, "train") for kind in ("averages", "trials"))
        assert isinstance(averages.values, np.memmap)
        assert averages.shape == (len(chosen.pictures), 2, 5)
        np.testing.assert_array_equal(averages, in_memory(chosen, "averages"))
        np.testing.assert_array_equal(trials, in_memory(chosen, "trials"))
    assert len(list((path.parent / "prepared").glob("sub-01_train_*.h5"))) == 6  # each selection by itself


def test_averages_are_those_of_the_trials_that_are_there(path):
    selection = recorded(path)
    trials, averages = in_memory(selection, "trials"), in_memory(selection, "averages")
    for row, count in enumerate(selection.repetitions):
        np.testing.assert_allclose(averages[row], trials[row, :count].mean(0), atol=1e-6)


def test_the_file_is_written_once_and_again_when_the_store_has_changed(path):
    before = mapped(recorded(path), "averages", path, "train")
    file = Path(before.values.filename)
    written = file.stat().st_mtime_ns
    assert np.array_equal(mapped(Selection.of(*again(path)), "averages", path, "train"), before)
    assert file.stat().st_mtime_ns == written

    path.unlink()
    changed = recorded(path, seed=1)
    np.testing.assert_array_equal(mapped(changed, "averages", path, "train"), in_memory(changed, "averages"))
    assert not np.array_equal(in_memory(changed, "averages"), before)


def again(path: Path) -> tuple:
    return SignalStore.open(path)["train"], ["Oz", "P7"], (10, 60), 2.0, "here"


def test_a_value_that_is_not_finite_leaves_no_file(path):
    selection = recorded(path)
    signal = np.array(selection.recording.signal)
    signal[3, 0, 1, 2] = np.nan
    spoilt = replace(selection, recording=replace(selection.recording, signal=signal))
    with pytest.raises(BrainhiveError, match="here: a signal is not finite, of picture c/p3, channel Oz"):
        mapped(spoilt, "averages", path, "train")
    assert not list((path.parent / "prepared").glob("*.h5"))


@pytest.mark.parametrize("damage", ["cut short", "another shape", "no longer sealed"])
def test_a_damaged_file_is_written_again(path, damage):
    selection = recorded(path)
    before = mapped(selection, "averages", path, "train")
    sound, file = np.array(before), Path(before.values.filename)
    content = file.read_bytes()
    if damage == "another shape":
        with resealed(file) as opened:
            del opened["signal"]
            opened["signal"] = np.zeros((3, 2, 5), np.float32)
    elif damage == "no longer sealed":
        hdf5.unseal(file)
    else:
        file.write_bytes(content[:-500])

    assert np.array_equal(mapped(selection, "averages", path, "train"), sound)


def test_a_damaged_row_of_the_file_is_refused_when_it_is_read(path):
    whole = mapped(recorded(path), "averages", path, "train")
    file, place = Path(whole.values.filename), whole.values.offset + 70 * whole.values[0].nbytes
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)

    found = mapped(Selection.of(*again(path)), "averages", path, "train")

    assert np.array_equal(found[:70], in_memory(recorded(path), "averages")[:70])
    with pytest.raises(BrainhiveError, match=rf"{file} is damaged: row 70 of signal does not") as caught:
        np.asarray(found)
    assert caught.value.hint == "delete it, then: run the same command again"
