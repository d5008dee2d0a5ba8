"""Signal stores are created by one visible step, and opening them writes nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import PublishedFacts
from brainhive_cli.data.signals.selection import Signal
from brainhive_cli.data.signals.spaces import Sensors
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.stores.recordings import Recordings
from brainhive_cli.data.stores.signal_store import SignalStore

HERE = Launch(0, 1, torch.device("cpu"))


class Recorded:
    """A data set that counts how often its recordings are opened."""

    name = recorded_as = pictured_as = "counted"
    splits, channels, is_simulated = ("train", "test"), None, False
    subjects: tuple[int, ...] = (1, 2, 3)
    here: tuple[int, ...] = subjects
    published_sizes: PublishedFacts | None = PublishedFacts({}, subject_bytes=10)

    def __init__(self) -> None:
        self.opened: list[tuple[int, str]] = []

    def find_recording(self, subject: int) -> None:
        """Refuse all but the subjects whose recordings are there."""
        if subject not in self.here:
            raise MissingData(f"no recording of {subject}", "download it")

    def recording(self, subject: int, split: str) -> Trials:
        """Make one stimulus's signal."""
        self.opened.append((subject, split))
        signal = torch.full((1, 1, 2, 1), float(subject)).numpy()
        return Trials(
            signal, ["a"], Sensors(("O1", "O2")), torch.zeros(1).numpy(), None, "uV"
        )


def source_of(dataset: Recorded, **signal: str) -> Recordings:
    return Recordings(dataset, Paths(), Signal(**signal))  # type: ignore[arg-type]


@pytest.fixture
def dataset(home: Path) -> Recorded:
    return Recorded()


def test_opening_signals_that_were_not_prepared_is_missing_data_and_writes_nothing(
    dataset: Recorded, home: Path
) -> None:
    with pytest.raises(MissingData, match=r"no signals .*sub-01\.h5"):
        source_of(dataset).open_store(1)
    assert not list(home.rglob("*.h5")) and not dataset.opened


def test_stores_are_created_once_and_by_the_main_process_alone(
    dataset: Recorded,
) -> None:
    def prepare(launch: Launch) -> None:
        source_of(dataset).prepare([1, 2], launch)

    worker = replace(HERE, rank=1)
    prepare(worker)
    assert not dataset.opened
    prepare(HERE)
    prepare(HERE)
    assert dataset.opened == [(1, "train"), (1, "test"), (2, "train"), (2, "test")]
    found = source_of(dataset).open_store(2)["test"]
    assert (found.signal[:] == 2).all()


def test_nothing_is_written_while_a_recording_is_missing(
    dataset: Recorded, home: Path
) -> None:
    dataset.here = (2,)
    source = source_of(dataset)

    with pytest.raises(MissingData) as refused:
        source.prepare([2, 1, 3], HERE)

    assert not list(home.rglob("*.h5")) and not dataset.opened
    # the first that is missing, how many more, and who is there
    assert refused.value.message == "no recording of 1, nor of 1 more"
    assert refused.value.hint == "download it, or those that are there: --subjects 2"
    listed = source.list_inputs([2, 1, 3])
    assert [one.error for one in listed] == [None, listed[1].error, listed[1].error]
    assert [one.size for one in listed] == [None, 10, 10]
    assert str(listed[1].error) == refused.value.message


def test_a_store_is_listed_with_what_its_signals_are_known_by(
    dataset: Recorded,
) -> None:
    source = source_of(dataset)
    source.prepare([1], HERE)
    dataset.here = ()

    stored, absent = source.list_inputs([1, 2])

    assert stored.digest == source.open_store(1).identity and not stored.is_missing
    assert absent.is_missing and not absent.digest
    assert absent.name == source.name_store(2)
    assert absent.error is not None
    assert absent.error.hint == "download it, or those that are there: --subjects 1"


def test_signals_of_another_preparation_are_not_made_of_own_files(
    dataset: Recorded,
) -> None:
    (one,) = source_of(dataset, name="mine").list_inputs([1])
    assert one.error is not None and "mine/sub-01.h5" in one.error.message
    assert one.error.hint == "signal.name=default uses the data set's own"


def test_subjects_are_named_recorded_or_published(
    dataset: Recorded, home: Path
) -> None:
    source = source_of(dataset)
    assert source.list_subjects(None) == [1, 2, 3]
    assert source.list_subjects([3, 1]) == [3, 1]
    with pytest.raises(MissingData, match="counted has no subject 4") as refused:
        source.list_subjects([3, 4])
    assert refused.value.hint == "it has: 1, 2, 3"

    # subjects whom stores name, or else the publisher
    dataset.subjects = ()
    for published in (None, PublishedFacts({})):
        dataset.published_sizes = published
        with pytest.raises(MissingData, match="counted has no subject in signals"):
            source.list_subjects(None)
    dataset.published_sizes = PublishedFacts({}, voxels={7: 10, 8: 10})
    assert source.list_subjects(None) == [7, 8]
    assert source.list_subjects([8]) == [8]
    store = {split: dataset.recording(1, split) for split in dataset.splits}
    SignalStore.write(source.build_path(1), store)
    assert source.list_subjects(None) == [1]
    assert source.list_subjects([8, 1]) == [8, 1]
    with pytest.raises(MissingData, match="no subject 8, 9 in signals default"):
        source.list_subjects([1, 8, 9])


def test_published_people_who_were_not_recorded_are_missing(
    dataset: Recorded, home: Path
) -> None:
    dataset.subjects = ()
    dataset.published_sizes = PublishedFacts({}, voxels={7: 10, 8: 10})
    source = source_of(dataset)
    store = {split: dataset.recording(7, split) for split in dataset.splits}
    SignalStore.write(source.build_path(7), store)
    dataset.opened.clear()

    stored, absent = source.list_inputs([7, 8])
    with pytest.raises(MissingData) as refused:
        source.prepare([7, 8], HERE)

    assert stored.digest and absent.is_missing and absent.error is not None
    assert refused.value.in_one_line == absent.error.in_one_line
    assert absent.error.message == "counted has no subject 8 in signals default"
    assert absent.error.hint == "it has: 7" and not dataset.opened


def test_a_written_store_leaves_no_file_open(dataset: Recorded, home: Path) -> None:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("no list of open files")
    made = {split: dataset.recording(1, split) for split in dataset.splits}
    before = len([*folder.iterdir()])

    SignalStore.write(home / "sub-01.h5", made)

    assert len([*folder.iterdir()]) == before
