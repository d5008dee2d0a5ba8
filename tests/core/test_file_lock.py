"""Locks on files."""

from pathlib import Path

import pytest

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.file_lock import FileLock


def test_a_lock_holds_until_it_is_released(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "new/.claim", "run X")
    with pytest.raises(BrainhiveError, match="run X is being written by another command"):
        FileLock(tmp_path / "new/.claim", "run X")
    lock.release()
    FileLock(tmp_path / "new/.claim", "run X").release()
    assert not list((tmp_path / "new").iterdir())
