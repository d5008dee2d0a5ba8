"""Division of the cells of a run among workers, which claim them in turn.

A cell is a piece of work whose result is a file, such as the training of a model.
A worker is one start of the command. Workers may run on several machines that
share a disk.
"""

import errno
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from brainhive_cli.core.base import Unfinished, console, raise_if_asked_to_stop
from brainhive_cli.core.files import documents, is_saved
from brainhive_cli.core.runs.claims import Claim, find_holder
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.core.runs.work import Work, read_paces

WORKERS_VARIABLE = "BRAINHIVE_WORKERS"
"""Environment variable of a cluster job with the number of tasks that share the cells.
"""
CELLS_FILE = ".cells.json"
"""File of a run with the path of the file that marks a cell as finished, by cell."""
MAX_POLL_S = 2.0
"""Longest such time. The time grows from attempt to attempt."""
TEMPORARY_ERRORS = {
    errno.EIO,
    errno.ESTALE,
    errno.ENOENT,
    errno.EAGAIN,
    errno.EBUSY,
    errno.ETIMEDOUT,
    errno.EINTR,
}
"""Error numbers of a network disk that may fail for a while and then recover."""
IsFinished = Callable[[str], bool]
"""Function that returns True if the cell with this name is finished."""
OnClaim = Callable[[str, str], None]
"""Function that is called with the name of a claimed cell, and with the name of the
dead worker that held the cell before, or "".
"""


@contextmanager
def share_cells(
    cells: Mapping[str, Path],
    launch: Launch,
    on_claim: OnClaim | None = None,
    is_finished: IsFinished | None = None,
) -> Iterator[Iterator[str]]:
    """Share the cells (pieces of work) of a run among several workers.

    Compute each cell that the iterator yields. The iterator ends when all cells are
    finished, by any worker. In rare cases, two workers get the same cell, so its file
    must get its final name only when complete.

    Args:
        cells: Path of the file that marks a cell as finished, by name of the cell. A
            hidden file in the same folder is the claim.
        launch: Processes of this worker, which must all iterate.
        on_claim: Called in the main process with the name of a claimed cell, and with
            the name of the dead worker that held it before, or "".
        is_finished: Returns True if the cell with this name is finished. If None, a
            cell is finished when its file exists.

    Yields:
        Iterator over the names of the cells that this worker has claimed.

    Raises:
        BrainhiveError: if the process was asked to stop, after the current cell.
        Unfinished: if this launch may only read results, and a cell is not finished.
        OSError: if the disk fails, after two minutes for `TEMPORARY_ERRORS`.
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
    is_finished: IsFinished | None,
) -> Generator[str]:
    """Yield the names of cells that this worker has claimed, until all are finished.

    A claim ends when the caller asks for the next cell or closes the generator.

    Args:
        cells: Path of the file that marks a cell as finished, by name of the cell.
        launch: Processes of this worker.
        on_claim: Called in the main process with the names of a claimed cell and of the
            dead worker that held it before (or "").
        is_finished: Returns True if the cell with this name is finished. If None, a
            cell is finished when its file exists.
    """
    is_finished = is_finished or (lambda name: is_saved(cells[name]))
    if launch.is_read_only:
        if not all(map(is_finished, cells)):
            raise Unfinished("some cells are not finished")
        return

    todo = deque(cells)
    failing_since_s = None
    # First time that a worker waits before it looks for a free cell again.
    first_poll_s = 0.05
    delay_s = first_poll_s
    has_told_waiting = False
    # Time from which on a message tells that the worker waits.
    notice_poll_s = 0.5
    # Longest time for which such errors are tolerated.
    max_failing_s = 120.0
    while True:
        claim = None
        if launch.is_main:
            raise_if_asked_to_stop()
            try:
                claim = _claim_next(todo, cells, is_finished)
                failing_since_s = None
            except OSError as error:
                # tolerate temporary errors of a network disk, but not for too long
                now_s = time.monotonic()
                failing_since_s = failing_since_s or now_s
                is_too_long = now_s - failing_since_s > max_failing_s
                if error.errno not in TEMPORARY_ERRORS or is_too_long:
                    raise

        # all processes get the name from the first process, which is the main process
        claimed_name = todo[0] if claim else None
        name, is_over = launch.gather((claimed_name, not todo))[0]
        if name is None and is_over:
            return

        if name is None:
            if launch.is_main and not has_told_waiting and delay_s >= notice_poll_s:
                _tell_waiting({cell: cells[cell] for cell in todo})
                has_told_waiting = True
            time.sleep(delay_s)
            delay_s = min(1.5 * delay_s, MAX_POLL_S)
            continue

        # the caller computes the cell at `yield`. Then the claim is released
        try:
            if claim:
                on_claim(name, claim.taken_from)
            yield name
        finally:
            if claim:
                claim.release()
        if claim:
            todo.popleft()
        delay_s = first_poll_s


def _tell_waiting(cells: Mapping[str, Path]) -> None:
    """Print the names of unfinished cells, with the workers that compute them."""
    names = []
    for cell, file in cells.items():
        holder = find_holder(claim_path(file)) or "free"
        names.append(f"{cell} ({holder})")
    console.say(f"waiting for cells of other workers: {console.summarise_names(names)}")


def _claim_next(
    todo: deque[str], cells: Mapping[str, Path], is_finished: IsFinished
) -> Claim | None:
    """Claim the next cell in a queue that is not finished and not claimed.

    Args:
        todo: Names of cells. Finished cells are removed, cells of other workers move to
            the end, and the claimed cell becomes the first item.
        cells: Path of the file that marks a cell as finished, by name of the cell.
        is_finished: Returns True if the cell with this name is finished.

    Returns:
        The claim of the cell `todo[0]`, or None if no unfinished cell is free.
    """
    for name in list(todo):
        todo.rotate(-1)  # moves the first cell to the end
        claim = None
        if not is_finished(name):
            claim = Claim.attempt(claim_path(cells[name]))

        # another worker may have finished the cell just before the claim
        if is_finished(name):
            todo.pop()
            if claim:
                claim.release()
        elif claim:
            todo.rotate(1)  # moves the cell back to the front
            return claim
    return None


def claim_path(file: Path) -> Path:
    """Return the path of the hidden file by which a worker claims a cell.

    Args:
        file: Path of the file that marks the cell as finished.
    """
    return file.with_name(f".{file.name}.cell")


def read_cells(run_folder: Path) -> dict[str, str]:
    """Read the list of the cells (pieces of work) of a run.

    Returns:
        Path (below the folder) of the file that marks a cell as finished, by name of
        the cell. Empty if the run has no list.
    """
    path = run_folder / CELLS_FILE
    return documents.read(path, dict[str, str]) if path.is_file() else {}


def announce(
    work: Work, command: str, runs: Path, launch: Launch, remaining_share: float = 1.0
) -> None:
    """Print the amount and the expected duration of work that will take long.

    Args:
        work: Kind of the work, and number of its items.
        command: Name of the command that does the work, such as `train-align`.
        runs: Folder of all runs, with the seconds per item of earlier work.
        launch: Processes that do the work. Only the main process prints.
        remaining_share: Share of the items that remain to be done, from 0 to 1.
    """
    key = work.key(command, launch.device_name, launch.processes)
    item_s, _ = read_paces(runs).get(key, (None, 0))
    remaining_work = replace(work, count=max(1, round(work.count * remaining_share)))
    if launch.is_main:
        console.announce(remaining_work.describe(), item_s, remaining_work.count)
