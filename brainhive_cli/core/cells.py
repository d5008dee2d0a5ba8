"""Division of the cells of a run among workers, which claim them in turn.

A cell is a piece of work whose result is a file, such as the training of a model for a
subject with a seed. A worker is one start of the command. It consists of several
processes if it uses several GPUs. Several workers can run on several machines that
share a disk. A claim is a lock on a cell, which only one worker can hold.
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
"""File of a run that lists the cells. It maps the name of each cell to the path of the
file that marks the cell as finished.
"""
FIRST_POLL_S = 0.05
"""Time after which a waiting worker looks for a free cell for the second time."""
MAX_POLL_S = 2.0
"""Longest time between two such attempts. The time grows from attempt to attempt."""
NOTICE_POLL_S = 0.5
"""Time between two such attempts from which on a message tells that the worker waits.
The time grows to this value within one and a half seconds.
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
"""Error numbers of a network disk that may fail for a while and then recover."""
MAX_FAILING_S = 120.0
"""Longest time for which such errors are tolerated."""
IsFinished = Callable[[str], bool]
"""Function that returns True if the cell with this name is finished."""
OnClaim = Callable[[str, str], None]
"""Function that is called when a cell is claimed. Its arguments are the name of the
cell, and the name of the dead worker that held the cell before (empty if there was
none).
"""


@contextmanager
def share_cells(
    cells: Mapping[str, Path],
    launch: Launch,
    on_claim: OnClaim | None = None,
    is_finished: IsFinished | None = None,
) -> Iterator[Iterator[str]]:
    """Share the cells of a run among several workers, perhaps on several machines.

    A cell is a piece of work, such as the training for a subject with a seed. A worker
    is one start of the command. Use this function in a `with` block, and compute each
    cell that the iterator yields. A yielded cell is claimed, so other workers leave it
    to this worker. The iterator ends when all cells are finished, by this worker or by
    others. If another worker dies, its cell is yielded here.

    Claims only save double work. If two workers compute the same cell in spite of the
    claim, the result is still right, because the file of a cell gets its final name
    when it is complete.

    Args:
        cells: Path of the file that marks a cell as finished, by name of the cell. The
            claim is a hidden file in the same folder. Creating this hidden file also
            makes a network disk show the present files of the folder.
        launch: Processes of this worker. They compute each cell together, so all of
            them must iterate.
        on_claim: Called in the main process when a cell is claimed, with the name of
            the cell and the name of the dead worker that held it before (or empty).
        is_finished: Returns True if the cell with this name is finished. By default a
            cell is finished if its file exists.

    Yields:
        Iterator over the names of the cells that this worker has claimed.

    Raises:
        BrainhiveError: if the process was asked to stop. The current cell is completed
            first.
        Unfinished: if this launch may only read results, and a cell is not finished.
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
    is_finished: IsFinished | None,
) -> Generator[str]:
    """Yield cells that this worker has claimed, until all cells are finished.

    A cell is a piece of work that several workers share. A claim keeps the others from
    computing the same cell.

    Args:
        cells: Path of the file that marks a cell as finished, by name of the cell.
        launch: Processes of this worker. Only the main process claims cells.
        on_claim: Called in the main process with the name of a claimed cell, and with
            the name of the dead worker that held it before (or empty).
        is_finished: Returns True if the cell with this name is finished. None to look
            for the file of the cell.

    Yields:
        Name of a claimed cell. The claim is released when the caller asks for the next
        cell or closes the generator.

    Raises:
        BrainhiveError: if the process was asked to stop.
        Unfinished: if this launch may only read results, and a cell is not finished.
        OSError: if the disk fails for two minutes.
    """
    is_finished = is_finished or (lambda name: cells[name].is_file())
    if launch.is_read_only:
        if not all(map(is_finished, cells)):
            raise Unfinished("some cells are not finished")
        return

    # the queue holds the unfinished cells. It is rotated, so each search for a free
    # cell begins where the search before has ended
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
                claim = _claim_next(todo, cells, is_finished)
                failing_since_s = None
            except OSError as error:
                # tolerate temporary errors of a network disk, but not for too long
                now_s = time.monotonic()
                failing_since_s = failing_since_s or now_s
                is_too_long = now_s - failing_since_s > MAX_FAILING_S
                if error.errno not in TEMPORARY_ERRORS or is_too_long:
                    raise

        # send the name of the cell from the main process to all processes. `gather`
        # returns the values of all processes, and the main process is the first
        name = todo[0] if claim else None
        is_over = not todo
        name, is_over = launch.gather((name, is_over))[0]
        if name is None and is_over:
            return

        # without a free cell, wait: other workers finish their cells, or die
        if name is None:
            if launch.is_main and not has_told_waiting and delay_s >= NOTICE_POLL_S:
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
        delay_s = FIRST_POLL_S


def _tell_waiting(cells: Mapping[str, Path]) -> None:
    """Print the names of unfinished cells, with the workers that compute them.

    Args:
        cells: Path of the file that marks a cell as finished, by name of the cell.
    """
    names = []
    for cell, file in cells.items():
        holder = find_holder(claim_path(file)) or "free"
        names.append(f"{cell} ({holder})")
    console.say(f"waiting for cells of other workers: {console.summarise_names(names)}")


def _claim_next(
    todo: deque[str], cells: Mapping[str, Path], is_finished: IsFinished
) -> Claim | None:
    """Claim the next unfinished cell in a queue that no worker has claimed.

    A cell is a piece of work, such as the training of a model. Several processes, the
    workers, share the cells of a run. A claim is a lock file, which keeps other workers
    from computing the cell.

    Args:
        todo: Names of the cells that may be unfinished. The function changes this
            queue. It removes finished cells, and moves cells that another worker holds
            to the end. The claimed cell becomes the first item.
        cells: Path of the file that marks a cell as finished, by name of the cell.
        is_finished: Function that takes the name of a cell, and returns True if the
            cell is finished.

    Returns:
        The claim of the cell `todo[0]`, or None if no unfinished cell is free.

    Raises:
        OSError: if the disk fails. The affected cell is then at the end of the queue.
    """
    for name in list(todo):
        # move the first cell to the end, and try to claim the cell. The attempt returns
        # None if another worker holds the cell
        todo.rotate(-1)
        claim = None
        if not is_finished(name):
            claim = Claim.attempt(claim_path(cells[name]))

        # check again, because another worker may have finished and released the cell
        # between the first check and the claim
        if is_finished(name):
            todo.pop()
            if claim:
                claim.release()
        elif claim:
            # move the cell back to the beginning
            todo.rotate(1)
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

    Args:
        run_folder: Folder of the run.

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

    The duration is estimated from the pace (seconds per item) of earlier work of this
    kind on the same device. Without earlier work, the progress display prints the
    message later, once it has measured the pace.

    Args:
        work: Kind of the work, and number of its items.
        command: Name of the command that does the work, such as `train-align`.
        runs: Folder of all runs. It holds the file with the paces of earlier work.
        launch: Processes that do the work. Only the main process prints.
        remaining_share: Share of the items that remain to be done, from 0 to 1.
    """
    # a pace is stored with a peak of memory, which is not needed here
    key = work.key(command, launch.device_name, launch.processes)
    item_s, _ = read_paces(runs).get(key, (None, 0))
    remaining_work = replace(work, count=max(1, round(work.count * remaining_share)))
    if launch.is_main:
        console.announce(remaining_work.describe(), item_s, remaining_work.count)
