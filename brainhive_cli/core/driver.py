"""The driver of runs: it opens the folder of a run, shares its cells between workers,
goes on with it, and finishes it once.
"""

import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from brainhive_cli.core import artifacts, console, trackers
from brainhive_cli.core.cells import CELLS, Finished, announce, claiming, read_cells
from brainhive_cli.core.claims import Claim, is_held, is_own, name_worker
from brainhive_cli.core.command import Result, Work, digests_of, require
from brainhive_cli.core.errors import BrainhiveError, MissingData, Unfinished
from brainhive_cli.core.files import (
    make_portable,
    name_partial_file,
    remove,
    resolve_below,
    resolve_without_links,
)
from brainhive_cli.core.jobs import CellStage, OpenRun, RunJob
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Recipe, write_yaml
from brainhive_cli.core.runs import ENVIRONMENT, FINISHED, FOUND, RunFolder, now

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


def run(
    command: str,
    job: RunJob,
    launch: Launch,
    again: bool = False,
    found: list[str] | None = None,
) -> Result:
    """Make a run, go on with one that was interrupted, or read a finished one.

    Args:
        command: The subcommand; the folder lies under `runs/<command>`.
        job: Its work.
        launch: The processes that share the work; each of them calls this.
        again: Start a new run even if there is a finished one.
        found: Gets the name of the run if it was finished before. Default: a line says
            so.

    Raises:
        BrainhiveError: if an input is missing or does not fit, before anything is made.
        Unfinished: if the launch only reads, and the run is not finished.
    """
    with console.progress("opening what the command reads"):
        job, digests = _prepare(command, job, launch, again)

    # open the run, and make those that it consists of
    folder = start_run(
        command, job.label, job.recipe, launch, again, digests, found=found
    )
    opened = OpenRun(folder, launch)
    opened = replace(opened, parts=job.make_parts(opened, again))
    if launch.run_on_main(lambda: folder.is_finished and job.is_outdated(opened)):
        if launch.is_read_only:
            raise Unfinished(f"run {folder.name} lacks what is here now")
        launch.run_on_main((folder.path / FINISHED).unlink)
        folder = start_run(command, job.label, job.recipe, launch, digests=digests)
        opened = replace(opened, folder=folder)

    # compute what is missing, and finish the run
    work = None
    if not launch.run_on_main(lambda: folder.is_finished):
        compared = {str(number): each for number, each in enumerate(job.compared)}
        results = run_each(command, compared, launch)
        opened = replace(opened, against=[*results.values()])
        work = _compute(job, opened)

    # describe the finished run, and log its metrics
    result = job.describe(opened)
    logged = job.choose_logged(result.metrics)
    if logged and launch.is_main:
        values = {
            f"{scope}/{name}": metric.value
            for scope, metrics in logged.items()
            for name, metric in metrics.items()
        }
        caveats = result.metrics.caveats
        with opened.track(job.tracked_as, job.recipe, launch, caveats) as log:
            log({"epoch": 0, **values})
    return replace(result, work=work)


def is_finished(command: str, job: RunJob) -> bool:
    """Return True if a job's run is known to be finished; nothing is fetched."""
    digests = digests_of(job.inputs())
    _, path = _locate(command, job.label, job.recipe, False, digests)
    return RunFolder(path).is_finished


def run_each(
    command: str,
    jobs: Mapping[str, RunJob],
    launch: Launch,
    again: bool = False,
    title: str = "making the runs that this one needs",
) -> dict[str, Result]:
    """Make several runs, by name; one line names those that were finished before."""
    found, results = list[str](), {}
    with console.progress(title, len(jobs)) as bar:
        for name, job in jobs.items():
            results[name] = run(command, job, launch, again, found)
            bar.advance()
    if found:
        console.say(f"found finished runs, {console.summarise_names(found)}")
    return results


