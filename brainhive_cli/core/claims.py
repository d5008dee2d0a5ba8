"""A claim that one process of all machines has on a path, until it releases it or
dies.
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
"""Time between two signs of life of a claim: its file is touched."""
MISSED_HEARTBEATS = 10
"""After which a holder counts as dead; NFS shows times of files up to a minute late."""
MAX_JOB_LETTERS = 100
"""Letters of a job's name that a claim keeps; schedulers' own ids are far shorter."""
HOLDER = re.compile(r"(?P<machine>\S+ \S+) (?P<process>\d+) (?P<job>\S+)", re.ASCII)
"""Content of a claim's file: machine as in `name_machine`, process and job; a new one
is empty.
"""
LONGEST_POLL_S = 0.5
"""Longest time between two attempts of who waits for a claim."""


def name_worker() -> str:
    """Name this process among those of all machines: its host and number, and the job
    that it is of.
    """
    job = _name_job()
    return f"{socket.gethostname()} {os.getpid()}" + (f", job {job}" if job else "")


def _name_job() -> str:
    return re.sub("[^!-~]", "_", os.environ.get(JOB_ID_VARIABLE, ""))[:MAX_JOB_LETTERS]


def find_holder(path: Path) -> str:
    """Name the process in a claim's file, as `name_worker` does; empty if there is
    none.
    """
    holder = _read_holder(path)
    if holder is None:
        return ""
    job = "" if holder["job"] == "-" else f", job {holder['job']}"
    return f"{holder['machine'].split()[0]} {holder['process']}{job}"


def is_own(path: Path) -> bool:
    """Whether the claim of this file is one of this very process."""
    holder = _read_holder(path)
    return holder is not None and holder.group("machine", "process") == (
        name_machine(),
        str(os.getpid()),
    )


def _read_holder(path: Path) -> re.Match[str] | None:
    with suppress(OSError):
        return HOLDER.fullmatch(path.read_text("utf-8", "replace"))
    return None


class Claim:
    """An exclusive claim on a path, for whoever asks first.

    A claim is a file that only one process can create, on network disks too (O_EXCL),
    and which that process touches every ten seconds. A holder is dead if its process is
    gone from this machine, or if the file was not touched for a while. A claim can be
    wrong, as for a disk that shows files minutes late: so it says who should write a
    path, and a complete file under its final name is what counts.

    Args:
        path: The file of the claim.
        name: What is claimed, for the error.
        wait: Wait for the holder, rather than fail.

    Attributes:
        taken_from: The dead holder whose claim this one replaces; empty if there was
            none.

    Raises:
        BrainhiveError: if a living process holds it and `wait` is false.
        OSError: if the disk fails.
    """

    def __init__(self, path: Path, name: str, wait: bool = False) -> None:
        delay_s = 0.01
        while (descriptor := _take(path)) is None:
            if not wait:
                raise BrainhiveError(
                    f"{name} is being written by another command",
                    "wait for it, or give this one another recipe",
                )
            raise_if_asked_to_stop()
            time.sleep(delay_s * random.uniform(0.5, 1))
            delay_s = min(2 * delay_s, LONGEST_POLL_S)
        self._hold(path, *descriptor)

    @classmethod
    def for_path(cls, path: Path, wait: bool = False) -> Self:
        """Claim a file by a hidden one next to it."""
        return cls(path.with_name(f".{path.name}.claim"), str(path), wait)

    @classmethod
    def attempt(cls, path: Path) -> Self | None:
        """Take the claim if no living process holds it."""
        if (descriptor := _take(path)) is None:
            return None
        claim = cls.__new__(cls)
        claim._hold(path, *descriptor)
        return claim

    def _hold(self, path: Path, number: int, taken_from: str) -> None:
        # the thread knows the file, not the claim: a claim that nobody refers to is
        # released
        self.taken_from = taken_from
        is_over = threading.Event()
        guard = threading.Lock()
        threading.Thread(
            target=_beat, args=(number, is_over, guard), daemon=True
        ).start()
        self._release = weakref.finalize(self, _give_up, path, number, is_over, guard)

    def release(self) -> None:
        """Let others claim the path."""
        self._release()


def is_held(path: Path) -> bool:
    """Whether a living process holds the claim of this file; not where there is none,
    or the disk fails.
    """
    with suppress(OSError):
        return _is_alive(path)
    return False


def _is_alive(path: Path) -> bool:
    """Whether the holder of a claim's file lives."""
    # a process that is gone from this machine is dead at once
    holder = _read_holder(path)
    if (
        holder
        and holder["machine"] == name_machine()
        and not is_running(int(holder["process"]))
    ):
        return False

    # else the last sign of life counts, by the clock of the disk; one in the future is
    # set to now, since a living holder touches it again
    since_s = read_disk_clock(path.parent) - os.stat(path).st_mtime
    if since_s < 0:
        os.utime(path)
    return since_s < MISSED_HEARTBEATS * HEARTBEAT_S


def _take(path: Path) -> tuple[int, str] | None:
    """Create the file of a claim; return its descriptor and the dead holder before, or
    None if it is held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    taken_from = ""
    while True:
        # the one process that creates the file has the claim
        try:
            number = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666
            )
        except FileExistsError:
            if (dead := _evict(path)) is None:
                return None
            taken_from = dead or taken_from
            continue
        try:
            os.pwrite(
                number,
                f"{name_machine()} {os.getpid()} {_name_job() or '-'}".encode(),
                0,
            )
        except BaseException:
            with suppress(OSError):  # else it is taken over as that of a dead holder
                path.unlink()
            os.close(number)
            raise
        return number, taken_from


def _evict(path: Path) -> str | None:
    """Remove the claim of a dead holder, and name it; None if the holder lives, empty
    if there is none.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        if _is_alive(path):
            return None

        # moved first: of several that think it dead, one moves it
        holder = find_holder(path)
        aside = name_partial_file(path)
        os.rename(path, aside)
        if not _is_open_as(number, aside):
            os.rename(aside, path)  # a new holder's claim was moved
            return None
        os.unlink(aside)
        return holder or "a process without a name"
    except FileNotFoundError:
        return ""
    finally:
        os.close(number)


def _is_open_as(number: int, path: Path) -> bool:
    """Whether an open file is the one that has this path now."""
    return os.path.samestat(os.fstat(number), os.stat(path))


def _beat(number: int, is_over: threading.Event, guard: threading.Lock) -> None:
    """Touch the open file of a claim until it is over."""
    while not is_over.wait(HEARTBEAT_S):
        with guard, suppress(OSError):
            if not is_over.is_set():
                os.utime(number)


def _give_up(
    path: Path, number: int, is_over: threading.Event, guard: threading.Lock
) -> None:
    """Remove the file of a claim, unless another process has taken the claim over.

    Where the disk fails, the file stays, and is taken over as that of a dead holder:
    the work is done.
    """
    is_over.set()
    with guard, suppress(OSError):
        try:
            if _is_open_as(number, path):
                path.unlink()
        finally:
            os.close(number)
