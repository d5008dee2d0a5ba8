"""Work of commands, described before it begins.

A job is the work of one command. A job can list and check the inputs of the command,
and count its units of work, such as epochs. A job that makes a run folder also has
stages. A stage is a set of cells that can be computed in any order. A cell is a part of
the run that has a file of its own, such as the model of one subject and one seed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from brainhive_cli.core import trackers
from brainhive_cli.core.artifacts import Artifact
from brainhive_cli.core.cells import IsFinished
from brainhive_cli.core.command import Input, Result, Work, collect_inputs
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements, Metric
from brainhive_cli.core.recipe import Recipe
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Table


class Job:
    """Work of a command.

    Attributes:
        recipe: Settings of the command.
    """

    recipe: Any

    def inputs(self) -> Iterable[Input]:
        """List the inputs that the command reads, and find out which are missing."""
        return ()

    def check(self) -> None:
        """Open the inputs, and raise an error if they do not fit. Nothing is written.

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

        An error that `check` raises is listed as an input that is missing.
        """
        return collect_inputs(
            partial(trackers.list_inputs, self.recipe.run.trackers),
            self.inputs,
            checks=[self.check],
        )


@dataclass(frozen=True)
class FunctionJob(Job):
    """Work of a command whose module describes it with functions of the recipe.

    Attributes:
        recipe: Settings of the command.
        find_inputs: Function that lists the inputs of a recipe.
        make_preview: Function that describes the planned work of a recipe in tables. By
            default, there are no tables.
    """

    recipe: Any
    find_inputs: Callable[[Any], Iterable[Input]]
    make_preview: Callable[[Any], Sequence[Table]] = lambda recipe: ()

    def inputs(self) -> Iterable[Input]:
        """List the inputs that the command reads."""
        try:
            return self.find_inputs(self.recipe)
        except MissingData as error:
            # the other inputs are unknown until this input exists
            return [Input(error.message, error=error)]

    def preview(self) -> Sequence[Table]:
        """Describe the planned work of the command in tables, for `--check`."""
        return self.make_preview(self.recipe)

    def list_inputs(self) -> list[Input]:
        """List the inputs that the command reads, without trackers.

        Raises:
            RecipeError: if the recipe is not valid.
        """
        return list(self.inputs())


@dataclass(frozen=True)
class UnresolvedJob(Job):
    """Work that is unknown because an input is missing.

    Attributes:
        recipe: Settings of the command.
        error: Error about the missing input.
        list_known_inputs: Function that lists the inputs that the recipe alone tells.
            By default, there are none.
    """

    recipe: Any
    error: BrainhiveError
    list_known_inputs: Callable[[], Iterable[Input]] = lambda: ()

    def count_work(self) -> Work | None:
        """Raise the error about the missing input, because the work is unknown."""
        raise self.error

    def list_inputs(self) -> list[Input]:
        """List the trackers, the missing input, and the inputs that are known."""
        missing_input = Input(self.error.message, error=self.error)
        return collect_inputs(
            partial(trackers.list_inputs, self.recipe.run.trackers),
            lambda: [missing_input],
            self.list_known_inputs,
        )


LoggedMetrics = Mapping[str, Mapping[str, Metric]]
"""Metrics for trackers, keyed by scope (the subjects or cells of a metric, such as
"all") and by name.
"""


@dataclass(frozen=True)
class CellStage:
    """Cells of a run that can be computed in any order, by several workers.

    Attributes:
        title: Description of the work, shown with the progress.
        files: Path of the file of each cell in the run folder, keyed by the name of
            the cell.
        compute: Function that computes a cell from the name of the cell and the
            processes that share the cell. The driver writes the returned value to the
            file of the cell with `weights.save_cell`. The function returns None if it
            has written the file itself.
        sharing: Way in which the processes share the cells.

            - "alone": each process computes cells of its own.
            - "together": all processes compute each cell together.
            - "either": "together" if there are fewer cells than processes, otherwise
              "alone".
        is_finished: Function that returns True if the cell of a name is finished. If
            it is None, a cell is finished when its file exists.
        count_work: Function that counts the work of the cells of the passed names. It
            is None if the time of a cell depends on more than this work.
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
        measurements: Metrics of the run, and facts about their data.
        artifacts: Further files that people read, such as figures.
    """

    measurements: Measurements
    artifacts: Sequence[Artifact] = ()


@dataclass(frozen=True)
class OpenRun:
    """A run that the driver has opened.

    Attributes:
        folder: Folder of the run.
        launch: Processes that compute the run.
        parts: Results of the runs that this run consists of, such as the variants of a
            sweep, keyed by the names of these runs.
        compared_results: Results of the runs that this run is compared with.
    """

    folder: RunFolder
    launch: Launch
    parts: Mapping[str, Any] = field(default_factory=dict)
    compared_results: Sequence[Result] = ()

    @contextmanager
    def track(
        self,
        cell: str,
        recipe: Recipe,
        launch: Launch,
        caveats: Sequence[str] = (),
        clock: str = "epoch",
    ) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """Record the curves of a cell in the experiment trackers of the recipe.

        A cell is a part of a run that can be computed alone, such as a trained model.

        Args:
            cell: Name of the cell.
            recipe: Settings of the cell, with the names of the trackers.
            launch: Processes that share the cell. Only the main process records.
            caveats: Limits of the numbers, such as "selected on test", for the title.
            clock: Key of the event's time, the x-axis of the curves, such as "epoch".

        Yields:
            A function that records an event, a mapping from names of curves to values
            at one time.
        """
        with trackers.open_trackers(
            names=recipe.run.trackers if launch.is_main else (),
            run_folder=self.folder.path,
            cell=cell,
            settings=recipe.model_dump(mode="json"),
            caveats=caveats,
            clock=clock,
        ) as log_event:
            yield log_event


class RunJob(Job):
    """Work of a command that writes a run folder.

    The driver first calls `inputs`. If the run is not finished, it then calls `check`,
    `prepare`, `stages` and `summarise`. It calls `describe` in any case.

    Attributes:
        summarises_together: True if all processes take part in `summarise`.
        tracker_name: Name under which trackers show the metrics of a finished run.
    """

    summarises_together: ClassVar[bool] = False
    tracker_name: ClassVar[str] = ""

    @property
    def label(self) -> str:
        """First part of the name of the run folder. The fingerprint follows it."""
        raise NotImplementedError

    @property
    def compared_jobs(self) -> Sequence["RunJob"]:
        """Jobs of the runs that this run is compared with."""
        return ()

    def pin_versions(self) -> tuple["RunJob", dict[str, str]]:
        """Find the current version of each input whose content may change.

        An example is a repository on the hub that the recipe names without a revision.

        Returns:
            The job with these versions in its recipe, and the versions keyed by the
            names of the inputs.
        """
        return self, {}

    def prepare(self, launch: Launch) -> None:
        """Create the missing inputs that the command can create itself."""

    def make_parts(self, run: OpenRun, force: bool) -> Mapping[str, Any]:
        """Make the runs that this run consists of, such as the variants of a sweep.

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
        """Yield the stages of the computation, one after the other.

        The job loads the data of a stage before it yields the stage, and frees the data
        when the driver asks for the next stage.
        """
        yield from ()

    def summarise(self, run: OpenRun) -> Summary:
        """Compute the metrics of the run from its finished cells.

        All processes call this method if `summarises_together` is True. Otherwise only
        the main process calls this method.
        """
        raise NotImplementedError

    def describe(self, run: OpenRun) -> Result:
        """Describe a finished run by its tables, its files and the next command."""
        raise NotImplementedError

    def list_inputs(self) -> list[Input]:
        """List the inputs of this run and of the runs that it is compared with."""
        other_sources = [partial(Job.list_inputs, job) for job in self.compared_jobs]
        return collect_inputs(super().list_inputs, *other_sources)

    def choose_logged_metrics(self, measurements: Measurements) -> LoggedMetrics:
        """Choose the metrics of a finished run that trackers record."""
        return {}


