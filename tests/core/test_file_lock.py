"""Locks on files."""

import time
from pathlib import Path
from threading import Thread

import pytest

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.file_lock import FileLock
from brainhive_cli.core.files import UnfitFile


def test_a_lock_holds_until_it_is_released(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "new/.claim", "run X")
    with pytest.raises(BrainhiveError, match="run X is being written by another command"):
        FileLock(tmp_path / "new/.claim", "run X")
    lock.release()
    FileLock(tmp_path / "new/.claim", "run X").release()
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads what Linux says of the process")
def test_who_waits_for_a_lock_then_holds_the_file_that_others_find(tmp_path: Path) -> None:
    path, waited = tmp_path / ".claim", list[FileLock]()
    first = FileLock(path, "run X")
    waiting = Thread(target=lambda: waited.append(FileLock(path, "run X", wait=True)))
    waiting.start()
    while sum(held(path)) < 2:
        time.sleep(0.001)
    first.release()
    waiting.join()
    with pytest.raises(BrainhiveError, match="another command"):
        FileLock(path, "run X")
    waited[0].release()


def held(path: Path) -> list[bool]:
    """Say of each open file of this process whether it is this one."""
    here = path.stat().st_ino
    return [file.exists() and file.stat().st_ino == here for file in Path("/proc/self/fd").iterdir()]


def test_a_lock_that_was_released_does_not_release_that_of_another(tmp_path: Path) -> None:
    first = FileLock(tmp_path / ".claim", "run X")
    first.release()
    second = FileLock(tmp_path / ".claim", "run X")
    first.release()
    with pytest.raises(BrainhiveError, match="another command"):
        FileLock(tmp_path / ".claim", "run X")
    second.release()


def test_a_lock_writes_into_no_file_of_another_name_or_content(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("ten years of work")
    (tmp_path / ".claim").hardlink_to(thesis)
    with pytest.raises(UnfitFile, match="a hard link"):
        FileLock(tmp_path / ".claim", "a run")
    (tmp_path / "copy").write_text("ten years of work")
    with pytest.raises(UnfitFile, match="no lock"):
        FileLock(tmp_path / "copy", "a run")
    assert thesis.read_text() == (tmp_path / "copy").read_text() == "ten years of work"