def _prepare(
    command: str, job: RunJob, launch: Launch, again: bool
) -> tuple[RunJob, dict[str, str]]:
    """Refuse inputs that are missing or do not fit, and make those that the command
    makes; nothing of that where the run is finished.

    Returns:
        The job with the versions of its inputs, and their digests.
    """
    require(trackers.inputs(job.recipe.run.trackers))
    listed = [*job.inputs()]
    try:
        job, versions = job.pin_versions()
    except MissingData:
        require(listed)
        raise
    digests = digests_of(listed) | versions
    _, path = _locate(command, job.label, job.recipe, again, digests)
    if launch.is_read_only or launch.run_on_main(lambda: RunFolder(path).is_finished):
        return job, digests
    require(listed)

    # what is made is checked as well
    job.check()
    job.prepare(launch)
    made = digests_of(job.inputs()) | versions
    if made != digests:
        job.check()
    return job, made


def _compute(job: RunJob, run: OpenRun) -> Work | None:
    """Compute the stages of a run, and finish it.

    Returns:
        The work whose pace is known by that: none where other workers helped, or where
        the run had been begun before.
    """
    planned = None if run.parts else job.count_work()
    if planned is not None and not planned.count:
        planned = None
    is_whole = run.launch.run_on_main(lambda: is_untouched(run.folder))
    filled = [fill(run, stage, planned) for stage in job.stages(run)]
    is_due = _finish(job, run, None if filled else planned)

    # the pace of cells, where that is known, or of all work
    for _, counted in filled:
        if counted is not None:
            return counted
    is_whole &= is_due and all(is_alone for is_alone, _ in filled)
    return planned if is_whole else None


def fill(
    run: OpenRun, stage: CellStage, planned: Work | None
) -> tuple[bool, Work | None]:
    """Compute the cells of a stage that are not finished, each by whoever is free.

    Args:
        run: The run.
        stage: Its cells.
        planned: All work of the run, which is announced where the stage counts none.

    Returns:
        Whether this launch computed all of the cells, and the work of those that it
        computed from their beginning, where the stage counts it.
    """
    from brainhive_cli.core import weights

    # all processes need one list, though other workers finish cells meanwhile
    folder, launch = run.folder, run.launch
    is_finished = stage.is_finished or (
        lambda name: (folder.path / stage.files[name]).is_file()
    )
    todo = launch.run_on_main(
        lambda: [name for name in stage.files if not is_finished(name)]
    )
    if not todo:
        return True, None
    is_alone = stage.sharing == "alone" or (
        stage.sharing == "either" and len(todo) >= launch.processes
    )
    worker = launch.single_process if is_alone else launch
    work, share = planned, len(todo) / len(stage.files)
    if stage.count_work is not None:
        work, share = stage.count_work(todo), 1.0
    if work is not None:
        announce(work, folder.command, folder.path.parents[1], launch, share)

    # progress counts the cells of all workers
    files = {name: stage.files[name] for name in todo}
    computed, whole = list[str](), list[str]()
    started_s = time.monotonic()
    busy_s = 0.0
    with (
        console.divert_prints(),
        console.progress(stage.title, len(todo)) as bar,
        claim_cells(folder, files, worker, stage.is_finished) as free,
    ):
        for name in free:
            is_begun = folder.checkpoint_path(name).is_file()
            part = stage.compute(name, worker)
            if part is not None:
                save = partial(weights.save_cell, measured=part)
                folder.replace(files[name], save)
            computed.append(name)
            if not is_begun:
                whole.append(name)
            busy_s = time.monotonic() - started_s
            bar.advance(folder.count_finished(files) - bar.items, name)
        bar.advance(len(todo) - bar.items)
    launch.barrier()

    # processes that share cells have computed the same ones
    every = launch.gather((computed, whole, busy_s))
    if not is_alone:
        every = every[:1]
    count = sum(len(computed) for computed, _, _ in every)
    names = [name for _, whole, _ in every for name in whole]
    counted = None
    if stage.count_work is not None and names:
        longest_s = max(busy_s for _, _, busy_s in every)
        counted = replace(stage.count_work(names), seconds=longest_s)
    return count >= len(todo), counted