def resolve(module: Any, recipe: Any) -> Job:
    """Make the job of a command, an object with its inputs and its amount of work.

    Args:
        module: Module of the command. It has a function `resolve_job` that makes the
            job. If it lacks this function, it has a function `inputs` that lists the
            inputs of a recipe.
        recipe: Settings of the command.

    Returns:
        The job. If `resolve_job` raises an error, because an input is missing: an
        `UnresolvedJob`, which holds the error.
    """
    if not hasattr(module, "resolve_job"):
        return FunctionJob(recipe, module.inputs)
    try:
        job: Job = module.resolve_job(recipe)
    except BrainhiveError as error:
        return UnresolvedJob(recipe, error)
    return job


def list_inputs(module: Any, recipe: Any) -> list[Input]:
    """List the inputs of a command.

    Args:
        module: Module of the command, as in `resolve`.
        recipe: Settings of the command.
    """
    return resolve(module, recipe).list_inputs()


def key_work(command: str, job: Job) -> tuple[Work | None, str]:
    """Count the work of a command, and make the key under which its pace is stored.

    The pace is the time per unit of work, such as a training step, on the device of the
    recipe. The option `--check` predicts the time of a command from the pace of earlier
    commands with the same key.

    Args:
        command: Name of the command.
        job: Inputs and work of the command.

    Returns:
        The amount of work and the key, or `(None, "")` if the command does not count
        its work.
    """
    work = job.count_work()
    if not work:
        return None, ""
    from brainhive_cli.core import launch

    run_options = job.recipe.run
    device = launch.start(run_options).device_name
    return work, work.key(command, device, launch.count_processes(run_options))
