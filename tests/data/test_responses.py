"""Selected signals in memory and mapped, and averages of some of their trials."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.data.responses import Responses, in_memory, mapped
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


COUNTS = np.array([3, 1, 2, 3, 2])
IS_CHOSEN = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 1, 0]], np.bool_)
CHOSEN = {0: [1, 2], 2: [0], 3: [0, 2], 4: [1]}
"""The trials of each stimulus, of which one has none."""


def shown() -> Responses:
    """Five stimuli with up to three trials; those that are not there are NaN, as an error would show."""
    random, is_there = np.random.default_rng(0), np.arange(3) < COUNTS[:, None]
    single = random.normal(size=(5, 3, 2, 4)).astype(np.float32)
    single[~is_there] = np.nan
    onset_s = np.where(is_there, random.permutation(15).reshape(5, 3), np.nan)
    numbers = np.where(is_there, random.integers(0, 9, (5, 3)), -1)
    averages = np.stack([trials[:count].mean(0) for trials, count in zip(single, COUNTS, strict=True)])
    known = {"sessions": numbers.astype(np.int8), "runs": numbers.astype(np.int16), "onset_s": onset_s}
    return Responses(3, averages, np.arange(10, 15), ("P7", "Oz"), 100.0, single, COUNTS, **known)


def test_chosen_trials_are_averaged_anew_and_stimuli_without_one_are_left_out():
    responses = shown()

    chosen = responses.of_trials(IS_CHOSEN)

    assert chosen.stimulus.tolist() == [10, 12, 13, 14] and chosen.counts.tolist() == [2, 1, 2, 1]
    by_hand = [responses.single[row, trials].mean(0) for row, trials in CHOSEN.items()]
    np.testing.assert_allclose(chosen.signal, by_hand, atol=1e-6)
    assert chosen.signal.dtype == chosen.single.dtype == np.float32


def test_what_is_known_of_chosen_trials_stays_in_order_and_the_rest_is_padded():
    responses = shown()

    chosen = responses.of_trials(IS_CHOSEN)

    for name, padding in (("sessions", -1), ("runs", -1), ("onset_s", np.nan), ("single", 0)):
        before, after = getattr(responses, name), getattr(chosen, name)
        assert after.shape[:2] == (4, 2) and after.dtype == before.dtype
        for row, (source, trials) in enumerate(CHOSEN.items()):
            np.testing.assert_array_equal(after[row, : len(trials)], before[source, trials])
            np.testing.assert_array_equal(
                after[row, len(trials) :], np.full_like(after[row, len(trials) :], padding)
            )


def test_chosen_trials_are_chosen_from_again():
    first = shown().of_trials(IS_CHOSEN)
    second = first.of_trials(np.array([[0, 1], [0, 0], [1, 0], [0, 0]], np.bool_))
    np.testing.assert_array_equal(second.signal, shown().single[[0, 3], [2, 0]])
    np.testing.assert_array_equal(second.onset_s[:, 0], shown().onset_s[[0, 3], [2, 0]])


def test_all_trials_of_some_stimuli_keep_their_averages_without_single_trials():
    responses = replace(shown(), single=None, counts=None)
    is_chosen = (np.arange(3) < COUNTS[:, None]) & np.array([1, 0, 0, 1, 1], np.bool_)[:, None]

    chosen = responses.of_trials(is_chosen)

    assert chosen.single is None and chosen.stimulus.tolist() == [10, 13, 14]
    np.testing.assert_array_equal(chosen.signal, responses.signal[[0, 3, 4]])
    np.testing.assert_array_equal(chosen.onset_s, responses.onset_s[[0, 3, 4]])
    np.testing.assert_allclose(shown().of_trials(is_chosen).signal, chosen.signal, atol=1e-6)


def test_no_chosen_trial_leaves_no_stimulus():
    nothing = shown().of_trials(np.zeros_like(IS_CHOSEN))
    assert nothing.signal.shape == (0, 2, 4) and nothing.stimulus.shape == (0,)
