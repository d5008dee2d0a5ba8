"""Jobs: descriptions of the work of commands before it begins.

A job that makes a run has stages. A stage is a set of cells that can be computed in any
order. A cell is a part of the run with its own file, such as a trained model.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from brainhive_cli.core.base import BrainhiveError, Line, MissingData, Table
from brainhive_cli.core.files import Input, collect_inputs, map_digests, resolve_below
from brainhive_cli.core.results import Measurements, Metric
from brainhive_cli.core.runs import artifacts, trackers
from brainhive_cli.core.runs.artifacts import Artifact
from brainhive_cli.core.runs.cells import IsFinished
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.core.runs.result import Result
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.core.runs.work import Work


class Job:
    """Work of a command.

    Attributes:
        recipe: Settings of the command.
    """

    recipe: Any

    def inputs(self) -> Iterable[Input]:
        """List the inputs that the command reads, with errors for missing inputs."""
        return ()

    def check(self) -> None:
        """Open the inputs without writing anything.

        Raises:
            BrainhiveError: if an input does not fit the recipe.
        """

    def preview(self) -> Sequence[Table]:
        """Describe the planned work of the command in tables, for `--check`."""
        return ()

    def count_work(self) -> Work | None:
        """Count the units of work, or return None if the command has no such units."""
        return None

    def list_inputs(self) -> list[Input]:
        """List the inputs of the command and its experiment trackers.

        An error of `check` is listed as a missing input.
        """
        return collect_inputs(
            partial(trackers.list_inputs, self.recipe.run.trackers),
            self.inputs,
            checks=[self.check],
        )


@dataclass(frozen=True)
class FunctionJob(Job):
    """Work of a command that functions of its module describe.

    Attributes:
        recipe: Settings of the command.
        find_inputs: Function that lists the inputs of a recipe.
        make_preview: Function that describes the planned work of a recipe in tables.
    """

    recipe: Any
    find_inputs: Callable[[Any], Iterable[Input]]
    make_preview: Callable[[Any], Sequence[Table]] = lambda recipe: ()

    def inputs(self) -> Iterable[Input]:
        """List the inputs, or only the input that is missing."""
        try:
            return self.find_inputs(self.recipe)
        except MissingData as error:
            return [Input(error.message, error=error)]

    def preview(self) -> Sequence[Table]:
        """Describe the planned work in tables, for `--check`."""
        return self.make_preview(self.recipe)

    def list_inputs(self) -> list[Input]:
        """List the inputs that the command reads, without trackers.

        Raises:
            RecipeError: if the recipe is not valid.
        """
        return list(self.inputs())


@dataclass(frozen=True)
class UnresolvedJob(Job):
    """Work that is unknown because of an error.

    Attributes:
        recipe: Settings of the command.
        error: The error, such as a missing input.
        list_known_inputs: Function that lists the inputs that the recipe names.
    """

    recipe: Any
    error: BrainhiveError
    list_known_inputs: Callable[[], Iterable[Input]] = lambda: ()

    def count_work(self) -> Work | None:
        """Raise the error, because the amount of work is unknown."""
        raise self.error

    def list_inputs(self) -> list[Input]:
        """List the trackers, the error as an input, and inputs in the recipe."""
        error_input = Input(self.error.message, error=self.error)
        return collect_inputs(
            partial(trackers.list_inputs, self.recipe.run.trackers),
            lambda: [error_input],
            self.list_known_inputs,
        )


LoggedMetrics = Mapping[str, Mapping[str, Metric]]
"""Metrics for trackers, keyed by scope (such as "all" subjects) and by name."""


@dataclass(frozen=True)
class CellStage:
    """Cells of a run that can be computed in any order, by several workers.

    Attributes:
        title: Description of the work, shown with the progress.
        files: Path of the file of each cell in the run folder, by name of the cell.
        compute: Function of the name of a cell and of the processes that share it. It
            returns the value for the file, or None if it has written the file.
        sharing: "alone" if each process computes cells of its own, "together" if all
            compute each cell, "either" for "together" with fewer cells than processes.
        is_finished: Function that returns True if the cell of a name is finished. If
            None, a cell is finished when its file exists.
        count_work: Function that counts the work of the named cells. None if the time
            of a cell depends on more than this work.
    """

    title: str
    files: Mapping[str, str]
    compute: Callable[[str, Launch], Any]
    sharing: Literal["alone", "together", "either"] = "alone"
    is_finished: IsFinished | None = None
    count_work: Callable[[Sequence[str]], Work] | None = None


@dataclass(frozen=True)
class Summary:
    """Results that a run stores when it is finished.

    Attributes:
        measurements: Metrics of the run, and facts (other values) about their data.
        artifacts: Further files that people read, such as figures.
    """

    measurements: Measurements
    artifacts: Sequence[Artifact] = ()


@dataclass(frozen=True)
class OpenRun:
    """A run whose folder is open.

    Attributes:
        folder: Folder of the run.
        launch: Processes that compute the run.
        parts: Results of the runs inside this run, such as the steps of a
            workflow, by name.
        compared_results: Results of the runs that this run is compared with.
    """

    folder: RunFolder
    launch: Launch
    parts: Mapping[str, Any] = field(default_factory=dict)
    compared_results: Sequence[Result] = ()


class RunJob(Job):
    """Work of a command that writes a run folder.

    The driver calls `inputs`, `check`, `prepare`, `stages`, `summarise` and `describe`,
    for a finished run only `inputs` and `describe`.

    Attributes:
        command: Name of the command. The run folder lies in `runs/<command>`.
        summarises_together: True if all processes call `summarise`, not only
            the main process.
        tracker_name: Name under which trackers show the metrics of a finished run.
        result_folders: Folders of the run that are shown with its results.
    """

    command: str
    summarises_together: ClassVar[bool] = False
    tracker_name: ClassVar[str] = ""
    result_folders: ClassVar[Sequence[str]] = ()

    @property
    def short_name(self) -> str:
        """First part of the name of the run folder, before the fingerprint."""
        raise NotImplementedError

    @property
    def is_finished(self) -> bool:
        """True if the run is finished. Its inputs are not downloaded."""
        _, path = self.locate(map_digests(self.inputs()))
        return RunFolder(path).is_finished

    def locate(
        self, digests: Mapping[str, str], force: bool = False
    ) -> tuple[Any, Path]:
        """Find the folder of the run, without creating it.

        The folders of repeated runs are called `name`, `name-2`, `name-3` and so on.

        Args:
            digests: Digests of the inputs by name.
            force: True for a new folder even if a run exists.

        Returns:
            The recipe with the digests, and the path of the newest folder, or of a new
            folder if there is none or `force` is True.
        """
        # the fingerprint is a hash of the recipe with the digests
        digests = dict(sorted(digests.items()))
        recipe = self.recipe.model_copy(update={"digests": digests})
        base = recipe.paths.under_home("runs") / self.command
        name = f"{self.short_name}-{recipe.fingerprint()}"
        # refuse a name such as `../x`
        resolve_below(base, name, source="the name of a run,")

        # find the number of the newest run. With `force`, take the next number
        number = 1
        while (base / f"{name}-{number + 1}").exists():
            number += 1
        if force and (base / name).exists():
            number += 1
        return recipe, base / (name if number == 1 else f"{name}-{number}")

    @property
    def compared_jobs(self) -> Sequence["RunJob"]:
        """Jobs of the runs that this run is compared with."""
        return ()

    def pin_versions(self) -> tuple["RunJob", dict[str, str]]:
        """Find the current versions of inputs whose content may change.

        Returns:
            The job with these versions in its recipe, and the versions by name
            of the input.
        """
        return self, {}

    def prepare(self, launch: Launch) -> None:
        """Create the missing inputs that the command can create itself."""

    def make_parts(self, run: OpenRun, force: bool) -> Mapping[str, Any]:
        """Make the runs that this run consists of, such as the steps of a workflow.

        Args:
            run: This run, whose folder was just opened.
            force: True to make new runs even if finished runs exist.

        Returns:
            Results of the runs, keyed by their names.
        """
        return {}

    def is_outdated(self, run: OpenRun) -> bool:
        """Return True if a finished run lacks a result that can be computed now."""
        return False

    def stages(self, run: OpenRun) -> Iterator[CellStage]:
        """Yield the stages, and keep the data of only a single stage in memory."""
        yield from ()

    def summarise(self, run: OpenRun) -> Summary:
        """Compute the metrics of the run from its finished cells."""
        raise NotImplementedError

    def describe(self, run: OpenRun) -> Result:
        """Describe a finished run by its tables, its files and the next command."""
        path = run.folder.path
        files = {}
        for name in self.result_folders:
            if (path / name).is_dir():
                files[name] = path / name
        tables = artifacts.read_tables(run.folder)
        hint = Line("report", path)
        return Result(path, tables, run.folder.measurements(), files, hint)

    def list_inputs(self) -> list[Input]:
        """List the inputs of this run and of the runs that it is compared with."""
        other_sources = [partial(Job.list_inputs, job) for job in self.compared_jobs]
        return collect_inputs(super().list_inputs, *other_sources)

    def choose_logged_metrics(self, measurements: Measurements) -> LoggedMetrics:
        """Choose the metrics of a finished run that trackers record."""
        return {}


def resolve(module: Any, recipe: Any) -> Job:
    """Make a job from a recipe. A job lists its inputs and its amount of work.

    Args:
        module: Module of the command, with a function `resolve_job` that makes the job,
            or a function `inputs` that lists the inputs of a recipe.
        recipe: Settings of the command.

    Returns:
        The job. If `resolve_job` raises a BrainhiveError, an `UnresolvedJob` with it.
    """
    if not hasattr(module, "resolve_job"):
        return FunctionJob(recipe, module.inputs)
    try:
        job: Job = module.resolve_job(recipe)
    except BrainhiveError as error:
        return UnresolvedJob(recipe, error)
    return job


def list_inputs(module: Any, recipe: Any) -> list[Input]:
    """List the inputs of a command, from its module and its settings."""
    return resolve(module, recipe).list_inputs()


def key_work(command: str, job: Job) -> tuple[Work | None, str]:
    """Count the work of a command, and make the key of its pace (time per unit).

    Args:
        command: Name of the command.
        job: Inputs and work of the command.

    Returns:
        The amount of work and the key, or `(None, "")` if the work is not counted.
    """
    work = job.count_work()
    if not work:
        return None, ""
    from brainhive_cli.core.runs import launch

    run_options = job.recipe.run
    device = launch.start(run_options).device_name
    return work, work.key(command, device, launch.count_processes(run_options))
