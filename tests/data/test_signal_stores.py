"""Signal stores are created by one visible step, and opening them writes nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.signal_stores import Recordings, SignalStore
from brainhive_cli.data.signals.selection import Signal
from brainhive_cli.data.spaces import Sensors
from brainhive_cli.data.trials import Trials

HERE = Launch(0, 1, torch.device("cpu"))


class Recorded:
    """A data set that counts how often its recordings are opened."""

    name = recorded_as = pictured_as = "counted"
    splits, subjects, channels, is_simulated = ("train", "test"), (1, 2), None, False

    def __init__(self) -> None:
        self.opened: list[tuple[int, str]] = []

    def require(self, subject: int) -> None:
        """Refuse all but the subjects that are there."""
        if subject not in self.subjects:
            raise MissingData("no recording", "download it")

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
        source_of(dataset).open(1)
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
    found = source_of(dataset).open(2)["test"]
    assert (found.signal[:] == 2).all()


def test_a_written_store_leaves_no_file_open(dataset: Recorded, home: Path) -> None:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("no list of open files")
    made = {split: dataset.recording(1, split) for split in dataset.splits}
    before = len([*folder.iterdir()])

    SignalStore.write(home / "sub-01.h5", made)

    assert len([*folder.iterdir()]) == before
