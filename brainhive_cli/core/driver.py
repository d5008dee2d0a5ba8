"""Driver of runs, which opens a run folder, computes its cells and finishes the run.

A cell is a part of a run that can be computed without the other parts, such as the
model of one subject and one seed. Several workers (commands on this or other machines)
can compute cells of the same run. Before a worker computes a cell, it claims the cell:
it creates a file that tells the other workers to leave the cell out.
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
    IsFinished,
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
"""File of the claim that a worker holds while it writes the recipe and the environment
of a run. Computing cells does not need this claim.
"""
WORKERS_FOLDER = ".workers"
"""Folder in a run folder, with a claim for each process that works on the run."""
CLAIM_PATTERN = "[!.]*"
"""Pattern of the claims in the folder of workers. It excludes hidden files, which other
processes briefly create there to read the clock of the disk.
"""
PRESENCE_NUMBERS = itertools.count(1)
"""Numbers of the claims of this process in folders of workers. Each claim needs a new
number, because the traceback of an error may keep an old claim alive, for example in a
notebook.
"""
INITIAL_FILES = {
    "recipe.yaml",
    ENVIRONMENT_FILE,
    "embeddings.json",
    LOCK,
    WORKERS_FOLDER,
    CELLS_FILE,
}
"""Files that a run folder holds before any of its cells is computed."""


def run(
    command: str,
    job: RunJob,
    launch: Launch,
    force: bool = False,
    finished_names: list[str] | None = None,
) -> Result:
    """Make a run, continue an interrupted run, or read a finished run.

    Args:
        command: Name of the command. The run folder lies in `runs/<command>`.
        job: Job of the command, which computes the cells and describes the results.
        launch: Processes that share the work. Each of them calls this function.
        force: True to start a new run even if a finished run exists.
        finished_names: List to which the name of the run is added if it was finished
            before. If it is None, a message is printed instead.

    Returns:
        Result of the run, with the work of this call.

    Raises:
        BrainhiveError: if an input is missing, or does not fit the recipe. In this
            case, no file is written.
        Unfinished: if the launch is read-only, and the run is not finished.
    """
    with console.progress("opening the inputs of the command"):
        job, digests = _prepare(command, job, launch, force)

    # open the run, and make the runs that it consists of
    folder = start_run(
        command=command,
        label=job.label,
        recipe=job.recipe,
        launch=launch,
        force=force,
        digests=digests,
        finished_names=finished_names,
    )
    open_run = OpenRun(folder, launch)
    open_run = replace(open_run, parts=job.make_parts(open_run, force))

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
        compared_jobs = {}
        for number, compared_job in enumerate(job.compared_jobs):
            compared_jobs[str(number)] = compared_job
        compared_results = run_each(command, compared_jobs, launch)
        open_run = replace(open_run, compared_results=list(compared_results.values()))
        work = _compute(job, open_run)

    # describe the finished run, and record its metrics in the trackers
    result = job.describe(open_run)
    logged_metrics = job.choose_logged_metrics(result.metrics)
    if logged_metrics and launch.is_main:
        event: dict[str, float | None] = {"epoch": 0}
        for scope, metrics in logged_metrics.items():
            for name, metric in metrics.items():
                event[f"{scope}/{name}"] = metric.value
        caveats = result.metrics.caveats
        with open_run.track(job.tracker_name, job.recipe, launch, caveats) as log_event:
            log_event(event)
    return replace(result, work=work)


def is_finished(command: str, job: RunJob) -> bool:
    """Return True if the run of a job is finished, without downloading its inputs."""
    digests = map_digests(job.inputs())
    _, path = _locate(command, job.label, job.recipe, False, digests)
    return RunFolder(path).is_finished


def run_each(
    command: str,
    jobs: Mapping[str, RunJob],
    launch: Launch,
    force: bool = False,
    title: str = "making the runs that this one needs",
) -> dict[str, Result]:
    """Make several runs of a command, one after the other, with a progress bar.

    A run is a folder with the results of a command. If a finished run with the same
    settings and inputs exists, its results are used. A single message at the end names
    all such runs.

    Args:
        command: Name of the command of all runs.
        jobs: Work of each run, keyed by a name for the run.
        launch: Processes that share the work.
        force: True to start new runs even if finished runs exist.
        title: Description of the runs for the progress bar.

    Returns:
        Result of each run, under the same name as in `jobs`.
    """
    # `run` adds the names of runs that were finished before to this list
    finished_names = list[str]()
    results = {}
    with console.progress(title, len(jobs)) as bar:
        for name, job in jobs.items():
            results[name] = run(command, job, launch, force, finished_names)
            bar.advance()
    if finished_names:
        names = console.summarise_names(finished_names)
        console.say(f"found finished runs, {names}")
    return results


def _prepare(
    command: str, job: RunJob, launch: Launch, force: bool
) -> tuple[RunJob, dict[str, str]]:
    """Check the inputs of a run, and create the inputs that the command can create.

    A run is a folder with the results of a command. Its recipe holds the settings. The
    inputs are files such as data sets and weights. If a finished run is used, or if the
    command must not write, the inputs are listed, but not checked and not created.

    Args:
        command: Name of the command.
        job: Work of the command, with its recipe.
        launch: Processes that share the run.
        force: True to start a new run even if a finished run exists.

    Returns:
        A tuple of two values:

        - The job. If an input may change, such as a repository on the hub, the recipe
          of the job now names the current version.
        - The digests and versions of the inputs, keyed by the names of the inputs.

    Raises:
        BrainhiveError: if an input is missing, or does not fit the recipe.
    """
    # list the inputs, and find the current versions of inputs that may change
    require_inputs(trackers.list_inputs(job.recipe.run.trackers))
    inputs = list(job.inputs())
    try:
        job, versions = job.pin_versions()
    except MissingData:
        # prefer the error of the first missing input, because it explains more
        require_inputs(inputs)
        raise

    # find the folder of the run. If the run is finished, its inputs are not read
    digests = map_digests(inputs) | versions
    _, path = _locate(command, job.label, job.recipe, force, digests)
    if launch.is_read_only or launch.run_on_main(lambda: RunFolder(path).is_finished):
        return job, digests
    require_inputs(inputs)

    # check the inputs, and create missing inputs. If the digests have changed, check
    # the created inputs too
    job.check()
    job.prepare(launch)
    new_digests = map_digests(job.inputs()) | versions
    if new_digests != digests:
        job.check()
    return job, new_digests


def _compute(job: RunJob, open_run: OpenRun) -> Work | None:
    """Compute all stages of a run, and finish the run with its summary.

    A run is a folder with the results of a command. A stage is a set of cells, which
    are pieces of work such as the training of a model. Workers (starts of the command,
    perhaps on several machines) may share the cells.

    Args:
        job: Work of the run.
        open_run: Run, which is not finished.

    Returns:
        The work to measure. The caller divides its duration by its number of units, and
        stores this pace for later estimates. None if no pace can be measured. An
        example is a run of which other workers, or an earlier start of the command,
        computed a share.
    """
    # count the units of work. The pace of a run that consists of other runs would
    # include the time of these runs
    planned_work = None if open_run.parts else job.count_work()
    if planned_work is not None and not planned_work.count:
        planned_work = None
    was_untouched = open_run.launch.run_on_main(lambda: is_untouched(open_run.folder))

    # Compute the stages. Each result is a tuple: True if this launch computed all cells
    # of the stage, and the work of the stage or None. The summary is announced as work
    # only if there are no stages.
    stage_results = []
    for stage in job.stages(open_run):
        stage_results.append(compute_stage(open_run, stage, planned_work))
    summary_work = None if stage_results else planned_work
    has_finished = _finish(job, open_run, summary_work)

    # prefer the work of a stage, because its duration excludes the rest of the command
    has_computed_all = was_untouched and has_finished
    for has_computed_stage, stage_work in stage_results:
        if stage_work is not None:
            return stage_work
        has_computed_all = has_computed_all and has_computed_stage
    return planned_work if has_computed_all else None


def compute_stage(
    open_run: OpenRun, stage: CellStage, planned_work: Work | None
) -> tuple[bool, Work | None]:
    """Compute the unfinished cells of a stage, while other workers may do the same.

    A cell is a part of the run with a file of its own, such as the model of one subject
    and one seed. The cells of a stage can be computed in any order.

    Args:
        open_run: Run of the stage, with the processes of this launch.
        stage: Cells, and the function that computes a cell.
        planned_work: Work of the whole run, or None if it is not counted. It is
            announced if the stage does not count its own work.

    Returns:
        True if this launch computed all unfinished cells, without other workers. The
        second value is the work of the cells that this launch computed from their
        beginning, with its duration. It is None if there are no such cells, or if the
        stage does not count its work.
    """
    from brainhive_cli.core import weights

    # the main process lists the unfinished cells for all processes, because their own
    # lists would differ if another worker finished a cell meanwhile
    folder, launch = open_run.folder, open_run.launch
    is_finished = stage.is_finished or (
        lambda name: (folder.path / stage.files[name]).is_file()
    )
    unfinished_cells = launch.run_on_main(
        lambda: [name for name in stage.files if not is_finished(name)]
    )
    if not unfinished_cells:
        return True, None

    # each process computes cells of its own, or all compute each cell together
    computes_alone = stage.sharing == "alone" or (
        stage.sharing == "either" and len(unfinished_cells) >= launch.processes
    )
    worker = launch.single_process if computes_alone else launch

    # announce the work that remains
    work = planned_work
    remaining_share = len(unfinished_cells) / len(stage.files)
    if stage.count_work is not None:
        work = stage.count_work(unfinished_cells)
        remaining_share = 1.0
    if work is not None:
        runs_folder = folder.path.parents[1]
        announce(work, folder.command, runs_folder, launch, remaining_share)

    # compute the cells that this worker can claim, and write their files
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

            # the progress bar also counts the cells of other workers
            bar.advance(folder.count_finished(files) - bar.items, name)
        bar.advance(len(unfinished_cells) - bar.items)
    launch.barrier()

    # add up the reports of all processes, which are the same if they share each cell
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


def _finish(job: RunJob, open_run: OpenRun, work: Work | None) -> bool:
    """Compute the summary of a run, write it into the run folder, and finish the run.

    The summary has the metrics, and the artifacts (plots, pictures and tables on the
    HTML page of the run). It is computed when all cells of the run are finished. A cell
    is a piece of work such as the training of a model. Several starts of the command,
    the workers, may share a run. Only one of them finishes the run.

    Args:
        job: Work of the run.
        open_run: Run whose cells are finished.
        work: Work whose expected duration is printed first, or None to print nothing.

    Returns:
        True if this launch finished the run. False if another worker has finished it.
    """
    folder, launch = open_run.folder, open_run.launch
    # while another worker finishes the run, wait. Then `may_finish` is False
    with claim_finish(folder, launch) as may_finish:
        # print the expected duration. Compute the summary in all processes, if the job
        # can share it among them, or else only in the main process
        if may_finish and work is not None:
            announce(work, folder.command, folder.path.parents[1], launch)
        summary = None
        if may_finish and job.summarises_together:
            summary = job.summarise(open_run)
        elif may_finish and launch.is_main:
            summary = job.summarise(replace(open_run, launch=launch.single_process))

        # write the files, and remove the checkpoints of trainings
        if summary is not None and launch.is_main:
            artifacts.write(folder, summary.artifacts)
            folder.finish(summary.measurements)
            for path in (folder.path / "checkpoints").glob("*.pt*"):
                path.unlink()
    return may_finish


def start_run(
    command: str,
    label: str,
    recipe: Recipe,
    launch: Launch,
    force: bool = False,
    digests: Mapping[str, str] = MappingProxyType({}),
    finished_names: list[str] | None = None,
) -> RunFolder:
    """Create the folder of a run, or find the folder of an earlier run of the recipe.

    Other workers may compute cells of the same run (see `claim_cells`).

    Args:
        command: Name of the command. The run folder lies in `runs/<command>`.
        label: First part of the name of the run folder. The fingerprint of the recipe
            follows it.
        recipe: Settings of the run.
        launch: Processes that share the run. The main process writes the folder.
        force: True to start a new run even if a finished run exists.
        digests: Digests of the inputs, keyed by their names. They are part of the
            fingerprint.
        finished_names: List to which the name of the run is added if it was finished
            before. If it is None, a message is printed instead.

    Returns:
        The folder, in every process.

    Raises:
        Unfinished: if the launch is read-only, and the run is not finished.
    """
    # the other processes wait until the main process has opened the folder
    recipe, path = _locate(command, label, recipe, force, digests)
    if launch.is_read_only:
        if not RunFolder(path).is_finished:
            raise Unfinished(f"run {path.name} is not finished")
        return RunFolder(path)
    if not launch.is_main:
        return RunFolder(launch.gather(None)[0])

    # create a new folder, with another name if another command was faster
    while force:
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            _, path = _locate(command, label, recipe, force, digests)

    folder = RunFolder(path)
    if not folder.is_finished:
        folder = _join_run(folder, recipe, launch)

    # store in a finished run that this recipe has used it again
    if folder.is_finished:
        if finished_names is None:
            age = folder.age
            console.say(
                f"found run {path.name}, finished {age}; --again starts a new one"
            )
        else:
            finished_names.append(path.name)

        # the folder of another user may be read-only
        with suppress(OSError, BrainhiveError):
            recipe_names = set(folder.read_found().recipe_names)
            recipe_names.add(recipe.recipe_name)
            current_time = format_current_time()
            reuses = {"recipe_names": sorted(recipe_names), "found": current_time}
            folder.write_json(REUSES_FILE, reuses)
    launch.gather(path)
    return folder


def _join_run(folder: RunFolder, recipe: Recipe, launch: Launch) -> RunFolder:
    """Add this process to the workers of an unfinished run.

    A worker without other workers also writes the recipe and the environment.

    Args:
        folder: Folder of the run, which need not exist.
        recipe: Settings of the run.
        launch: Processes that share the run.

    Returns:
        The folder with the claim of this worker, which other workers see. If another
        worker has finished the run meanwhile, the folder is returned without a claim.
    """
    # a single worker at a time may write the recipe and the environment
    path = folder.path
    lock = Claim(path / LOCK, f"run {path}", wait=True)
    try:
        # count the other workers, and remove the claims of workers that have ended
        n_others = 0
        for claim in list((path / WORKERS_FOLDER).glob(CLAIM_PATTERN)):
            if not is_held(claim):
                claim.unlink(missing_ok=True)
            elif not is_held_by_this_process(claim):
                n_others += 1
        if folder.is_finished:  # another worker had the lock first
            return folder

        # claim a place among the workers until the returned folder is no longer used
        number = next(PRESENCE_NUMBERS)
        worker = name_partial_file(path / f"worker-{number}").name.removeprefix(".")
        presence = Claim(path / WORKERS_FOLDER / worker, f"run {path}")
        folder = RunFolder(path, presence.release)

        # write the recipe and the environment
        is_new = not (path / "recipe.yaml").is_file()
        if not n_others:
            fields = make_portable(recipe.model_dump(mode="json"))
            folder.write_text("recipe.yaml", write_yaml(fields))
            environment = launch.describe_environment()
            environment["started"] = format_current_time()
            folder.write_json(ENVIRONMENT_FILE, environment)
        if not is_new:
            company = ""
            if n_others:
                company = f" with {n_others} other worker{'s' if n_others > 1 else ''}"
            console.say(f"continuing run {path.name}{company}")
        return folder
    finally:
        lock.release()


def _locate(
    command: str,
    label: str,
    recipe: Recipe,
    force: bool,
    digests: Mapping[str, str],
) -> tuple[Recipe, Path]:
    """Find the folder for the results of a command, a run, without creating the folder.

    The name of the folder consists of the label and a hash. The hash is made from the
    settings (recipe) and the digests of the inputs. If a command is run again with
    equal settings and inputs, its folders are called `name`, `name-2`, `name-3` and so
    on, without gaps.

    Args:
        command: Name of the command.
        label: First part of the name of the run folder.
        recipe: Settings of the run.
        force: True to return a new folder even if a run exists.
        digests: Digests of the inputs, keyed by the names of the inputs.

    Returns:
        A tuple of two values:

        - The recipe, to which the digests are added.
        - The path of the newest run folder. The folder does not exist if there is no
          such run, or if `force` is True.
    """
    # the fingerprint is a hash of the recipe, so add the digests to the recipe
    recipe = recipe.model_copy(update={"digests": dict(sorted(digests.items()))})
    base = recipe.paths.under_home("runs") / command
    name = f"{label}-{recipe.fingerprint()}"
    # raise an error if the label would lead out of the folder, as `../x` does
    resolve_below(base, name, source="the name of a run,")

    # find the number of the newest run. With `force`, take the next number
    number = 1
    while (base / f"{name}-{number + 1}").exists():
        number += 1
    if force and (base / name).exists():
        number += 1
    return recipe, base / (name if number == 1 else f"{name}-{number}")


@contextmanager
def claim_cells(
    folder: RunFolder,
    files: Mapping[str, str],
    launch: Launch,
    is_finished: IsFinished | None = None,
) -> Iterator[Iterator[str]]:
    """Share the cells of a run with other workers, so that no cell is computed twice.

    A cell is a piece of work whose result is a file, such as the training of a model
    for a subject with a seed. A worker is one start of the command. To claim a cell, a
    worker creates a lock file, and other workers then skip the cell.

    Args:
        folder: Folder with the results of the run.
        files: Path of the result file, relative to the run folder, keyed by the name of
            the cell.
        launch: Processes of this worker, which compute each cell together.
        is_finished: Function that takes the name of a cell, and returns True if the
            cell is finished. With None, a cell is finished when its file exists.

    Yields:
        An iterator over the names of the cells that this worker has claimed. It ends
        when all cells are finished, by this worker or by other workers.
    """
    # Add the cells to the file .cells.json, from which other commands count the
    # progress. The last step of a run, which writes metrics.json, is also shared as a
    # cell, but it does not count as progress.
    listed_files = read_cells(folder.path) if launch.is_main else dict(files)
    is_listed = files.items() <= listed_files.items()
    if METRICS_FILE not in files and not is_listed:
        folder.write_json(CELLS_FILE, listed_files | dict(files))

    # The log of the run also has lines that the ended worker wrote about this cell. So
    # add a line about the change of the worker.
    def record_takeover(name: str, ended_worker: str) -> None:
        if ended_worker:
            folder.log(cell=name, taken_from=ended_worker, by=name_worker())
            console.say(f"{name} is taken over from {ended_worker}, which has ended")

    # join the paths, and refuse links, through which files could be written elsewhere.
    # The lock file of a cell lies next to its result file
    paths = {}
    for name, file in files.items():
        paths[name] = resolve_without_links(folder.path, file, "a cell of a run,")
    with share_cells(paths, launch, record_takeover, is_finished) as claimed_cells:
        yield claimed_cells


@contextmanager
def claim_finish(folder: RunFolder, launch: Launch) -> Iterator[bool]:
    """Claim the right to finish a run, or wait until another worker has finished it.

    Args:
        folder: Folder of the run.
        launch: Processes that finish the run together. They leave the `with` block
            together.

    Yields:
        True if this worker must write metrics.json. False if another worker has.
    """
    with claim_cells(folder, {METRICS_FILE: METRICS_FILE}, launch) as claimed_cells:
        yield next(claimed_cells, None) is not None
    launch.barrier()


def is_in_use(folder: RunFolder) -> bool:
    """Return True if a running process works on a run."""
    claims = (folder.path / WORKERS_FOLDER).glob(CLAIM_PATTERN)
    return any(is_held(claim) for claim in claims)


def is_untouched(folder: RunFolder) -> bool:
    """Return True if no cell of a run was computed yet."""
    file_names = {path.name for path in folder.path.iterdir()}
    return file_names <= INITIAL_FILES


def remove_unused(runs: Path) -> None:
    """Remove the empty run folders that this process has left behind.

    A run is a folder with the results of a command. When a command fails, it calls this
    function. A run is removed if this process opened it, no results were computed, and
    no other process works on it.

    Args:
        runs: Folder of all runs.
    """
    # each process that opens a run holds a lock file, the claim, in the run folder
    for claim in runs.glob(f"*/*/{WORKERS_FOLDER}/{CLAIM_PATTERN}"):
        folder = RunFolder(claim.parents[1])
        if not is_held_by_this_process(claim) or not is_untouched(folder):
            continue

        # Wait for the lock that a process holds while it opens the run. Then keep the
        # run if another process holds a claim in the folder.
        lock = Claim(folder.path / LOCK, f"run {folder.path}", wait=True)
        has_others = False
        for worker in claim.parent.glob(CLAIM_PATTERN):
            has_others = has_others or (
                is_held(worker) and not is_held_by_this_process(worker)
            )
        if not has_others:
            remove(folder.path)
            with suppress(OSError):  # the command's folder may hold other runs
                folder.path.parent.rmdir()
        lock.release()
