"""A network disk that is slow and fails, and workers that share cells on it, some of
which die.
"""

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

from brainhive_cli.core import claims
from brainhive_cli.core.cells import claim_path, share_cells
from brainhive_cli.core.launch import Launch

READING = ("stat", "fstat")
CHANGING = {
    "open": errno.EEXIST,
    "rename": errno.ENOENT,
    "unlink": errno.ENOENT,
    "link": errno.EEXIST,
    "utime": errno.EIO,
    "pwrite": errno.EIO,
}
"""Calls that change a disk, and what NFS says of one that was sent twice, as the first
answer got lost.
"""
FAILURES = (errno.EIO, errno.ESTALE)
MAX_SKEW_S = 300.0
CLAIM = claim_path(Path("done")).name
"""Name of the file by which a cell is claimed."""


class Killed(BaseException):
    """Ends a worker in the middle of a cell."""


@dataclass
class Worker:
    """One of the workers, on one of the machines."""

    number: int
    machine: str
    skew_s: float
    is_dead: bool = False


class FaultyDisk:
    """A layer below os that delays and fails calls of workers, at random.

    A call fails before or after it has had its effect. Calls of a dead worker have
    none: what it held stays as it was, and it touches nothing any more.

    Args:
        failing: Share of calls that fail.
        slow: Share of calls that are delayed.
        delay_s: Longest delay.
        seed: Of all this.

    Attributes:
        calls: Number of calls by name, and of those that failed as "name failed".
        moved: Claims that were moved away though their holders lived, as another worker
            was late.
    """

    def __init__(self, failing: float, slow: float, delay_s: float, seed: int) -> None:
        self.failing, self.slow, self.delay_s = failing, slow, delay_s
        self.random, self.calls = random.Random(seed), Counter[str]()
        self.threads = threading.local()
        self.holders, self.moved = dict[str, Worker](), set[str]()
        self.guard = threading.Lock()

    @property
    def worker(self) -> Worker | None:
        """The worker of this thread."""
        return getattr(self.threads, "worker", None)

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Put the layer below the calls of this process; only those of workers and
        heartbeats are touched.
        """
        wrapped = [(os, name, self._call) for name in (*READING, *CHANGING)]
        patches = [_wrap(module, name, wrapper) for module, name, wrapper in wrapped]
        patches += [
            _wrap(time, "time", self._read_clock),
            _wrap(claims, "name_machine", self._name_machine),
        ]
        for each in patches:
            each.start()
        try:
            yield
        finally:
            for each in patches:
                each.stop()

    def _call(
        self, name: str, real: Callable[..., Any], *words: Any, **options: Any
    ) -> Any:
        worker = self.worker
        is_heartbeat = worker is None and name == "utime"
        if worker is None and not is_heartbeat:
            return real(*words, **options)
        self.calls[name] += 1
        if worker and worker.is_dead:
            raise OSError(errno.EIO, "the machine is dead")
        if self.random.random() < self.slow:
            time.sleep(self.random.uniform(0, self.delay_s))
        if self.random.random() >= self.failing:
            return self._perform(name, real, worker, words, options)

        # half of the failures come after the effect
        self.calls[f"{name} failed"] += 1
        number = self.random.choice(FAILURES)
        if name in CHANGING and self.random.random() < 0.5:
            result = self._perform(name, real, worker, words, options)
            if name == "open":
                os.close(result)
                self.holders.pop(str(words[0]), None)  # who created it does not know
            number = self.random.choice((number, CHANGING[name]))
            if name == "open" and not words[1] & os.O_EXCL:
                number = errno.EIO
        raise OSError(
            number, f"{name}: {os.strerror(number)}", words[0] if words else None
        )

    def _perform(
        self,
        name: str,
        real: Callable[..., Any],
        worker: Worker | None,
        words: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        path = str(words[0])
        is_noted = path.endswith(CLAIM) and name in ("open", "rename", "unlink")
        if (
            worker is None
            or not is_noted
            or (name == "open" and not words[1] & os.O_EXCL)
        ):
            return real(*words, **options)

        # whose claim is created, moved or removed
        with self.guard:
            result = real(*words, **options)
            holder = self.holders.pop(path, None)
            if name == "open":
                self.holders[path] = worker
            elif name == "rename" and holder and not holder.is_dead:
                self.moved.add(path)
            return result

    def _read_clock(self, name: str, real: Callable[[], float]) -> float:
        return real() + (self.worker.skew_s if self.worker else 0)

    def _name_machine(self, name: str, real: Callable[[], str]) -> str:
        return self.worker.machine if self.worker else real()


def _wrap(module: ModuleType, name: str, wrapper: Callable[..., Any]) -> Any:
    return patch.object(module, name, partial(wrapper, name, getattr(module, name)))


@dataclass
class Outcome:
    """What workers did.

    Attributes:
        trained: Workers that finished each cell, in order.
        deaths: Workers that died in each cell.
        ended: Number of workers that saw all cells finished.
        errors: What other workers ended with.
        lost: Cells whose claim was moved away from a living worker.
        left: Files that are left besides those of the cells.
        wall_s: From the first to the last worker.
        calls: Those of the disk.
    """

    trained: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    deaths: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    ended: int = 0
    errors: list[BaseException] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    left: list[str] = field(default_factory=list)
    wall_s: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)

    @property
    def repeated(self) -> list[str]:
        """Cells that were finished twice: the claim of a living worker was lost."""
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
    """Let workers share cells on a disk, and let some of them die in the middle of one.

    Args:
        folder: Where cells are written.
        disk: Its layer.
        workers: Number of threads, each of which is a worker.
        cells: Number of cells.
        machines: Number of machines that have the workers, whose clocks differ by
            minutes.
        cell_s: Mean seconds of a cell.
        dying: Share of the workers that die, each in the middle of one of its first
            cells.
    """
    outcome, chosen = Outcome(), random.Random(disk.random.random())
    files = {
        f"cell-{number:04d}": folder / f"{number:04d}" / "done"
        for number in range(cells)
    }
    is_dying = set(chosen.sample(range(workers), round(dying * workers)))
    fatal = {number: chosen.randrange(1 + cells // workers // 2) for number in is_dying}

    def work(worker: Worker) -> None:
        disk.threads.worker = worker
        launch, begun = Launch(0, 1, torch.device("cpu")), 0
        try:
            with share_cells(files, launch) as names:
                for name in names:
                    time.sleep(cell_s * chosen.uniform(0.5, 1.5))
                    if fatal.get(worker.number) == begun:
                        worker.is_dead = True
                        outcome.deaths[name].append(worker.number)
                        raise Killed
                    begun += 1
                    outcome.trained[name].append(worker.number)
                    part = files[name].with_name(f"part-{worker.number}")
                    disk.threads.worker = None  # writers have tests of their own
                    part.write_text(name)
                    part.replace(files[name])
                    disk.threads.worker = worker
            outcome.ended += 1
        except Killed:
            pass
        except BaseException as error:
            outcome.errors.append(error)

    # all at once, each on its machine with its clock
    names = [f"node{number} 0-0" for number in range(machines)]
    skews_s = [chosen.uniform(-MAX_SKEW_S, MAX_SKEW_S) for _ in names]
    team = [
        Worker(n, names[n % machines], skews_s[n % machines]) for n in range(workers)
    ]
    threads = [
        threading.Thread(target=work, args=[worker], daemon=True) for worker in team
    ]
    start_s = time.monotonic()
    with disk.mounted():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    outcome.wall_s, outcome.calls = time.monotonic() - start_s, disk.calls
    outcome.lost = {f"cell-{Path(path).parent.name}" for path in disk.moved}
    outcome.left = [
        path.name
        for path in folder.rglob("*")
        if path.is_file() and path.name != "done"
    ]
    return outcome
