"""Work that workers share: a run is opened, and each worker claims its next free cell,
or one of a dead worker.
"""

import errno
import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from brainhive_cli.core import console, documents
from brainhive_cli.core.claims import Claim, find_holder, is_held, is_own, name_worker
from brainhive_cli.core.command import Work, read_paces
from brainhive_cli.core.errors import (
    BrainhiveError,
    Unfinished,
    raise_if_asked_to_stop,
)
from brainhive_cli.core.files import below, name_part, portable, remove, within
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Recipe, write_yaml
from brainhive_cli.core.runs import ENVIRONMENT, FINISHED, FOUND, RunFolder, now

WORKERS = "BRAINHIVE_WORKERS"
"""Environment variable in a cluster's job: the number of tasks that have the same
line.
"""
CELLS = ".cells.json"
"""The file of a run that lists its cells: name, and the file that makes each of them
finished.
"""
LOCK = ".claim"
"""The claim under which a run's recipe and environment are written; nothing is computed
meanwhile.
"""
WORKERS_FOLDER = ".workers"
"""The folder of claims that say which processes work on a run."""
CLAIMS = "[!.]*"
"""Claims in that folder: hidden files come and go where others look at its clock."""
PRESENCES = itertools.count(1)
"""Numbers of this process's claims there: one that failed may be held by a traceback,
as in a notebook.
"""
OPENED = {
    "recipe.yaml",
    ENVIRONMENT,
    "embeddings.json",
    LOCK,
    WORKERS_FOLDER,
    CELLS,
}
"""The files of a run for which nothing was done yet."""
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
    if launch.only_reads:
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


def start_run(
    command: str,
    label: str,
    recipe: Recipe,
    launch: Launch,
    again: bool = False,
    digests: Mapping[str, str] = MappingProxyType({}),
    finished: list[str] | None = None,
) -> RunFolder:
    """Create the run's folder, or find the one that the same recipe made before.

    Others may work on the same run: they share its cells (`claim_cells`).

    Args:
        command: The subcommand; the folder lies under `runs/<command>`.
        label: The first part of the folder's name; the fingerprint follows.
        recipe: The resolved recipe.
        launch: This process among those that share the run; the main one writes.
        again: Start a new run even if there is a finished one.
        digests: Of what paths and references of the recipe hold, and of stores, see
            `Input.digest`.
        finished: Gets the name of the run if it is finished, for `say_found`; else a
            line says so.

    Raises:
        Unfinished: if the launch only reads, and the run is not finished.
    """
    # the main process opens the folder, the others wait until it has
    recipe = recipe.model_copy(update={"digests": dict(sorted(digests.items()))})
    base = recipe.paths.under_home("runs") / command
    name = f"{label}-{recipe.fingerprint()}"
    below(base, name, source="the name of a run,")
    if launch.only_reads:
        run = RunFolder(_numbered(base, name, again))
        if not run.is_finished:
            raise Unfinished(f"run {name} is not finished")
        return run
    if not launch.is_main:
        return RunFolder(launch.gather(None)[0])

    # a new run has a folder that no other command takes
    path = _numbered(base, name, again)
    while again:
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            path = _numbered(base, name, again)

    # an unfinished run is continued; its recipe and environment are written while
    # nobody else does
    run = RunFolder(path)
    if not run.is_finished:
        lock = Claim(path / LOCK, f"run {path}", wait=True)
        try:
            claims = [*(path / WORKERS_FOLDER).glob(CLAIMS)]
            held = [claim for claim in claims if is_held(claim)]
            # of workers that were killed, or have just ended
            for claim in {*claims} - {*held}:
                claim.unlink(missing_ok=True)
            workers = [claim for claim in held if not is_own(claim)]
            # by another worker, just before this one had the lock
            if not run.is_finished:
                worker = name_part(path / f"worker-{next(PRESENCES)}")
                presence = Claim(
                    path / WORKERS_FOLDER / worker.name.removeprefix("."), f"run {path}"
                )
                run = RunFolder(path, presence.release)
                is_new = not (path / "recipe.yaml").is_file()
                if not workers:
                    run.write_text(
                        "recipe.yaml",
                        write_yaml(portable(recipe.model_dump(mode="json"))),
                    )
                    run.write_json(
                        ENVIRONMENT,
                        {**launch.describe_environment(), "started": now()},
                    )
                if not is_new:
                    count = len(workers)
                    with_others = (
                        f" with {count} other worker{'s' if count > 1 else ''}"
                        if count
                        else ""
                    )
                    console.say(f"continuing run {path.name}{with_others}")
        finally:
            lock.release()

    # a finished one is noted as asked for again
    if run.is_finished:
        if finished is None:
            console.say(
                f"found run {path.name}, finished {run.age}; --again starts a new one"
            )
        else:
            finished.append(path.name)
        # a run of somebody else, which may be read only
        with suppress(OSError, BrainhiveError):
            names = sorted({*run.read_found().recipe_names, recipe.recipe_name})
            run.write_json(FOUND, {"recipe_names": names, "found": now()})
    launch.gather(path)
    return run


