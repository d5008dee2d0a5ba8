"""Claims on files: locks that processes on several machines share through a disk.

A claim is a file. The process that created the file is the holder of the claim. It
holds the claim until it releases it or dies.
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

from brainhive_cli.core.errors import (
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
"""Interval at which a holder touches the file of its claim, to show that it lives."""
MISSED_HEARTBEATS = 10
"""Number of missing heartbeats after which a holder counts as dead. NFS shows the times
of files up to a minute late.
"""
MAX_JOB_LETTERS = 100
"""Longest job name in a claim. Longer names are cut. The ids of schedulers are far
shorter.
"""
HOLDER = re.compile(r"(?P<machine>\S+ \S+) (?P<process>\d+) (?P<job>\S+)", re.ASCII)
"""Content of a claim's file: the machine as in `name_machine`, the process number and
the job, or `-` without a job. The file is empty until the holder has written this.
"""
MAX_POLL_S = 0.5
"""Longest time between two attempts of a process that waits for a claim."""


def name_worker() -> str:
    """Return a name of this process: host, process number and job, if it has a job."""
    job = _name_job()
    name = f"{socket.gethostname()} {os.getpid()}"
    return f"{name}, job {job}" if job else name


def _name_job() -> str:
    """Return the name of this process's job. Unusual characters become underscores."""
    return re.sub("[^!-~]", "_", os.environ.get(JOB_ID_VARIABLE, ""))[:MAX_JOB_LETTERS]


def find_holder(path: Path) -> str:
    """Return the name of the process that a claim's file names, as `name_worker` does.

    The name is empty if the file is missing or names no process.
    """
    holder = _read_holder(path)
    if holder is None:
        return ""
    host = holder["machine"].split()[0]
    name = f"{host} {holder['process']}"
    return name if holder["job"] == "-" else f"{name}, job {holder['job']}"


def is_held_by_this_process(path: Path) -> bool:
    """Return True if this process is the holder of the claim in this file."""
    holder = _read_holder(path)
    if holder is None or holder["machine"] != name_machine():
        return False
    return holder["process"] == str(os.getpid())


def _read_holder(path: Path) -> re.Match[str] | None:
    """Read a claim's file, as a match of `HOLDER`."""
    with suppress(OSError):
        return HOLDER.fullmatch(path.read_text("utf-8", "replace"))
    return None


class Claim:
    """An exclusive claim on a path, which the first process that asks receives.

    The operating system lets only one process create the file of the claim, also on
    network disks (O_EXCL). The holder then touches the file every ten seconds. A holder
    counts as dead if its process no longer runs on this machine, or if the file was not
    touched for a while.

    A claim can be wrong if a disk shows files minutes late. So a claim only saves
    double work. Code that uses claims must rely on complete files under their final
    names, not on claims.

    Args:
        path: File of the claim.
        name: Name of the claimed thing, for the error.
        wait: If True, wait until the claim is free instead of raising an error.

    Attributes:
        taken_from: Name of the dead holder from whom the claim was taken over. Empty if
            the claim was free.

    Raises:
        BrainhiveError: if a living process holds the claim and `wait` is False.
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
        descriptor, taken_from = created
        self._hold(path, descriptor, taken_from)

    @classmethod
    def for_path(cls, path: Path, wait: bool = False) -> Self:
        """Claim a file. The file of the claim is hidden, next to the claimed file."""
        return cls(path.with_name(f".{path.name}.claim"), str(path), wait)

    @classmethod
    def attempt(cls, path: Path) -> Self | None:
        """Return the claim of a file, or None if a living process holds it."""
        created = _create_file(path)
        if created is None:
            return None
        descriptor, taken_from = created
        claim = cls.__new__(cls)
        claim._hold(path, descriptor, taken_from)
        return claim

    def _hold(self, path: Path, descriptor: int, taken_from: str) -> None:
        """Start the thread that touches the file, and arrange the release."""
        self.taken_from = taken_from
        is_released = threading.Event()
        lock = threading.Lock()

        # the thread has no reference to the claim, so a forgotten claim is collected
        # and thereby released
        thread_args = (descriptor, is_released, lock)
        threading.Thread(target=_keep_alive, args=thread_args, daemon=True).start()
        self._release = weakref.finalize(
            self, _remove_file, path, descriptor, is_released, lock
        )

    def release(self) -> None:
        """Let other processes claim the path."""
        self._release()


def is_held(path: Path) -> bool:
    """Return True if a living process holds the claim in this file.

    The result is False if the file is missing or the disk fails.
    """
    with suppress(OSError):
        return _is_holder_alive(path)
    return False


def _is_holder_alive(path: Path) -> bool:
    """Return True if the holder of the claim in this file is alive."""
    # a process of this machine is dead as soon as it no longer runs
    holder = _read_holder(path)
    if (
        holder is not None
        and holder["machine"] == name_machine()
        and not is_running(int(holder["process"]))
    ):
        return False

    # else compare the last heartbeat with the clock of the disk. A heartbeat in the
    # future is set to now: a living holder will touch the file again
    passed_s = read_disk_clock(path.parent) - os.stat(path).st_mtime
    if passed_s < 0:
        os.utime(path)
    return passed_s < MISSED_HEARTBEATS * HEARTBEAT_S


def _create_file(path: Path) -> tuple[int, str] | None:
    """Create the file of a claim, and write the name of this process into it.

    Returns:
        File descriptor, and name of the dead holder whose claim was removed, or None if
        a living process holds the claim.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    taken_from = ""
    while True:
        # only one process can create the file, and thereby becomes the holder
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
            # a file that stays is later taken over like the file of a dead holder
            with suppress(OSError):
                path.unlink()
            os.close(descriptor)
            raise
        return descriptor, taken_from


def _evict_dead_holder(path: Path) -> str | None:
    """Remove the file of a claim if its holder is dead.

    Returns:
        Name of the dead holder, or None if the holder is alive. The name is empty if
        the file is gone.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        if _is_holder_alive(path):
            return None

        # rename the file before removing it: if several processes find the holder dead,
        # only one of them succeeds
        holder = find_holder(path)
        moved = name_partial_file(path)
        os.rename(path, moved)
        if not _is_same_file(descriptor, moved):
            os.rename(moved, path)  # the file already belonged to a new holder
            return None
        os.unlink(moved)
        return holder or "a process without a name"
    except FileNotFoundError:
        return ""
    finally:
        os.close(descriptor)


def _is_same_file(descriptor: int, path: Path) -> bool:
    """Return True if an open file is the file that has this path now."""
    return os.path.samestat(os.fstat(descriptor), os.stat(path))


def _keep_alive(
    descriptor: int, is_released: threading.Event, lock: threading.Lock
) -> None:
    """Touch the open file of a claim at intervals until the claim is released."""
    while not is_released.wait(HEARTBEAT_S):
        with lock, suppress(OSError):
            if not is_released.is_set():
                os.utime(descriptor)


def _remove_file(
    path: Path, descriptor: int, is_released: threading.Event, lock: threading.Lock
) -> None:
    """Remove the file of a claim, unless another process has taken the claim over.

    Errors of the disk are ignored, since the work is done. The file then stays, and is
    later taken over like the file of a dead holder.
    """
    is_released.set()
    with lock, suppress(OSError):
        try:
            if _is_same_file(descriptor, path):
                path.unlink()
        finally:
            os.close(descriptor)
