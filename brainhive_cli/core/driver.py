"""Driver of runs, which opens a run folder, computes its cells and finishes the run.

A cell is a part of a run that can be computed without the other parts, such as the
model of one subject and one seed. Several workers (commands on this or other machines)
can compute cells of the same run. A worker claims a cell before it computes the cell.
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
from brainhive_cli.core.cells import (
    CELLS_FILE,
    Finished,
    announce,
    read_cells,
    share_cells,
)
from brainhive_cli.core.claims import (
    Claim,
    is_held,
    is_held_by_this_process,
    name_worker,
)
from brainhive_cli.core.command import Result, Work, map_digests, require_inputs
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
from brainhive_cli.core.runs import (
    ENVIRONMENT_FILE,
    METRICS_FILE,
    REUSES_FILE,
    RunFolder,
    format_current_time,
)

LOCK = ".claim"
"""Claim under which a worker writes the recipe and the environment of a run. Cells are
computed without this claim.
"""
WORKERS_FOLDER = ".workers"
"""Folder with one claim for each process that works on a run."""
CLAIM_PATTERN = "[!.]*"
"""Pattern of the claims in that folder. It excludes hidden files, because other
processes briefly create them to read the clock of the disk.
"""
PRESENCE_NUMBERS = itertools.count(1)
"""Numbers of the claims of this process. Each claim needs a new number, because the
traceback of an error may keep an old claim alive, for example in a notebook.
"""
INITIAL_FILES = {
    "recipe.yaml",
    ENVIRONMENT_FILE,
    "embeddings.json",
    LOCK,
    WORKERS_FOLDER,
    CELLS_FILE,
}
"""Files of a run in which nothing was computed yet."""


def run(
    command: str,
    job: RunJob,
    launch: Launch,
    again: bool = False,
    finished_names: list[str] | None = None,
) -> Result:
    """Make a run, continue an interrupted run, or read a finished run.

    Args:
        command: Name of the command. The run folder lies in `runs/<command>`.
        job: Work of the command.
        launch: Processes that share the work. Each of them calls this function.
        again: True to start a new run even if a finished run exists.
        finished_names: List to which the name of the run is added if it was finished
            before. If it is None, a message is printed instead.

    Returns:
        Result of the run.

    Raises:
        BrainhiveError: if an input is missing or does not fit. Nothing is written then.
        Unfinished: if the launch is read-only, and the run is not finished.
    """
    with console.progress("opening what the command reads"):
        job, digests = _prepare(command, job, launch, again)

    # open the run, and make the runs that it consists of
    folder = start_run(
        command=command,
        label=job.label,
        recipe=job.recipe,
        launch=launch,
        again=again,
        digests=digests,
        finished_names=finished_names,
    )
    open_run = OpenRun(folder, launch)
    open_run = replace(open_run, parts=job.make_parts(open_run, again))

    # a finished run that lacks a result is opened again
    if launch.run_on_main(lambda: folder.is_finished and job.is_outdated(open_run)):
        if launch.is_read_only:
            raise Unfinished(f"run {folder.name} lacks a result that can now be added")
        launch.run_on_main((folder.path / METRICS_FILE).unlink)
        folder = start_run(
            command=command,
            label=job.label,
            recipe=job.recipe,
            launch=launch,
            digests=digests,
        )
        open_run = replace(open_run, folder=folder)

    # compute the missing cells, and finish the run
    work = None
    if not launch.run_on_main(lambda: folder.is_finished):
        compared_jobs = {str(n): other for n, other in enumerate(job.compared_jobs)}
        compared_results = run_each(command, compared_jobs, launch)
        open_run = replace(open_run, compared_results=list(compared_results.values()))
        work = _compute(job, open_run)

    # describe the finished run, and log its metrics
    result = job.describe(open_run)
    logged_metrics = job.choose_logged_metrics(result.metrics)
    if logged_metrics and launch.is_main:
        event: dict[str, float | None] = {"epoch": 0}
        for scope, metrics in logged_metrics.items():
            for name, metric in metrics.items():
                event[f"{scope}/{name}"] = metric.value
        caveats = result.metrics.caveats
        with open_run.track(job.tracker_name, job.recipe, launch, caveats) as log:
            log(event)
    return replace(result, work=work)


def is_finished(command: str, job: RunJob) -> bool:
    """Return True if the run of a job is finished. Nothing is downloaded."""
    digests = map_digests(job.inputs())
    _, path = _locate(command, job.label, job.recipe, False, digests)
    return RunFolder(path).is_finished


def run_each(
    command: str,
    jobs: Mapping[str, RunJob],
    launch: Launch,
    again: bool = False,
    title: str = "making the runs that this one needs",
) -> dict[str, Result]:
    """Make several runs, and name the runs that were finished before in one message.

    Args:
        command: Name of the command.
        jobs: Work of each run, keyed by the name of the run.
        launch: Processes that share the work.
        again: True to start new runs even if finished runs exist.
        title: Description of the runs, shown with the progress.

    Returns:
        Result of each run, keyed by the name of the run.
    """
    finished_names = list[str]()
    results = {}
    with console.progress(title, len(jobs)) as bar:
        for name, job in jobs.items():
            results[name] = run(command, job, launch, again, finished_names)
            bar.advance()
    if finished_names:
        names = console.summarise_names(finished_names)
        console.say(f"found finished runs, {names}")
    return results


def _prepare(
    command: str, job: RunJob, launch: Launch, again: bool
) -> tuple[RunJob, dict[str, str]]:
    """Check the inputs of a run, and create the inputs that the command can create.

    If the run is finished, or the launch is read-only, nothing is checked or created.

    Returns:
        The job with the versions of its inputs, and the digests of the inputs keyed by
        their names.

    Raises:
        BrainhiveError: if an input is missing or does not fit.
    """
    require_inputs(trackers.list_inputs(job.recipe.run.trackers))
    inputs = list(job.inputs())
    try:
        job, versions = job.pin_versions()
    except MissingData:
        # the error of a listed input says more
        require_inputs(inputs)
        raise
    digests = map_digests(inputs) | versions
    _, path = _locate(command, job.label, job.recipe, again, digests)
    if launch.is_read_only or launch.run_on_main(lambda: RunFolder(path).is_finished):
        return job, digests
    require_inputs(inputs)

    # created inputs are checked as well
    job.check()
    job.prepare(launch)
    new_digests = map_digests(job.inputs()) | versions
    if new_digests != digests:
        job.check()
    return job, new_digests


def _compute(job: RunJob, run: OpenRun) -> Work | None:
    """Compute the stages of a run, and finish it.

    Args:
        job: Work of the run.
        run: Run, which is not finished.

    Returns:
        The work of this call, from which its pace is measured. None if the pace would
        be wrong, because other workers helped or the run was begun before.
    """
    planned_work = None if run.parts else job.count_work()
    if planned_work is not None and not planned_work.count:
        planned_work = None
    was_untouched = run.launch.run_on_main(lambda: is_untouched(run.folder))
    stage_results = [
        compute_stage(run, stage, planned_work) for stage in job.stages(run)
    ]
    has_finished = _finish(job, run, None if stage_results else planned_work)

    # the pace of a stage is preferred, because it excludes all other work
    has_computed_all = was_untouched and has_finished
    for has_computed_stage, stage_work in stage_results:
        if stage_work is not None:
            return stage_work
        has_computed_all = has_computed_all and has_computed_stage
    return planned_work if has_computed_all else None


def compute_stage(
    run: OpenRun, stage: CellStage, planned_work: Work | None
) -> tuple[bool, Work | None]:
    """Compute the cells of a stage that are not finished, shared with other workers.

    Args:
        run: Run.
        stage: Stage with its cells.
        planned_work: Work of the whole run. It is announced if the stage does not count
            its own work.

    Returns:
        True if this launch computed all unfinished cells. The second value is the work
        of the cells that this launch computed from their beginning, or None if the
        stage does not count its work.
    """
    from brainhive_cli.core import weights

    # all processes need the same list, and other workers may finish cells meanwhile
    folder, launch = run.folder, run.launch
    is_finished = stage.is_finished or (
        lambda name: (folder.path / stage.files[name]).is_file()
    )
    unfinished_cells = launch.run_on_main(
        lambda: [name for name in stage.files if not is_finished(name)]
    )
    if not unfinished_cells:
        return True, None

    # each process computes other cells, or all processes share each cell
    computes_alone = stage.sharing == "alone" or (
        stage.sharing == "either" and len(unfinished_cells) >= launch.processes
    )
    worker = launch.single_process if computes_alone else launch
    work, share = planned_work, len(unfinished_cells) / len(stage.files)
    if stage.count_work is not None:
        work, share = stage.count_work(unfinished_cells), 1.0
    if work is not None:
        announce(work, folder.command, folder.path.parents[1], launch, share)

    # the progress bar also counts the cells of other workers
    files = {name: stage.files[name] for name in unfinished_cells}
    computed_cells = list[str]()
    new_cells = list[str]()
    start_s = time.monotonic()
    duration_s = 0.0
    with (
        console.divert_prints(),
        console.progress(stage.title, len(unfinished_cells)) as bar,
        claim_cells(folder, files, worker, stage.is_finished) as claimed_cells,
    ):
        for name in claimed_cells:
            has_checkpoint = folder.checkpoint_path(name).is_file()
            content = stage.compute(name, worker)
            if content is not None:
                save = partial(weights.save_cell, content=content)
                folder.replace(files[name], save)
            computed_cells.append(name)
            if not has_checkpoint:
                new_cells.append(name)
            duration_s = time.monotonic() - start_s
            bar.advance(folder.count_finished(files) - bar.items, name)
        bar.advance(len(unfinished_cells) - bar.items)
    launch.barrier()

    # processes that share each cell all report the same cells
    reports = launch.gather((computed_cells, new_cells, duration_s))
    if not computes_alone:
        reports = reports[:1]
    n_computed = 0
    all_new_cells = list[str]()
    longest_s = 0.0
    for process_cells, process_new_cells, process_duration_s in reports:
        n_computed += len(process_cells)
        all_new_cells += process_new_cells
        longest_s = max(longest_s, process_duration_s)
    new_work = None
    if stage.count_work is not None and all_new_cells:
        new_work = replace(stage.count_work(all_new_cells), seconds=longest_s)
    return n_computed >= len(unfinished_cells), new_work


def _finish(job: RunJob, run: OpenRun, work: Work | None) -> bool:
    """Compute the summary of a run whose cells are finished, and finish the run.

    Args:
        job: Work of the run.
        run: Run.
        work: Work to announce for a run without stages, or None.

    Returns:
        True if this launch finished the run. False if another worker did.
    """
    folder, launch = run.folder, run.launch
    with claim_finish(folder, launch) as may_finish:
        if may_finish and work is not None:
            announce(work, folder.command, folder.path.parents[1], launch)
        summary = None
        if may_finish and job.summarises_together:
            summary = job.summarise(run)
        elif may_finish and launch.is_main:
            summary = job.summarise(replace(run, launch=launch.single_process))
        if summary is not None and launch.is_main:
            artifacts.write(folder, summary.artifacts)
            folder.finish(summary.measurements)
            # a finished run needs no checkpoints
            for path in (folder.path / "checkpoints").glob("*.pt*"):
                path.unlink()
    return may_finish


def start_run(
    command: str,
    label: str,
    recipe: Recipe,
    launch: Launch,
    again: bool = False,
    digests: Mapping[str, str] = MappingProxyType({}),
    finished_names: list[str] | None = None,
) -> RunFolder:
    """Create the folder of a run, or find the folder of an earlier run of the recipe.

    Other workers may work on the same run. They share its cells (see `claim_cells`).

    Args:
        command: Name of the command. The run folder lies in `runs/<command>`.
        label: First part of the name of the run folder. The fingerprint follows it.
        recipe: Resolved recipe.
        launch: Processes that share the run. The main process writes the folder.
        again: True to start a new run even if a finished run exists.
        digests: Digests of the inputs, keyed by their names (see `Input.digest`).
        finished_names: List to which the name of the run is added if it was finished
            before. If it is None, a message is printed instead.

    Raises:
        Unfinished: if the launch is read-only, and the run is not finished.
    """
    # the other processes wait until the main process has opened the folder
    recipe, path = _locate(command, label, recipe, again, digests)
    if launch.is_read_only:
        if not RunFolder(path).is_finished:
            raise Unfinished(f"run {path.name} is not finished")
        return RunFolder(path)
    if not launch.is_main:
        return RunFolder(launch.gather(None)[0])

    # another command may create the same folder first
    while again:
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            _, path = _locate(command, label, recipe, again, digests)

    run = RunFolder(path)
    if not run.is_finished:
        run = _join_run(run, recipe, launch)

    # note that this recipe asked for a finished run
    if run.is_finished:
        if finished_names is None:
            console.say(
                f"found run {path.name}, finished {run.age}; --again starts a new one"
            )
        else:
            finished_names.append(path.name)
        # the run of another user may be read-only
        with suppress(OSError, BrainhiveError):
            recipe_names = set(run.read_found().recipe_names)
            recipe_names.add(recipe.recipe_name)
            run.write_json(
                REUSES_FILE,
                {"recipe_names": sorted(recipe_names), "found": format_current_time()},
            )
    launch.gather(path)
    return run


def _join_run(run: RunFolder, recipe: Recipe, launch: Launch) -> RunFolder:
    """Claim a place among the workers of an unfinished run.

    The first worker also writes the recipe and the environment.

    Args:
        run: Run, whose folder may be new.
        recipe: Resolved recipe.
        launch: Processes that share the run.

    Returns:
        The run with the claim of this worker. The same run without a claim if another
        worker has finished it meanwhile.
    """
    # only one worker at a time may write the recipe and the environment
    path = run.path
    lock = Claim(path / LOCK, f"run {path}", wait=True)
    try:
        n_others = 0
        for claim in list((path / WORKERS_FOLDER).glob(CLAIM_PATTERN)):
            if not is_held(claim):  # its worker was killed, or has just ended
                claim.unlink(missing_ok=True)
            elif not is_held_by_this_process(claim):
                n_others += 1
        if run.is_finished:  # by another worker, before this worker got the lock
            return run

        # the claim is released when the run is no longer used
        number = next(PRESENCE_NUMBERS)
        worker = name_partial_file(path / f"worker-{number}").name.removeprefix(".")
        presence = Claim(path / WORKERS_FOLDER / worker, f"run {path}")
        run = RunFolder(path, presence.release)
        is_new = not (path / "recipe.yaml").is_file()
        if not n_others:
            fields = make_portable(recipe.model_dump(mode="json"))
            run.write_text("recipe.yaml", write_yaml(fields))
            environment = launch.describe_environment()
            environment["started"] = format_current_time()
            run.write_json(ENVIRONMENT_FILE, environment)
        if not is_new:
            others = ""
            if n_others:
                others = f" with {n_others} other worker{'s' if n_others > 1 else ''}"
            console.say(f"continuing run {path.name}{others}")
        return run
    finally:
        lock.release()


def _locate(
    command: str,
    label: str,
    recipe: Recipe,
    again: bool,
    digests: Mapping[str, str],
) -> tuple[Recipe, Path]:
    """Find the folder of a run from its recipe and the digests of its inputs.

    Runs of one recipe are called `name`, `name-2`, `name-3` and so on, without gaps.

    Args:
        command: Name of the command.
        label: First part of the name of the run folder.
        recipe: Resolved recipe.
        again: True to return a new folder even if a run exists.
        digests: Digests of the inputs, keyed by their names.

    Returns:
        The recipe with the digests, and the path of its newest run or of a new run.
    """
    recipe = recipe.model_copy(update={"digests": dict(sorted(digests.items()))})
    base = recipe.paths.under_home("runs") / command
    name = f"{label}-{recipe.fingerprint()}"
    resolve_below(base, name, source="the name of a run,")

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
    """Share cells of a run with other workers (see `share_cells`).

    Args:
        run: Run.
        files: File of each cell in the run folder, keyed by the name of the cell.
        launch: Processes that share each cell.
        is_finished: Function that returns True if the cell of a name is finished. By
            default, a cell is finished if its file exists.

    Yields:
        An iterator over the names of the cells that this worker has claimed.
    """
    # progress is counted from the list of cells in .cells.json, which does not include
    # the cell that writes metrics.json
    listed_files = read_cells(run.path) if launch.is_main else dict(files)
    is_listed = files.items() <= listed_files.items()
    if METRICS_FILE not in files and not is_listed:
        run.write_json(CELLS_FILE, listed_files | dict(files))

    # lines of a dead worker stay in the log, so the log notes the change of workers
    def note(name: str, taken_from: str) -> None:
        if taken_from:
            run.log(cell=name, taken_from=taken_from, by=name_worker())
            console.say(f"{name} is taken over from {taken_from}, which has ended")

    paths = {}
    for name, file in files.items():
        paths[name] = resolve_without_links(run.path, file, "a cell of a run,")
    with share_cells(paths, launch, note, is_finished) as claimed_cells:
        yield claimed_cells


@contextmanager
def claim_finish(run: RunFolder, launch: Launch) -> Iterator[bool]:
    """Claim the right to finish a run, or wait until another worker has finished it.

    Args:
        run: Run.
        launch: Processes that finish the run together. They leave the block together.

    Yields:
        True if this worker must finish the run.
    """
    with claim_cells(run, {METRICS_FILE: METRICS_FILE}, launch) as claimed_cells:
        yield next(claimed_cells, None) is not None
    launch.barrier()


def is_in_use(run: RunFolder) -> bool:
    """Return True if a running process works on a run."""
    return any(map(is_held, (run.path / WORKERS_FOLDER).glob(CLAIM_PATTERN)))


def is_untouched(run: RunFolder) -> bool:
    """Return True if nothing was computed for a run yet."""
    return {path.name for path in run.path.iterdir()} <= INITIAL_FILES


def remove_unused(runs: Path) -> None:
    """Remove the runs in which this process computed nothing.

    A command calls this function when it fails.

    Args:
        runs: Folder of all runs.
    """
    for claim in runs.glob(f"*/*/{WORKERS_FOLDER}/{CLAIM_PATTERN}"):
        folder = RunFolder(claim.parents[1])
        if not is_held_by_this_process(claim) or not is_untouched(folder):
            continue

        # another process may be opening the run at this moment
        lock = Claim(folder.path / LOCK, f"run {folder.path}", wait=True)
        has_others = False
        for other in claim.parent.glob(CLAIM_PATTERN):
            has_others = has_others or (
                is_held(other) and not is_held_by_this_process(other)
            )
        if not has_others:
            remove(folder.path)
            with suppress(OSError):  # the command's folder may hold other runs
                folder.path.parent.rmdir()
        lock.release()
