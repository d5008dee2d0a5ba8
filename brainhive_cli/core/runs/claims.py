"""Claims: locks on files, for processes on several machines that share a disk.

A claim is a hidden file. The process that creates it holds the claim until the process
releases the claim or dies.
"""

import os
import random
import re
import socket
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Self

from brainhive_cli.core.base import (
    JOB_ID_VARIABLE,
    BrainhiveError,
    raise_if_asked_to_stop,
)
from brainhive_cli.core.files import (
    is_running,
    name_machine,
    name_partial_file,
    read_disk_clock,
)

HEARTBEAT_S = 10.0
"""Interval at which a living holder touches the file of the claim."""
MISSED_HEARTBEATS = 10
"""Number of missing heartbeats after which a holder counts as dead. The product with
`HEARTBEAT_S` must exceed a minute, the delay with which NFS may show times of files.
"""
HOLDER = re.compile(r"(?P<machine>\S+ \S+) (?P<process>\d+) (?P<job>\S+)", re.ASCII)
"""Content of the file of a claim: machine (as in `name_machine`), number of the
process, and name of its cluster job, or `-`. The file is empty until the holder
has written this.
"""
MAX_POLL_S = 0.5
"""Longest time between two attempts of a process that waits for a claim."""


def name_worker() -> str:
    """Return the name of this process, such as `node7 4711` or `node7 4711, job 12`."""
    job = _name_job()
    name = f"{socket.gethostname()} {os.getpid()}"
    return f"{name}, job {job}" if job else name


def _name_job() -> str:
    """Return the name of the cluster job of this process, or "".

    Spaces and characters that are not in ASCII become underscores.
    """
    # Longest job name in a claim. Longer names are cut.
    max_job_letters = 100
    return re.sub("[^!-~]", "_", os.environ.get(JOB_ID_VARIABLE, ""))[:max_job_letters]


def find_holder(path: Path) -> str:
    """Return the name of the process that holds a claim, such as `node7 4711`.

    Args:
        path: File of the claim.

    Returns:
        Name as in `name_worker`. Empty if the file cannot be read or names no process.
    """
    holder = _read_holder(path)
    if holder is None:
        return ""
    host = holder["machine"].split()[0]
    name = f"{host} {holder['process']}"
    return name if holder["job"] == "-" else f"{name}, job {holder['job']}"


def is_held_by_this_process(path: Path) -> bool:
    """Return True if this process holds the claim whose file is `path`."""
    holder = _read_holder(path)
    if holder is None or holder["machine"] != name_machine():
        return False
    return holder["process"] == str(os.getpid())


def _read_holder(path: Path) -> re.Match[str] | None:
    """Match the file of a claim with `HOLDER`, or return None if that fails."""
    with suppress(OSError):
        return HOLDER.fullmatch(path.read_text("utf-8", "replace"))
    return None


class Claim:
    """Claim on a path, which only a single process can hold at a time.

    Another process may take the claim over if the holder's process on this machine has
    ended, or if the holder has not touched the file of the claim for 100 seconds. A
    disk that shows files minutes late allows two holders, so results must get their
    final names only when complete.

    Args:
        path: File of the claim.
        name: Name of the claimed file or folder in the error message.
        wait: True to wait until the claim is free instead of raising an error.

    Attributes:
        taken_from: Name of the dead holder from which the claim was taken over, or "".

    Raises:
        BrainhiveError: if a living process holds the claim and `wait` is False, or if
            this process is asked to stop while it waits.
        OSError: if the disk fails.
    """

    def __init__(self, path: Path, name: str, wait: bool = False) -> None:
        delay_s = 0.01
        created = _create_file(path)
        while created is None:
            if not wait:
                raise BrainhiveError(
                    f"{name} is being written by another command",
                    "wait for that command, or change the recipe of this one",
                )
            raise_if_asked_to_stop()
            time.sleep(delay_s * random.uniform(0.5, 1))
            delay_s = min(2 * delay_s, MAX_POLL_S)
            created = _create_file(path)
        descriptor, self.taken_from = created
        is_released = threading.Event()
        lock = threading.Lock()

        # a thread that refers to this object would keep it from being collected
        thread_args = (descriptor, is_released, lock)
        threading.Thread(target=_keep_alive, args=thread_args, daemon=True).start()
        # also called when this object is collected, and at the end of the process
        self._release = weakref.finalize(
            self, _remove_file, path, descriptor, is_released, lock
        )

    @classmethod
    def for_path(cls, path: Path, wait: bool = False) -> Self:
        """Claim the file at a path, by a hidden file in the same folder.

        Args:
            path: File that is claimed.
            wait: True to wait until the claim is free instead of raising an error.
        """
        return cls(path.with_name(f".{path.name}.claim"), str(path), wait)

    @classmethod
    def attempt(cls, path: Path) -> Self | None:
        """Claim a path without waiting.

        Args:
            path: File of the claim.

        Returns:
            The claim, or None if a living process holds it.
        """
        try:
            return cls(path, str(path))
        except BrainhiveError:
            return None

    def release(self) -> None:
        """Let other processes claim the path."""
        self._release()


