"""A lock that one process at a time holds on a file."""

import errno
import os
import re
import socket
from pathlib import Path
from typing import Self

from brainhive_cli.core.errors import BrainhiveError, MissingExtra
from brainhive_cli.core.files import UnfitFile, open_no_link, read_regular

try:
    import fcntl
except ImportError as error:
    problem = "this system cannot lock files as Linux and macOS do"
    raise MissingExtra(problem, "on Windows run it in WSL (wsl --install)") from error

MAX_LOCK_BYTES = 1 << 12
"""Bytes of a lock's file, which names a machine and a process."""
HOLDER = re.compile(r"(\S+ \d+)?", re.ASCII)
"""Content of a lock's file; a new one is empty."""


def _holder() -> str:
    """Name this process among those of all machines."""
    return f"{socket.gethostname()} {os.getpid()}"


def is_own(path: Path) -> bool:
    """Whether this process was the last that took the lock on a path, and did not release it."""
    try:
        holder = read_regular(path, MAX_LOCK_BYTES, path.parent).decode(errors="replace")
    except OSError:
        return False
    return holder == _holder()


def is_held(path: Path) -> bool:
    """Whether a process holds the lock on a path."""
    try:
        with open(path, opener=open_no_link) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is no such file
        return False
    return False


class FileLock:
    """An exclusive lock on a path; it ends with the process that holds it.

    Args:
        path: The file that is locked.
        name: What it stands for, for the error.
        wait: Wait for the holder, rather than fail.

    Raises:
        BrainhiveError: if another process holds it and `wait` is false.
        OSError: if the file is a link, hard or soft, no plain file, or no lock.
    """

    def __init__(self, path: Path, name: str, wait: bool = False) -> None:
        # lock whatever file has the name, until it still has it when locked
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        while True:
            self._file = open(path, "a+", errors="replace", opener=open_no_link)  # noqa: SIM115
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                self._file.close()
                way = "wait for it, or give this one another recipe"
                raise BrainhiveError(f"{name} is being written by another command", way) from error
            try:
                # the holder before may have removed it, and another have made it anew
                is_there = os.path.samestat(os.fstat(self._file.fileno()), os.stat(path))
            except FileNotFoundError:
                is_there = False
            if is_there:
                # only a lock's file is written to
                self._file.seek(0)
                if not HOLDER.fullmatch(self._file.read(MAX_LOCK_BYTES)):
                    self._file.close()
                    way = "move it: a lock of this name is written and removed here"
                    raise UnfitFile(errno.EEXIST, "no lock, and not written to", path, way)
                self._file.truncate(0)
                self._file.write(_holder())
                self._file.flush()
                return
            self._file.close()  # the holder before removed it: others now lock another file of this name

    @classmethod
    def for_path(cls, path: Path, wait: bool = False) -> Self:
        """Lock a file by a hidden one next to it."""
        return cls(path.with_name(f".{path.name}.claim"), str(path), wait)

    def release(self) -> None:
        """Let others lock the path."""
        if not self._file.closed:
            self._path.unlink(missing_ok=True)
            self._file.close()