def say_found(finished: Sequence[str]) -> None:
    """Say of several runs in one line that they are finished."""
    if finished:
        console.say(f"found finished runs, {console.summarise_names(finished)}")


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


def _numbered(base: Path, name: str, again: bool) -> Path:
    """Find the newest of `name`, `name-2`, …; the next free one with `again`."""
    # runs of one recipe are numbered without gaps
    number = 1
    while (base / f"{name}-{number + 1}").exists():
        number += 1
    if again and (base / name).exists():
        number += 1
    return base / (name if number == 1 else f"{name}-{number}")


@contextmanager
def claim_cells(
    run: RunFolder,
    files: Mapping[str, str],
    launch: Launch,
    is_finished: Finished | None = None,
) -> Iterator[Iterator[str]]:
    """Share cells of the run with others who work on it; see `claiming`.

    Args:
        run: The run.
        files: Name of each cell, and the file of the run that makes it finished.
        launch: The processes that share each cell.
        is_finished: Whether a cell is finished; default: its file is there.
    """
    # the list of cells, for who counts them; the metrics are not one of many
    listed = read_cells(run.path) if launch.is_main else dict(files)
    if FINISHED not in files and not {*files.items()} <= {*listed.items()}:
        run.write_json(CELLS, listed | dict(files))

    # lines of a dead worker stay in the log; this one says from where on they are
    # another's
    def note(name: str, taken_from: str) -> None:
        if taken_from:
            run.log(cell=name, taken_from=taken_from, by=name_worker())
            console.say(f"{name} is taken over from {taken_from}, which has ended")

    paths = {
        name: within(run.path, file, "a cell of a run,") for name, file in files.items()
    }
    with claiming(paths, launch, note, is_finished) as free:
        yield free


def fill(
    run: RunFolder,
    title: str,
    files: Mapping[str, str],
    launch: Launch,
    measure: Callable[[str], Any],
    work: Work,
) -> bool:
    """Measure the cells that lack their files, each by whoever is free.

    Args:
        run: The run.
        title: What is done, on the line of progress.
        files: Name of each cell, and its file in the run.
        launch: The processes, each of which measures cells by itself.
        measure: Measures a cell, by its name.
        work: All of it, which is announced where it takes long.

    Returns:
        Whether this launch measured all of them, so that their pace is known.
    """
    from brainhive_cli.core import weights

    # cells without a file; other workers may fill them meanwhile
    todo = {
        name: file for name, file in files.items() if not (run.path / file).is_file()
    }
    count = 0
    if todo:
        left = len(todo) / len(files)
        announce(work, run.command, run.path.parents[1], launch, left)
    with (
        console.progress(title, len(todo)) as bar,
        claim_cells(run, todo, launch.alone) as free,
    ):
        # progress counts the cells of all workers
        for name in free:
            run.replace(todo[name], partial(weights.save_cell, measured=measure(name)))
            bar.advance(run.count_finished(todo) - bar.items, name)
            count += 1
        bar.advance(len(todo) - bar.items)

    # time in which other workers helped is no pace of this launch
    return bool(sum(launch.gather(count)) >= len(todo))


@contextmanager
def finishing(run: RunFolder, launch: Launch) -> Iterator[bool]:
    """Wait until this worker may finish the run, for which the block gets True, or
    another has done it.

    All processes go on together.

    Args:
        run: The run.
        launch: The processes that finish it together.
    """
    with claim_cells(run, {FINISHED: FINISHED}, launch) as free:
        yield next(free, None) is not None
    launch.barrier()


def is_in_use(run: RunFolder) -> bool:
    """Whether a living process works on the run."""
    return any(map(is_held, (run.path / WORKERS_FOLDER).glob(CLAIMS)))


def is_untouched(run: RunFolder) -> bool:
    """Whether nothing was done for the run yet."""
    return {path.name for path in run.path.iterdir()} <= OPENED


def remove_unused(runs: Path) -> None:
    """Remove the runs that this process opened and did nothing for; called when its
    command fails.
    """
    for claim in runs.glob(f"*/*/{WORKERS_FOLDER}/{CLAIMS}"):
        # a worker's claim of this process, on a run with nothing in it, and no other
        # worker
        folder = RunFolder(claim.parents[1])
        if not is_own(claim) or not is_untouched(folder):
            continue
        # another process may be opening the run at this moment
        lock = Claim(folder.path / LOCK, f"run {folder.path}", wait=True)
        if not any(
            is_held(other) and not is_own(other) for other in claim.parent.glob(CLAIMS)
        ):
            remove(folder.path)
            with suppress(OSError):  # as another command has runs there
                folder.path.parent.rmdir()
        lock.release()