def _finish(job: RunJob, run: OpenRun, work: Work | None) -> bool:
    """Summarise a run whose cells are finished, and finish it.

    Args:
        job: Its work.
        run: The run.
        work: What is announced, of a run without stages.

    Returns:
        Whether this launch did it, and no other worker.
    """
    folder, launch = run.folder, run.launch
    with finishing(folder, launch) as is_due:
        if is_due and work is not None:
            announce(work, folder.command, folder.path.parents[1], launch)
        summary = None
        if is_due and job.summarises_together:
            summary = job.summarise(run)
        elif is_due and launch.is_main:
            summary = job.summarise(replace(run, launch=launch.single_process))
        if summary is not None and launch.is_main:
            artifacts.write(folder, summary.artifacts)
            folder.finish(summary.measurements)
            # checkpoints of a finished run are of no use
            for path in (folder.path / "checkpoints").glob("*.pt*"):
                path.unlink()
    return is_due


def start_run(
    command: str,
    label: str,
    recipe: Recipe,
    launch: Launch,
    again: bool = False,
    digests: Mapping[str, str] = MappingProxyType({}),
    found: list[str] | None = None,
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
        found: Gets the name of the run if it is finished; else a line says so.

    Raises:
        Unfinished: if the launch only reads, and the run is not finished.
    """
    # the main process opens the folder, the others wait until it has
    recipe, path = _locate(command, label, recipe, again, digests)
    if launch.is_read_only:
        if not RunFolder(path).is_finished:
            raise Unfinished(f"run {path.name} is not finished")
        return RunFolder(path)
    if not launch.is_main:
        return RunFolder(launch.gather(None)[0])

    # a new run has a folder that no other command takes
    while again:
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            _, path = _locate(command, label, recipe, again, digests)

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
                worker = name_partial_file(path / f"worker-{next(PRESENCES)}")
                presence = Claim(
                    path / WORKERS_FOLDER / worker.name.removeprefix("."), f"run {path}"
                )
                run = RunFolder(path, presence.release)
                is_new = not (path / "recipe.yaml").is_file()
                if not workers:
                    run.write_text(
                        "recipe.yaml",
                        write_yaml(make_portable(recipe.model_dump(mode="json"))),
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
        if found is None:
            console.say(
                f"found run {path.name}, finished {run.age}; --again starts a new one"
            )
        else:
            found.append(path.name)
        # a run of somebody else, which may be read only
        with suppress(OSError, BrainhiveError):
            names = sorted({*run.read_found().recipe_names, recipe.recipe_name})
            run.write_json(FOUND, {"recipe_names": names, "found": now()})
    launch.gather(path)
    return run


def _locate(
    command: str,
    label: str,
    recipe: Recipe,
    again: bool,
    digests: Mapping[str, str],
) -> tuple[Recipe, Path]:
    """Give a recipe its digests, and find the folder of its run: the newest of `name`,
    `name-2`, …, or with `again` the next free one.
    """
    recipe = recipe.model_copy(update={"digests": dict(sorted(digests.items()))})
    base = recipe.paths.under_home("runs") / command
    name = f"{label}-{recipe.fingerprint()}"
    resolve_below(base, name, source="the name of a run,")

    # runs of one recipe are numbered without gaps
    number = 1
    while (base / f"{name}-{number + 1}").exists():
        number += 1
    if again and (base / name).exists():
        number += 1
    return recipe, base / (name if number == 1 else f"{name}-{number}")


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
        name: resolve_without_links(run.path, file, "a cell of a run,")
        for name, file in files.items()
    }
    with claiming(paths, launch, note, is_finished) as free:
        yield free


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
