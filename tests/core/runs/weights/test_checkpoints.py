"""Checkpoints: one that is damaged costs the steps since the one before, and is kept
aside.
"""

from pathlib import Path

import pytest
import torch

from brainhive_cli.core.runs import Checkpoint, Launch

ALONE = Launch(0, 1, torch.device("cpu"))


def flip(path):
    content = path.read_bytes()
    path.write_bytes(
        content.replace(
            torch.ones(9).numpy().tobytes(), torch.zeros(9).numpy().tobytes()
        )
    )


DAMAGE = [
    flip,
    lambda path: path.write_bytes(path.read_bytes()[:-9]),
]


@pytest.fixture
def checkpoint(tmp_path):
    checkpoint = Checkpoint(tmp_path / "checkpoints/cell.pt")
    for step in (1, 2, 3):
        checkpoint.save({"step": step, "weight": torch.ones(9)})
    return checkpoint


def step_of(checkpoint):
    state = checkpoint.load(ALONE)
    return state and state["step"]


def test_the_newest_is_loaded_and_the_one_before_is_kept(
    checkpoint,
):
    assert step_of(checkpoint) == 3
    checkpoint.path.unlink()
    assert step_of(checkpoint) == 2


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(
    checkpoint,
    damage,
    capsys,
):
    damage(checkpoint.path)
    assert step_of(checkpoint) == 2
    assert "cell.pt is damaged" in " ".join(capsys.readouterr().err.split())
    names = {path.name for path in checkpoint.path.parent.iterdir()}
    assert names == {"cell.pt.damaged", "cell.pt.previous"}
    damage(checkpoint.previous)
    assert step_of(checkpoint) is None


def test_a_full_disk_leaves_the_checkpoints_as_they_were(checkpoint, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save({"step": 4})
    assert step_of(checkpoint) == 3


def test_a_reader_leaves_the_first_look_to_the_main_process(checkpoint, monkeypatch):
    waited = list[int]()
    monkeypatch.setattr(Launch, "barrier", lambda launch: waited.append(launch.rank))
    for rank in (0, 1):
        state = checkpoint.load(Launch(rank, 2, torch.device("cpu")))
        assert state is not None
        assert state["step"] == 3
    assert waited == [0, 1]


def test_a_finished_training_keeps_no_checkpoint(checkpoint):
    checkpoint.remove()
    checkpoint.remove()
    assert list(checkpoint.path.parent.iterdir()) == []
    assert step_of(checkpoint) is None
    checkpoint.save({"step": 4})
    assert step_of(checkpoint) == 4
    assert not checkpoint.previous.exists()
