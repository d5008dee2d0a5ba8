"""Division of the cells of a run among workers, which claim them in turn.

A cell is a piece of work whose result is a file, such as the training for a subject
with a seed. A worker is a launch of the command. Several workers can run on several
machines that share a disk.
"""

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

WORKERS_VARIABLE = "BRAINHIVE_WORKERS"
"""Environment variable of a cluster job. It holds the number of tasks that run the same
command line.
"""
CELLS_FILE = ".cells.json"
"""File of a run that lists the cells. It maps the name of each cell to the file that
marks the cell as finished.
"""
FIRST_POLL_S = 0.05
"""Time after which a waiting worker first checks the cells of other workers again."""
MAX_POLL_S = 2.0
"""Longest time between two such checks. It is reached step by step."""
NOTICE_POLL_S = 0.5
"""Time between two checks at which a message tells that the worker waits. It is reached
after one and a half seconds.
"""
TEMPORARY_ERRORS = {
    errno.EIO,
    errno.ESTALE,
    errno.ENOENT,
    errno.EAGAIN,
    errno.EBUSY,
    errno.ETIMEDOUT,
    errno.EINTR,
}
"""Errors of a network disk that may disappear."""
MAX_FAILING_S = 120.0
"""Longest time for which such errors are tolerated."""
Finished = Callable[[str], bool]
"""Returns True if the cell of this name is finished."""
OnClaim = Callable[[str, str], None]
"""Called with the name of a cell, and the name of the dead worker that had the cell
before. The second is empty if the cell was free.
"""


@contextmanager
def share_cells(
    cells: Mapping[str, Path],
    launch: Launch,
    on_claim: OnClaim | None = None,
    is_finished: Finished | None = None,
) -> Iterator[Iterator[str]]:
    """Share cells with other workers, which may run on other machines.

    The block receives an iterator over the cells that this worker has claimed. It
    iterates until all cells are finished, by this worker or by others. The cell of a
    dead worker is taken over.

    Claims only save double work. A cell is finished when its complete file has its
    final name. If two workers compute the same cell, the result is still right.

    Args:
        cells: File that marks each cell as finished, by name of the cell. The claim of
            the cell is a hidden file in the same folder. A network disk shows the
            present files of a folder to a process that creates a file in it.
        launch: Processes of this worker. They compute each cell together, so all of
            them must iterate.
        on_claim: Called in the main process when a cell is claimed.
        is_finished: Returns True if a cell is finished. By default a cell is finished
            if its file exists.

    Yields:
        Iterator over names of cells.

    Raises:
        BrainhiveError: if the process was asked to stop. The current cell is completed
            before.
        Unfinished: if the launch may only read and a cell is not finished.
        OSError: if the disk fails for two minutes.
    """
    claimed_cells = _claim_each(
        cells, launch, on_claim or (lambda name, taken_from: None), is_finished
    )
    try:
        yield claimed_cells
    finally:
        # if the block raises an error, the cell is free for other workers at once
        claimed_cells.close()


def _claim_each(
    cells: Mapping[str, Path],
    launch: Launch,
    on_claim: OnClaim,
    is_finished: Finished | None,
) -> Generator[str]:
    """Claim cells until all are finished, and yield the name of each claimed cell."""
    finished = is_finished or (lambda name: cells[name].is_file())
    if launch.is_read_only:
        if not all(map(finished, cells)):
            raise Unfinished("some cells are not finished")
        return

    # unfinished cells, which are rotated: the next search begins where the last ended
    todo = deque(cells)
    failing_since_s = None
    delay_s = FIRST_POLL_S
    has_told_waiting = False
    while True:
        # the main process claims a cell for all processes of the launch
        claim = None
        if launch.is_main:
            raise_if_asked_to_stop()
            try:
                claim = _claim_next(todo, cells, finished)
                failing_since_s = None
            except OSError as error:
                now_s = time.monotonic()
                failing_since_s = failing_since_s or now_s
                is_too_long = now_s - failing_since_s > MAX_FAILING_S
                if error.errno not in TEMPORARY_ERRORS or is_too_long:
                    raise

        # all processes receive the name from the main process, which comes first
        name = todo[0] if claim else None
        is_over = not todo
        name, is_over = launch.gather((name, is_over))[0]
        if name is None and is_over:
            return

        # wait for the cells of other workers, which become free if a worker dies
        if name is None:
            if launch.is_main and not has_told_waiting and delay_s >= NOTICE_POLL_S:
                _tell_waiting({cell: cells[cell] for cell in todo})
                has_told_waiting = True
            time.sleep(delay_s)
            delay_s = min(1.5 * delay_s, MAX_POLL_S)
            continue

        # the block computes the cell before the claim is released
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


def _tell_waiting(cells: Mapping[str, Path]) -> None:
    """Print which cells of other workers this worker waits for, with their holders."""
    names = []
    for cell, file in cells.items():
        holder = find_holder(claim_path(file)) or "free"
        names.append(f"{cell} ({holder})")
    console.say(f"waiting for cells of other workers: {console.summarise_names(names)}")


def _claim_next(
    todo: deque[str], cells: Mapping[str, Path], is_finished: Finished
) -> Claim | None:
    """Claim the next cell that is free and not finished.

    Args:
        todo: Names of unfinished cells. Finished cells are removed, and the claimed
            cell becomes the first. A cell that cannot be claimed goes to the end.
        cells: File that marks each cell as finished, by name of the cell.
        is_finished: Returns True if a cell is finished.

    Returns:
        The claim, or None if other workers hold all unfinished cells.

    Raises:
        OSError: if the disk fails. The cell goes to the end.
    """
    for name in list(todo):
        todo.rotate(-1)
        claim = None
        if not is_finished(name):
            claim = Claim.attempt(claim_path(cells[name]))

        # check again: another worker may have finished the cell before it released it
        if is_finished(name):
            todo.pop()
            if claim:
                claim.release()
        elif claim:
            todo.rotate(1)
            return claim
    return None


def claim_path(file: Path) -> Path:
    """Return the file of the claim of a cell.

    Args:
        file: File that marks the cell as finished.
    """
    return file.with_name(f".{file.name}.cell")


def read_cells(run_folder: Path) -> dict[str, str]:
    """Read the list of the cells of a run.

    Returns:
        File of each cell, as a path below the run. Empty without a list.
    """
    path = run_folder / CELLS_FILE
    return documents.read(path, dict[str, str]) if path.is_file() else {}


def announce(
    work: Work, command: str, runs: Path, launch: Launch, remaining_share: float = 1.0
) -> None:
    """Print the amount and duration of work before it begins, if it takes long.

    Args:
        work: All of the work.
        command: Command of the work.
        runs: Folder of runs, which stores the pace of earlier work.
        launch: Processes that do the work.
        left: Share of the work that remains, from 0 to 1.
    """
    key = work.key(command, launch.device_name, launch.processes)
    item_s, _ = read_paces(runs).get(key, (None, 0))
    remaining_work = replace(work, count=max(1, round(work.count * remaining_share)))
    if launch.is_main:
        console.announce(remaining_work.describe(), item_s, remaining_work.count)
