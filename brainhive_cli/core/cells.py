"""Cells that workers share: each claims the next free one, or one of a dead worker."""

import errno
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from brainhive_cli.core import console, documents
from brainhive_cli.core.claims import Claim, find_holder
from brainhive_cli.core.command import Work, read_paces
from brainhive_cli.core.errors import (
    Unfinished,
    raise_if_asked_to_stop,
)
from brainhive_cli.core.launch import Launch

WORKERS = "BRAINHIVE_WORKERS"
"""Environment variable in a cluster's job: the number of tasks that have the same
line.
"""
CELLS = ".cells.json"
"""The file of a run that lists its cells: name, and the file that makes each of them
finished.
"""
FIRST_POLL_S, LONGEST_POLL_S = 0.05, 2.0
"""Time between two looks at cells of other workers."""
SAID_POLL_S = 0.5
"""Time between two looks from which on it is said that they are waited for: after a
second and a half.
"""
PASSING = {
    errno.EIO,
    errno.ESTALE,
    errno.ENOENT,
    errno.EAGAIN,
    errno.EBUSY,
    errno.ETIMEDOUT,
    errno.EINTR,
}
"""Errors of a network disk that may pass."""
MAX_FAILING_S = 120.0
"""Time for which a disk may fail before the command ends."""
Finished = Callable[[str], bool]
OnClaim = Callable[[str, str], None]
"""Is called with a cell's name and the dead worker that it is taken over from, empty if
there is none.
"""


@contextmanager
def claiming(
    cells: Mapping[str, Path],
    launch: Launch,
    on_claim: OnClaim | None = None,
    is_finished: Finished | None = None,
) -> Iterator[Iterator[str]]:
    """Share cells with whoever else does the same work, in this launch or anywhere that
    sees these files.

    The block gets an iterator over cells that this worker has claimed; it ends when all
    cells are finished, whoever has finished them. A cell whose worker died is taken
    over. A claim is advice: it saves work, and a complete file under its final name is
    what counts, so a cell that two workers compute is only slower.

    Args:
        cells: Name of each cell, and the file that makes it finished; it is claimed by
            a hidden file in the same folder, which a network disk shows as it is to
            whoever creates a file in it.
        launch: The processes that share each cell, all of which iterate; one process
            has its cells alone.
        on_claim: Called in the main process when a cell is claimed.
        is_finished: Whether a cell is finished; default: its file is there.

    Raises:
        BrainhiveError: if the process was asked to stop; the cell at hand has ended
            then.
        Unfinished: if the launch only reads, and a cell is not finished.
        OSError: if the disk fails for two minutes.
    """
    free = _claim_each(
        cells, launch, on_claim or (lambda name, taken_from: None), is_finished
    )
    try:
        yield free
    finally:
        free.close()  # an error of the block lets other workers have the cell at once


def _claim_each(
    cells: Mapping[str, Path],
    launch: Launch,
    on_claim: OnClaim,
    is_finished: Finished | None,
) -> Generator[str]:
    # cells that are not finished; the next search begins where the last one ended
    todo, failing_since_s = deque(cells), None
    finished = is_finished or (lambda name: cells[name].is_file())
    if launch.is_read_only:
        if not all(map(finished, cells)):
            raise Unfinished("some cells are not finished")
        return
    delay_s, is_waiting = FIRST_POLL_S, False
    while True:
        # the main process claims, and says what
        claim = None
        if launch.is_main:
            raise_if_asked_to_stop()
            try:
                claim = _claim_next(todo, cells, finished)
                failing_since_s = None
            except OSError as error:
                now_s = time.monotonic()
                failing_since_s = failing_since_s or now_s
                if (
                    error.errno not in PASSING
                    or now_s - failing_since_s > MAX_FAILING_S
                ):
                    raise
        name = todo[0] if claim else None
        name, is_over = launch.gather((name, not todo))[0]  # as the main process says
        if name is None and is_over:
            return

        # cells of other workers are waited for: one that dies leaves them
        if name is None:
            if launch.is_main and not is_waiting and delay_s >= SAID_POLL_S:
                holders = [
                    f"{one} ({find_holder(claim_path(cells[one])) or 'free'})"
                    for one in todo
                ]
                console.say(
                    "waiting for cells of other workers: "
                    f"{console.summarise_names(holders)}"
                )
                is_waiting = True
            time.sleep(delay_s)
            delay_s = min(1.5 * delay_s, LONGEST_POLL_S)
            continue

        # the block computes the cell, and then lets go of it
        try:
            if claim:
                on_claim(name, claim.taken_from)
            yield name
        finally:
            if claim:
                claim.release()
        if claim:
            todo.popleft()
        delay_s = FIRST_POLL_S


def _claim_next(
    todo: deque[str], cells: Mapping[str, Path], is_finished: Finished
) -> Claim | None:
    """Claim the next cell that is free and not finished, which then comes first; drop
    finished ones.

    Raises:
        OSError: if the disk fails; the cell is then the last.
    """
    for name in [*todo]:
        todo.rotate(-1)  # held by another worker, or out of reach for now
        claim = None if is_finished(name) else Claim.attempt(claim_path(cells[name]))
        if is_finished(name):  # also by whoever has just released it
            todo.pop()
            if claim:
                claim.release()
        elif claim:
            todo.rotate(1)
            return claim
    return None


def claim_path(file: Path) -> Path:
    """Name the claim of the cell that a file makes finished."""
    return file.with_name(f".{file.name}.cell")


def read_cells(run: Path) -> dict[str, str]:
    """Read the list of a run's cells, empty where there is none: name, and file below
    the run.
    """
    return (
        documents.read(run / CELLS, dict[str, str]) if (run / CELLS).is_file() else {}
    )


def announce(
    work: Work, command: str, runs: Path, launch: Launch, left: float = 1.0
) -> None:
    """Say what is to be done before it begins, where it takes long.

    Args:
        work: All of it.
        command: Whose work it is.
        runs: The folder of runs, which knows the pace of earlier work.
        launch: The processes that do it.
        left: Share of the work that is not done.
    """
    key = work.key(command, launch.device_name, launch.processes)
    item_s, _ = read_paces(runs).get(key, (None, 0))
    rest = replace(work, count=max(1, round(work.count * left)))
    if launch.is_main:
        console.announce(rest.describe(), item_s, rest.count)
