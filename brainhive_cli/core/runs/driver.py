"""Driver of runs, which opens a run folder, computes its cells and finishes the run.

Cells are parts of a run, such as models of single subjects. Workers are commands,
perhaps on other machines, that share the cells.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from brainhive_cli.core.base import BrainhiveError, MissingData, Unfinished, console
from brainhive_cli.core.files import (
    is_saved,
    make_portable,
    map_digests,
    name_partial_file,
    remove,
    require_inputs,
    resolve_without_links,
    show_value,
)
from brainhive_cli.core.recipes import Recipe, write_yaml
from brainhive_cli.core.runs import artifacts, trackers
from brainhive_cli.core.runs.cells import (
    CELLS_FILE,
    IsFinished,
    announce,
    read_cells,
    share_cells,
)
from brainhive_cli.core.runs.claims import (
    Claim,
    is_held,
    is_held_by_this_process,
    name_worker,
)
from brainhive_cli.core.runs.jobs import CellStage, OpenRun, RunJob
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.core.runs.result import Result
from brainhive_cli.core.runs.run_folder import (
    ENVIRONMENT_FILE,
    LABEL_FILE,
    METRICS_FILE,
    REUSES_FILE,
    RunFolder,
    format_current_time,
)
from brainhive_cli.core.runs.work import Work

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


def run(
    job: RunJob,
    launch: Launch,
    force: bool = False,
    finished_names: list[str] | None = None,
    is_part: bool = False,
) -> Result:
    """Make a run, continue an interrupted run, or read a finished run.

    Args:
        job: Job that computes the cells (such as models), and describes the results.
        launch: Processes that share the work. Each of them calls this function.
        force: True to start a new run even if a finished run exists.
        finished_names: List to add the name of a finished run to, or None to print it.
        is_part: True for a run that another run needs. It does not get the label.

    Returns:
        Result of the run, with the work of this call.

    Raises:
        BrainhiveError: if an input is missing, or does not fit the recipe.
        Unfinished: if the launch is read-only, and the run is not finished.
    """
    job, open_run = _open_run(job, launch, force, finished_names, is_part)
    work = None
    if not launch.run_on_main(lambda: open_run.folder.is_finished):
        open_run = _make_compared_runs(job, open_run)
        work = _compute(job, open_run)
    return _describe(job, open_run, work)


def make_command(resolve_job: Callable[[Any], RunJob]) -> Callable[..., Result]:
    """Make the function `run` of a command, which makes the run of a recipe.

    Args:
        resolve_job: Makes the job of a recipe.
    """

    def run_recipe(recipe: Any, launch: Launch, force: bool = False) -> Result:
        return run(resolve_job(recipe), launch, force)

    return run_recipe


def run_together(
    jobs: Mapping[str, RunJob], launch: Launch, force: bool = False
) -> dict[str, Result]:
    """Make several runs whose cells are computed in one queue.

    No process waits until a run is finished before it begins a cell of the next run.

    Args:
        jobs: Work of each run, keyed by a name for the run.
        launch: Processes that share the work.
        force: True to start new runs even if finished runs exist.

    Returns:
        Result of each run, under the same name as in `jobs`. The first run that was
        computed has the work of all.
    """
    finished_names = list[str]()
    opened = {}
    for name, job in jobs.items():
        opened[name] = _open_run(job, launch, force, finished_names, is_part=True)
    if finished_names:
        names = console.summarise_names(finished_names)
        console.say(f"found finished runs, {names}")

    # all processes need the same list, while other workers may finish runs
    unfinished_names = launch.run_on_main(
        lambda: [
            name for name, (_, run) in opened.items() if not run.folder.is_finished
        ]
    )
    for name in unfinished_names:
        job, open_run = opened[name]
        opened[name] = job, _make_compared_runs(job, open_run)
    unfinished_runs = [opened[name] for name in unfinished_names]

    # the first stages of all runs are one queue, then the second stages, and so on
    work = None
    iterators = [job.stages(open_run) for job, open_run in unfinished_runs]
    for stages in itertools.zip_longest(*iterators):
        queued_stages = []
        for (_, open_run), stage in zip(unfinished_runs, stages, strict=True):
            if stage is not None:
                queued_stages.append((open_run, stage))
        _, stage_work = compute_stages(queued_stages)
        work = work or stage_work
    for job, open_run in unfinished_runs:
        _finish(job, open_run, None)

    results = {}
    for name, (job, open_run) in opened.items():
        is_first = name in unfinished_names[:1]
        results[name] = _describe(job, open_run, work if is_first else None)
    return results


def _open_run(
    job: RunJob,
    launch: Launch,
    force: bool,
    finished_names: list[str] | None,
    is_part: bool,
) -> tuple[RunJob, OpenRun]:
    """Open the folder of a run, and make the runs that are parts of it.

    The arguments are those of `run`. The returned job names the current versions of its
    inputs.
    """
    with console.progress("opening the inputs of the command"):
        job, digests = _prepare(job, launch, force)
    folder = start_run(
        job,
        launch,
        force=force,
        digests=digests,
        finished_names=finished_names,
        label=None if is_part else job.recipe.run.label,
    )
    open_run = OpenRun(folder, launch)
    open_run = replace(open_run, parts=job.make_parts(open_run, force))

    # a finished run that lacks a result is opened again
    if launch.run_on_main(lambda: folder.is_finished and job.is_outdated(open_run)):
        if launch.is_read_only:
            raise Unfinished(f"run {folder.name} lacks a result that can now be added")
        launch.run_on_main((folder.path / METRICS_FILE).unlink)
        folder = start_run(job, launch, digests=digests)
        open_run = replace(open_run, folder=folder)
    return job, open_run


def _make_compared_runs(job: RunJob, open_run: OpenRun) -> OpenRun:
    """Make the runs that a run is compared with, and add their results to it."""
    compared_jobs = {
        str(number): compared_job
        for number, compared_job in enumerate(job.compared_jobs)
    }
    compared_results = run_each(compared_jobs, open_run.launch)
    return replace(open_run, compared_results=list(compared_results.values()))


def _describe(job: RunJob, open_run: OpenRun, work: Work | None) -> Result:
    """Describe a finished run, and record its metrics in the trackers."""
    launch = open_run.launch
    result = job.describe(open_run)
    logged_metrics = job.choose_logged_metrics(result.metrics)
    if logged_metrics and launch.is_main:
        event: dict[str, float | None] = {"epoch": 0}
        for scope, metrics in logged_metrics.items():
            for name, metric in metrics.items():
                event[f"{scope}/{name}"] = metric.value
        caveats = result.metrics.caveats
        path = open_run.folder.path
        with trackers.open_trackers(
            path, job.tracker_name, job.recipe, launch, caveats
        ) as log_event:
            log_event(event)
    return replace(result, work=work, label=open_run.folder.label)


def run_each(
    jobs: Mapping[str, RunJob],
    launch: Launch,
    force: bool = False,
    title: str = "making the runs that this one needs",
) -> dict[str, Result]:
    """Make several runs, one after the other, with a progress bar.

    Args:
        jobs: Work of each run, keyed by a name for the run.
        launch: Processes that share the work.
        force: True to start new runs even if finished runs exist.
        title: Label of the progress bar.

    Returns:
        Result of each run, under the same name as in `jobs`.
    """
    finished_names = list[str]()
    results = {}
    with console.progress(title, len(jobs)) as bar:
        for name, job in jobs.items():
            results[name] = run(job, launch, force, finished_names, is_part=True)
            bar.advance()
    if finished_names:
        names = console.summarise_names(finished_names)
        console.say(f"found finished runs, {names}")
    return results


def _prepare(job: RunJob, launch: Launch, force: bool) -> tuple[RunJob, dict[str, str]]:
    """Check the inputs of a run, and create the inputs that the command can create.

    The inputs of a finished run or a read-only launch are neither checked nor created.

    Returns:
        The job, with the current versions of its inputs in its recipe, and the digests
        and versions of the inputs by name.
    """
    require_inputs(trackers.list_inputs(job.recipe.run.trackers))
    inputs = list(job.inputs())
    try:
        job, versions = job.pin_versions()
    except MissingData:
        # the error of a missing input explains more
        require_inputs(inputs)
        raise

    digests = map_digests(inputs) | versions
    _, path = job.locate(digests, force)
    if launch.is_read_only or launch.run_on_main(lambda: RunFolder(path).is_finished):
        return job, digests
    require_inputs(inputs)

    # check the inputs, create missing inputs, and check these too
    job.check()
    job.prepare(launch)
    new_digests = map_digests(job.inputs()) | versions
    if new_digests != digests:
        job.check()
    return job, new_digests


def _compute(job: RunJob, open_run: OpenRun) -> Work | None:
    """Compute all stages (sets of cells) of a run, and finish the run with its summary.

    Returns:
        Work that this call has computed as a whole, to measure its pace, or None. Work
        of a stage has a duration.
    """
    # the pace of a run with parts would include the time of the parts
    planned_work = None if open_run.parts else job.count_work()
    if planned_work is not None and not planned_work.count:
        planned_work = None
    was_untouched = open_run.launch.run_on_main(lambda: is_untouched(open_run.folder))

    # compute the stages, and announce the summary as work only without stages
    stage_results = [
        compute_stages([(open_run, stage)], planned_work)
        for stage in job.stages(open_run)
    ]
    summary_work = None if stage_results else planned_work
    has_finished = _finish(job, open_run, summary_work)

    # prefer the work of a stage, because its duration excludes the rest of the command
    for _, stage_work in stage_results:
        if stage_work is not None:
            return stage_work
    has_computed_stages = all(has_computed for has_computed, _ in stage_results)
    has_computed_run = was_untouched and has_computed_stages and has_finished
    return planned_work if has_computed_run else None


@dataclass(frozen=True)
class _QueuedCell:
    """Cell in the queue of one or more runs."""

    run: OpenRun
    stage: CellStage
    name: str

    @property
    def file(self) -> str:
        """Path of the file that marks the cell as finished, in the run folder."""
        return self.stage.files[self.name]

    @property
    def is_finished(self) -> bool:
        """True if the cell is finished, by any worker."""
        if self.stage.is_finished is not None:
            return self.stage.is_finished(self.name)
        return is_saved(self.run.folder.path / self.file)


def compute_stages(
    stages: Sequence[tuple[OpenRun, CellStage]], planned_work: Work | None = None
) -> tuple[bool, Work | None]:
    """Compute the unfinished cells of some stages, together with other workers.

    Args:
        stages: Stages of different runs, each with its run. Their cells (such as one
            subject's model) are one queue.
        planned_work: Work to announce if the stages do not count their own, or None.

    Returns:
        True if this launch computed all unfinished cells, and the work of the cells
        that it computed without a checkpoint, with its duration. The work is None
        without such cells, or if the stages do not count work of the same kind.
    """
    from brainhive_cli.core.runs import weights

    first_run, first_stage = stages[0]
    launch = first_run.launch
    cells = {}
    for run, stage in stages:
        # the cells of different runs may have the same name
        prefix = f"{run.folder.name}/" if len(stages) > 1 else ""
        for name in stage.files:
            cells[f"{prefix}{name}"] = _QueuedCell(run, stage, name)

    # all processes need the same list, while other workers may finish cells
    unfinished_names = launch.run_on_main(
        lambda: [name for name, cell in cells.items() if not cell.is_finished]
    )
    if not unfinished_names:
        return True, None
    unfinished_cells = {name: cells[name] for name in unfinished_names}

    # each process computes its own cells, or all compute each cell together
    computes_alone = first_stage.sharing == "alone" or (
        first_stage.sharing == "either" and len(unfinished_cells) >= launch.processes
    )
    cell_launch = launch.single_process if computes_alone else launch

    work = planned_work
    remaining_share = len(unfinished_cells) / len(cells)
    if first_stage.count_work is not None:
        work = _count_work(unfinished_cells.values())
        remaining_share = 1.0
    if work is not None:
        folder = first_run.folder
        runs_folder = folder.path.parents[1]
        announce(work, folder.command, runs_folder, launch, remaining_share)

    # compute the cells that this command can claim
    computed_names = list[str]()
    new_names = list[str]()
    start_s = time.monotonic()
    duration_s = 0.0
    with (
        console.divert_prints(),
        console.progress(first_stage.title, len(unfinished_cells)) as bar,
        _claim_queue(unfinished_cells, cell_launch) as claimed_names,
    ):
        for name in claimed_names:
            cell = unfinished_cells[name]
            folder = cell.run.folder
            has_checkpoint = folder.checkpoint_path(cell.name).is_file()
            content = cell.stage.compute(cell.name, cell_launch)
            if content is not None:
                save = partial(weights.save_cell, content=content)
                folder.replace(cell.file, save)
            computed_names.append(name)
            if not has_checkpoint:
                new_names.append(name)
            duration_s = time.monotonic() - start_s

            # the progress bar also counts the cells of other workers
            n_finished = 0
            for other_cell in unfinished_cells.values():
                path = other_cell.run.folder.path / other_cell.file
                n_finished += path.is_file()
            bar.advance(n_finished - bar.items, name)
        bar.advance(len(unfinished_cells) - bar.items)
    launch.barrier()

    # add up the reports, which are equal if the processes share each cell
    reports = launch.gather((computed_names, new_names, duration_s))
    if not computes_alone:
        reports = reports[:1]
    n_computed = 0
    new_cells = list[_QueuedCell]()
    longest_s = 0.0
    for process_names, process_new_names, process_duration_s in reports:
        n_computed += len(process_names)
        new_cells += [unfinished_cells[name] for name in process_new_names]
        longest_s = max(longest_s, process_duration_s)
    new_work = _count_work(new_cells)
    if new_work is not None:
        new_work = replace(new_work, seconds=longest_s)
    return n_computed >= len(unfinished_cells), new_work


def _count_work(cells: Iterable[_QueuedCell]) -> Work | None:
    """Count the work of cells of some runs.

    Returns:
        The work. None without cells, if a stage does not count its work, or if the
        stages have different kinds of work, which take different times.
    """
    names_by_run: dict[Path, list[str]] = {}
    stages = {}
    for cell in cells:
        path = cell.run.folder.path
        stages[path] = cell.stage
        names_by_run.setdefault(path, []).append(cell.name)

    total: Work | None = None
    for path, names in names_by_run.items():
        count_work = stages[path].count_work
        if count_work is None:
            return None
        work = count_work(names)
        if total is None:
            total = work
        elif work.kind != total.kind:
            return None
        else:
            total = replace(
                total, count=total.count + work.count, cells=total.cells + work.cells
            )
    return total


def _finish(job: RunJob, open_run: OpenRun, work: Work | None) -> bool:
    """Compute the summary of a run, write it into the run folder, and finish the run.

    Args:
        open_run: Run whose cells are finished.
        work: Work whose expected duration is printed first, or None.

    Returns:
        True if this launch finished the run, False if another worker has.
    """
    folder, launch = open_run.folder, open_run.launch
    with claim_finish(folder, launch) as may_finish:
        if not may_finish:
            return False
        if work is not None:
            announce(work, folder.command, folder.path.parents[1], launch)
        if job.summarises_together:
            summary = job.summarise(open_run)
        elif launch.is_main:
            summary = job.summarise(replace(open_run, launch=launch.single_process))

        # write the files, and remove the checkpoints of trainings
        if launch.is_main:
            artifacts.write(folder, summary.artifacts)
            folder.finish(summary.measurements)
            for path in (folder.path / "checkpoints").glob("*.pt*"):
                path.unlink()
    return True


def start_run(
    job: RunJob,
    launch: Launch,
    force: bool = False,
    digests: Mapping[str, str] = MappingProxyType({}),
    finished_names: list[str] | None = None,
    label: str | None = None,
) -> RunFolder:
    """Create the folder of a run, or find the folder of an earlier run of the job.

    Args:
        job: Work of the run.
        launch: Processes that share the run. The main process writes the folder.
        force: True to start a new run even if a finished run exists.
        digests: Digests of the inputs by name, as a part of the fingerprint.
        finished_names: List to add the name of a finished run to, or None to print it.
        label: New label of the run. "" removes the label, and None keeps it.

    Returns:
        The folder, in every process.

    Raises:
        Unfinished: if the launch is read-only, and the run is not finished.
    """
    recipe, path = job.locate(digests, force)
    if launch.is_read_only:
        if not RunFolder(path).is_finished:
            raise Unfinished(f"run {path.name} is not finished")
        return RunFolder(path)
    if not launch.is_main:  # wait for the path from the main process
        return RunFolder(launch.gather(None)[0])

    # create a new folder, with another name if another command was faster
    while force:
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            _, path = job.locate(digests, force)

    folder = RunFolder(path)
    if not folder.is_finished:
        folder = _join_run(folder, recipe, launch)

    if folder.is_finished:
        if finished_names is None:
            console.say(
                f"found run {folder.title}, finished {folder.age}; "
                "--again starts a new one"
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
    if label is not None:
        _change_label(folder, label)
    launch.gather(path)
    return folder


def _change_label(folder: RunFolder, label: str) -> None:
    """Set the label of a run. Print the old and the new label if they differ."""
    old_label = folder.label
    if label == old_label:
        return
    try:
        folder.set_label(label)
    except OSError:
        console.warn(f"run {folder.name} keeps its label, because it is read-only")
        return
    if old_label:
        new_text = show_value(label) if label else "nothing"
        console.say(f"label changed from {show_value(old_label)} to {new_text}")


def _join_run(folder: RunFolder, recipe: Recipe, launch: Launch) -> RunFolder:
    """Add this process to the workers of an unfinished run.

    Without other workers, the recipe and the environment are written too.

    Args:
        folder: Folder of the run, which need not exist.

    Returns:
        The folder, with a claim unless another worker has finished the run meanwhile.
    """
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

        # hold a claim until the returned folder is no longer used
        number = next(PRESENCE_NUMBERS)
        hidden_name = name_partial_file(path / f"worker-{number}").name
        claim_path = path / WORKERS_FOLDER / hidden_name.removeprefix(".")
        presence = Claim(claim_path, f"run {path}")
        folder = RunFolder(path, presence.release)

        is_new = not (path / "recipe.yaml").is_file()
        if not n_others:
            # the label has its own file, because it may change later
            fields = make_portable(
                recipe.model_dump(mode="json", exclude={"run": {"label"}})
            )
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


@contextmanager
def claim_cells(
    folder: RunFolder,
    files: Mapping[str, str],
    launch: Launch,
    is_finished: IsFinished | None = None,
) -> Iterator[Iterator[str]]:
    """Share the cells of a run with other commands, so that no cell is computed twice.

    Args:
        folder: Folder of the run.
        files: Path of the result of each cell (such as one subject's model), below the
            run folder, by name.
        launch: Processes of this command, which compute each cell together.
        is_finished: Function that returns True for the name of a finished cell. With
            None, a cell is finished when its file exists.

    Yields:
        An iterator over the cells that this command has claimed. It ends when all cells
        are finished, by this command or by others.
    """
    run = OpenRun(folder, launch)
    stage = CellStage("", files, lambda name, launch: None, is_finished=is_finished)
    cells = {name: _QueuedCell(run, stage, name) for name in files}
    with _claim_queue(cells, launch) as claimed_cells:
        yield claimed_cells


@contextmanager
def _claim_queue(
    cells: Mapping[str, _QueuedCell], launch: Launch
) -> Iterator[Iterator[str]]:
    """Share the cells of several runs with other commands, as `claim_cells` does.

    Args:
        cells: Cells by their names in the queue.
        launch: Processes of this command, which compute each cell together.

    Raises:
        BrainhiveError: if a file is behind a link, so that it would be written
            elsewhere.
    """
    # list the cells of each run in its folder, to count the progress
    paths = {}
    files_by_run: dict[Path, dict[str, str]] = {}
    for name, cell in cells.items():
        root = cell.run.folder.path
        paths[name] = resolve_without_links(root, cell.file, "a cell of a run,")
        if cell.file != METRICS_FILE:
            files_by_run.setdefault(root, {})[cell.name] = cell.file
    if launch.is_main:
        for root, files in files_by_run.items():
            listed_files = read_cells(root)
            if not files.items() <= listed_files.items():
                RunFolder(root).write_json(CELLS_FILE, listed_files | files)

    def record_takeover(name: str, ended_worker: str) -> None:
        if ended_worker:
            cell = cells[name]
            cell.run.folder.log(
                cell=cell.name, taken_from=ended_worker, by=name_worker()
            )
            console.say(
                f"{cell.name} is taken over from {ended_worker}, which has ended"
            )

    with share_cells(
        paths, launch, record_takeover, lambda name: cells[name].is_finished
    ) as claimed_names:
        yield claimed_names


@contextmanager
def claim_finish(folder: RunFolder, launch: Launch) -> Iterator[bool]:
    """Claim the right to finish a run, or wait until another worker has finished it.

    Args:
        folder: Folder of the run.
        launch: Processes that finish the run together.

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
    # Files that a run folder holds before any of its cells is computed.
    initial_files = {
        "recipe.yaml",
        ENVIRONMENT_FILE,
        "embeddings.json",
        LOCK,
        WORKERS_FOLDER,
        CELLS_FILE,
        LABEL_FILE,
    }
    return file_names <= initial_files


def remove_unused(runs: Path) -> None:
    """Remove the run folders that this process has opened, but that hold no results.

    Folders in which other processes work are kept.

    Args:
        runs: Folder of all runs.
    """
    for claim in runs.glob(f"*/*/{WORKERS_FOLDER}/{CLAIM_PATTERN}"):
        folder = RunFolder(claim.parents[1])
        if not is_held_by_this_process(claim) or not is_untouched(folder):
            continue

        # a process holds this lock while it opens the run
        lock = Claim(folder.path / LOCK, f"run {folder.path}", wait=True)
        other_claims = [
            other
            for other in claim.parent.glob(CLAIM_PATTERN)
            if is_held(other) and not is_held_by_this_process(other)
        ]
        if not other_claims:
            remove(folder.path)
            with suppress(OSError):  # the command's folder may hold other runs
                folder.path.parent.rmdir()
        lock.release()
