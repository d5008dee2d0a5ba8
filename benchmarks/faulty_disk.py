"""Simulation of workers, some of which die, on a slow and failing network disk."""

import errno
import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch

from brainhive_cli.core.runs import claims
from brainhive_cli.core.runs.cells import claim_path, share_cells
from brainhive_cli.core.runs.launch import Launch

READING = ("stat", "fstat")
CHANGING = {
    "open": errno.EEXIST,
    "rename": errno.ENOENT,
    "unlink": errno.ENOENT,
    "link": errno.EEXIST,
    "utime": errno.EIO,
    "pwrite": errno.EIO,
}
"""Calls that change a disk. Each has the error of NFS for a call that is repeated
because its first answer was lost.
"""
FAILURES = (errno.EIO, errno.ESTALE)
MAX_SKEW_S = 300.0
CLAIM_NAME = claim_path(Path("done")).name
"""Name of the file that claims a cell."""


class Killed(BaseException):
    """Ends a worker in the middle of a cell."""


@dataclass
class Worker:
    """Worker on a machine with a wrong clock."""

    number: int
    machine: str
    skew_s: float
    is_dead: bool = False


class FaultyDisk:
    """Layer below `os` that delays and fails calls of workers at random.

    A call fails before or after its effect. Calls of a dead worker have no effect, and
    its claims stay.

    Args:
        failing: Share of calls that fail.
        slow: Share of calls that are delayed.
        delay_s: Longest delay.
        seed: Seed of the failures and delays.

    Attributes:
        calls: Number of calls by name, and of failed calls by "name failed".
        moved: Claims that another worker moved away from a living worker.
    """

    def __init__(self, failing: float, slow: float, delay_s: float, seed: int) -> None:
        self.failing = failing
        self.slow = slow
        self.delay_s = delay_s
        self.random = random.Random(seed)
        self.calls: Counter[str] = Counter()
        self.threads = threading.local()
        self.holders: dict[str, Worker] = {}
        self.moved: set[str] = set()
        self.guard = threading.Lock()

    @property
    def worker(self) -> Worker | None:
        """The worker of this thread."""
        return getattr(self.threads, "worker", None)

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Wrap the calls of this process. Only workers and heartbeats are affected."""
        patches = [
            _wrap(time, "time", self._read_clock),
            _wrap(claims, "name_machine", self._name_machine),
        ]
        for name in READING + tuple(CHANGING):
            patches.append(_wrap(os, name, self._call))
        for replacement in patches:
            replacement.start()
        try:
            yield
        finally:
            for replacement in patches:
                replacement.stop()

    def _call(
        self, name: str, function: Callable[..., Any], *args: Any, **options: Any
    ) -> Any:
        """Delay, fail or perform a call."""
        worker = self.worker
        is_heartbeat = worker is None and name == "utime"
        if worker is None and not is_heartbeat:
            return function(*args, **options)
        self.calls[name] += 1
        if worker and worker.is_dead:
            raise OSError(errno.EIO, "the machine is dead")
        if self.random.random() < self.slow:
            time.sleep(self.random.uniform(0, self.delay_s))
        if self.random.random() >= self.failing:
            return self._perform(name, function, worker, args, options)

        # perform half of the failing calls
        self.calls[f"{name} failed"] += 1
        number = self.random.choice(FAILURES)
        if name in CHANGING and self.random.random() < 0.5:
            result = self._perform(name, function, worker, args, options)
            if name == "open":
                os.close(result)
                # the worker does not know that it has created the file
                self.holders.pop(str(args[0]), None)
            number = self.random.choice((number, CHANGING[name]))
            if name == "open" and not args[1] & os.O_EXCL:
                number = errno.EIO
        path = args[0] if args else None
        raise OSError(number, f"{name}: {os.strerror(number)}", path)

    def _perform(
        self,
        name: str,
        function: Callable[..., Any],
        worker: Worker | None,
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        """Perform a call, and note who creates, moves or removes a claim."""
        path = str(args[0])
        is_noted = worker is not None and path.endswith(CLAIM_NAME)
        if name == "open":
            is_noted = is_noted and bool(args[1] & os.O_EXCL)
        elif name not in ("rename", "unlink"):
            is_noted = False
        if worker is None or not is_noted:
            return function(*args, **options)

        with self.guard:
            result = function(*args, **options)
            holder = self.holders.pop(path, None)
            if name == "open":
                self.holders[path] = worker
            elif name == "rename" and holder and not holder.is_dead:
                self.moved.add(path)
            return result

    def _read_clock(self, name: str, function: Callable[[], float]) -> float:
        """Return the time of the worker's machine."""
        return function() + (self.worker.skew_s if self.worker else 0)

    def _name_machine(self, name: str, function: Callable[[], str]) -> str:
        """Return the name of the worker's machine."""
        return self.worker.machine if self.worker else function()


