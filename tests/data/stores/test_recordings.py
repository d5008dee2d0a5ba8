"""Recordings of a data set: signal stores that are made, opened and listed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from brainhive_cli.core.base.errors import MissingData
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.data.datasets import PublishedFacts
from brainhive_cli.data.signals import Sensors, Signal, Trials
from brainhive_cli.data.stores import Recordings, SignalStore

MAIN_PROCESS = Launch(0, 1, torch.device("cpu"))


class CountedDataset:
    """Data set that lists the recordings that were opened."""

    name = recorded_as = pictured_as = "counted"
    splits, channels, is_simulated = ("train", "test"), None, False
    subjects: tuple[int, ...] = (1, 2, 3)
    available: tuple[int, ...] = subjects
    published_sizes: PublishedFacts | None = PublishedFacts({}, subject_bytes=10)

    def __init__(self):
        self.opened = []

    def find_recording(self, subject):
        """Raise an error unless the recording of a subject is available."""
        if subject not in self.available:
            raise MissingData(f"no recording of {subject}", "download it")

    def recording(self, subject, split):
        """Make the signal of a stimulus."""
        self.opened.append((subject, split))
        signal = torch.full((1, 1, 2, 1), float(subject)).numpy()
        return Trials.from_repetitions(
            signal, ["a"], Sensors(("O1", "O2")), torch.zeros(1).numpy(), None, "uV"
        )


def make_recordings(dataset, **signal):
    return Recordings(dataset, Paths(), Signal(**signal))  # type: ignore[arg-type]


@pytest.fixture
def dataset(home):
    return CountedDataset()


def test_opening_missing_signals_writes_nothing(dataset, home):
    with pytest.raises(MissingData, match=r"no signals .*sub-01\.h5"):
        make_recordings(dataset).open_store(1)
    assert not list(home.rglob("*.h5"))
    assert not dataset.opened


def test_stores_are_made_once_by_the_main_process(dataset):
    def prepare(launch):
        make_recordings(dataset).prepare([1, 2], launch)

    worker = replace(MAIN_PROCESS, rank=1)
    prepare(worker)
    assert not dataset.opened
    prepare(MAIN_PROCESS)
    prepare(MAIN_PROCESS)
    assert dataset.opened == [(1, "train"), (1, "test"), (2, "train"), (2, "test")]
    test = make_recordings(dataset).open_store(2)["test"]
    assert (test.signal[:] == 2).all()


def test_nothing_is_written_while_a_recording_is_missing(dataset, home):
    dataset.available = (2,)
    source = make_recordings(dataset)

    with pytest.raises(MissingData) as caught:
        source.prepare([2, 1, 3], MAIN_PROCESS)

    assert not list(home.rglob("*.h5"))
    assert not dataset.opened
    # subject 1 and another subject are missing, and subject 2 is there
    assert caught.value.message == "no recording of 1 (also missing for 1 more subject)"
    assert caught.value.hint.endswith("--subjects 2")
    inputs = source.list_inputs([2, 1, 3])
    error = inputs[1].error
    assert [item.error for item in inputs] == [None, error, error]
    assert [item.size for item in inputs] == [None, 10, 10]
    assert str(error) == caught.value.message


def test_a_store_is_listed_with_its_identity(dataset):
    source = make_recordings(dataset)
    source.prepare([1], MAIN_PROCESS)
    dataset.available = ()

    stored, absent = source.list_inputs([1, 2])

    assert stored.digest == source.open_store(1).identity
    assert not stored.is_missing
    assert absent.is_missing
    assert not absent.digest
    assert absent.name == source.name_store(2)
    assert absent.error is not None
    assert absent.error.hint.endswith("--subjects 1")


def test_other_preparations_are_not_made_from_own_files(
    dataset,
):
    (store,) = make_recordings(dataset, name="mine").list_inputs([1])
    assert store.error is not None
    assert "mine/sub-01.h5" in store.error.message
    assert "signal.name=default" in store.error.hint


def test_subjects_are_named_recorded_or_published(dataset, home):
    source = make_recordings(dataset)
    assert source.list_subjects(None) == [1, 2, 3]
    assert source.list_subjects([3, 1]) == [3, 1]
    with pytest.raises(MissingData, match=r"counted .*subject 4") as caught:
        source.list_subjects([3, 4])
    assert "1, 2, 3" in caught.value.hint

    # without a list, subjects with stores, or else published subjects
    dataset.subjects = ()
    for published in (None, PublishedFacts({})):
        dataset.published_sizes = published
        with pytest.raises(MissingData, match=r"counted .*signals default"):
            source.list_subjects(None)
    dataset.published_sizes = PublishedFacts({}, voxels={7: 10, 8: 10})
    assert source.list_subjects(None) == [7, 8]
    assert source.list_subjects([8]) == [8]
    store = {split: dataset.recording(1, split) for split in dataset.splits}
    SignalStore.write(source.build_path(1), store)
    assert source.list_subjects(None) == [1]
    assert source.list_subjects([8, 1]) == [8, 1]
    with pytest.raises(MissingData, match="8, 9 in signals default"):
        source.list_subjects([1, 8, 9])


def test_published_people_who_were_not_recorded_are_missing(dataset, home):
    dataset.subjects = ()
    dataset.published_sizes = PublishedFacts({}, voxels={7: 10, 8: 10})
    source = make_recordings(dataset)
    store = {split: dataset.recording(7, split) for split in dataset.splits}
    SignalStore.write(source.build_path(7), store)
    dataset.opened.clear()

    stored, absent = source.list_inputs([7, 8])
    with pytest.raises(MissingData) as caught:
        source.prepare([7, 8], MAIN_PROCESS)

    assert stored.digest
    assert absent.is_missing
    assert absent.error is not None
    assert caught.value.in_one_line == absent.error.in_one_line
    assert "subject 8 in signals default" in absent.error.message
    assert "7" in absent.error.hint
    assert not dataset.opened


def test_a_written_store_leaves_no_file_open(dataset, home):
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("no list of open files")
    recordings = {split: dataset.recording(1, split) for split in dataset.splits}
    n_open_files = len(list(folder.iterdir()))

    SignalStore.write(home / "sub-01.h5", recordings)

    assert len(list(folder.iterdir())) == n_open_files
