"""Checkpoints: one that is damaged costs the steps since the one before, and is kept aside."""

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from brainhive_cli.core.errors import BrainhiveError, remember_interrupts
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.weights import Checkpoint

ALONE = Launch(0, 1, torch.device("cpu"))


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(torch.ones(9).numpy().tobytes(), torch.zeros(9).numpy().tobytes()))


DAMAGE: list[Callable[[Path], object]] = [
    flip,
    lambda path: path.write_bytes(path.read_bytes()[:-9]),
    lambda path: path.write_bytes(b""),
    lambda path: torch.save([1], path),
]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    made = Checkpoint(tmp_path / "checkpoints/cell.pt")
    for step in (1, 2, 3):
        made.save({"step": step, "weight": torch.ones(9)})
    return made


def step_of(checkpoint: Checkpoint) -> int | None:
    found = checkpoint.load(ALONE)
    return found and found["step"]


def test_the_newest_is_loaded_and_the_one_before_is_kept(checkpoint: Checkpoint) -> None:
    assert step_of(checkpoint) == 3
    checkpoint.path.unlink()
    assert step_of(checkpoint) == 2


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_set_aside_with_a_line_and_the_one_before_is_loaded(
    checkpoint: Checkpoint, damage: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(checkpoint.path)
    assert step_of(checkpoint) == 2
    assert "cell.pt is damaged" in " ".join(capsys.readouterr().err.split())
    names = {path.name for path in checkpoint.path.parent.iterdir()}
    assert names == {"cell.pt.damaged", "cell.pt.previous"}
    damage(checkpoint.previous)
    assert step_of(checkpoint) is None


def test_a_ctrl_c_that_a_library_calls_damage_sets_nothing_aside(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_checkpoint(path: Path, device: str) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        raise BrainhiveError("damaged")

    monkeypatch.setattr("brainhive_cli.core.weights.read_checkpoint", read_checkpoint)
    with remember_interrupts(), pytest.raises(KeyboardInterrupt):
        step_of(checkpoint)
    assert checkpoint.path.is_file() and not [*checkpoint.path.parent.glob("*.damaged")]


def test_a_full_disk_leaves_the_checkpoints_as_they_were(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save({"step": 4})
    assert step_of(checkpoint) == 3


def test_nothing_is_left_of_a_training_that_is_finished(checkpoint: Checkpoint) -> None:
    checkpoint.remove()
    assert not list(checkpoint.path.parent.iterdir())