def _wrap(module: ModuleType, name: str, wrapper: Callable[..., Any]) -> Any:
    """Patch a function with a wrapper, which receives its name and the function."""
    return patch.object(module, name, partial(wrapper, name, getattr(module, name)))


@dataclass
class Outcome:
    """Result of a simulation.

    Attributes:
        trained: Workers that finished each cell, in order.
        deaths: Workers that died in each cell.
        ended: Number of workers that ended normally.
        errors: Errors of the other workers.
        lost: Cells whose claim was moved away from a living worker.
        leftover_files: Names of files other than the results of cells.
        wall_s: Seconds from the start to the last worker's end.
        calls: Number of calls of the disk by name.
    """

    trained: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    deaths: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    ended: int = 0
    errors: list[BaseException] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    leftover_files: list[str] = field(default_factory=list)
    wall_s: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)

    @property
    def repeated(self) -> list[str]:
        """Cells that were finished more than once."""
        return [name for name, workers in self.trained.items() if len(workers) > 1]


def simulate(
    folder: Path,
    disk: FaultyDisk,
    workers: int,
    cells: int,
    machines: int,
    cell_s: float,
    dying: float,
) -> Outcome:
    """Let workers share cells on a disk, and let some of them die in a cell.

    Args:
        folder: Folder of the cells.
        disk: Layer that fails.
        workers: Number of workers. Each is a thread.
        cells: Number of cells.
        machines: Number of machines, whose clocks differ by minutes.
        cell_s: Mean seconds of a cell.
        dying: Share of the workers that die in an early cell.
    """
    outcome = Outcome()
    rng = random.Random(disk.random.random())
    files = {}
    for number in range(cells):
        files[f"cell-{number:04d}"] = folder / f"{number:04d}" / "done"
    is_dying = set(rng.sample(range(workers), round(dying * workers)))
    fatal = {number: rng.randrange(1 + cells // workers // 2) for number in is_dying}

    def work(worker: Worker) -> None:
        disk.threads.worker = worker
        launch = Launch(0, 1, torch.device("cpu"))
        n_finished = 0
        try:
            with share_cells(files, launch) as names:
                for name in names:
                    time.sleep(cell_s * rng.uniform(0.5, 1.5))
                    if fatal.get(worker.number) == n_finished:
                        worker.is_dead = True
                        outcome.deaths[name].append(worker.number)
                        raise Killed
                    n_finished += 1
                    outcome.trained[name].append(worker.number)
                    # write without failures, which other tests cover
                    file = files[name].with_name(f"part-{worker.number}")
                    disk.threads.worker = None
                    file.write_text(name)
                    file.replace(files[name])
                    disk.threads.worker = worker
            outcome.ended += 1
        except Killed:
            pass
        except BaseException as error:
            outcome.errors.append(error)

    # start all workers at once
    names = [f"node{number} 0-0" for number in range(machines)]
    skews_s = [rng.uniform(-MAX_SKEW_S, MAX_SKEW_S) for _ in names]
    threads = []
    for number in range(workers):
        index = number % machines
        worker = Worker(number, names[index], skews_s[index])
        threads.append(threading.Thread(target=work, args=[worker], daemon=True))
    start_s = time.monotonic()
    with disk.mounted():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    outcome.wall_s = time.monotonic() - start_s
    outcome.calls = disk.calls
    outcome.lost = {f"cell-{Path(path).parent.name}" for path in disk.moved}
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "done":
            outcome.leftover_files.append(path.name)
    return outcome