def is_held(path: Path) -> bool:
    """Return True if a living process holds the claim whose file is `path`.

    The result is False if the file is missing or the disk fails.
    """
    with suppress(OSError):
        return _is_holder_alive(path)
    return False


def _is_holder_alive(path: Path) -> bool:
    """Return True if the process that holds a claim counts as alive.

    It is dead if it ran on this machine and has ended, or after `MISSED_HEARTBEATS`.
    """
    holder = _read_holder(path)
    is_local = holder is not None and holder["machine"] == name_machine()
    if holder and is_local and not is_running(int(holder["process"])):
        return False

    # A time in the future would let a dead holder seem alive until then, so it is set
    # to the present. A living holder will touch the file again.
    passed_s = read_disk_clock(path.parent) - os.stat(path).st_mtime
    if passed_s < 0:
        os.utime(path)
    return passed_s < MISSED_HEARTBEATS * HEARTBEAT_S


def _create_file(path: Path) -> tuple[int, str] | None:
    """Create the file of a claim, also in place of the file of a dead process.

    Returns:
        The descriptor of the open file, and the name of the dead process, or "". None
        if a living process holds the claim.
    """
    # Python 3.14 raises this error if the disk fails to say that the folder is a folder
    with suppress(FileExistsError):
        path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    taken_from = ""
    while True:
        # with O_EXCL, only one process can create the file, also on network disks
        try:
            descriptor = os.open(path, flags, 0o666)
        except FileExistsError:
            dead_holder = _evict_dead_holder(path)
            if dead_holder is None:
                return None
            taken_from = dead_holder or taken_from
            continue

        content = f"{name_machine()} {os.getpid()} {_name_job() or '-'}"
        try:
            os.pwrite(descriptor, content.encode(), 0)
        except BaseException:
            # a file that cannot be removed looks dead later, as nobody touches it
            with suppress(OSError):
                path.unlink()
            os.close(descriptor)
            raise
        return descriptor, taken_from


def _evict_dead_holder(path: Path) -> str | None:
    """Remove the file of a claim if the process that holds it is dead.

    Returns:
        Name of the dead holder, or "" if the file no longer exists. None if the holder
        is alive, or if another process has just replaced the file.
    """
    # the open descriptor identifies the file even if another process replaces it
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        if _is_holder_alive(path):
            return None

        # if several processes rename the file, only the first does not get an error
        holder = find_holder(path)
        moved = name_partial_file(path)
        os.rename(path, moved)
        # the file of a new holder must go back
        if not _is_same_file(descriptor, moved):
            os.rename(moved, path)
            return None
        os.unlink(moved)
        return holder or "a process without a name"
    except FileNotFoundError:
        return ""
    finally:
        os.close(descriptor)


def _is_same_file(descriptor: int, path: Path) -> bool:
    """Return True if the file with an open descriptor still has this path."""
    return os.path.samestat(os.fstat(descriptor), os.stat(path))


def _keep_alive(
    descriptor: int, is_released: threading.Event, lock: threading.Lock
) -> None:
    """Touch the file of a claim every `HEARTBEAT_S` until the claim is released.

    Args:
        descriptor: Descriptor of the open file.
        is_released: Event that ends the loop.
        lock: Lock under which the descriptor is used or closed.
    """
    while not is_released.wait(HEARTBEAT_S):
        with lock, suppress(OSError):
            if not is_released.is_set():
                os.utime(descriptor)


def _remove_file(
    path: Path, descriptor: int, is_released: threading.Event, lock: threading.Lock
) -> None:
    """Release a claim: stop its heartbeat, and remove its file unless it was replaced.

    Args:
        path: File of the claim.
        descriptor: Descriptor of the file that this process created. It is closed.
        is_released: Event that ends the heartbeat.
        lock: Lock under which the descriptor is used or closed.
    """
    is_released.set()
    with lock, suppress(OSError):
        try:
            if _is_same_file(descriptor, path):
                path.unlink()
        finally:
            os.close(descriptor)
