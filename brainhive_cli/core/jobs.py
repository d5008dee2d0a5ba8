"""Work of commands, described before it begins.

A job is the work of one command. It knows its inputs, can check them, and can count its
units of work. A job of a run also has stages of cells: a cell is a part of the run that
can be computed without the others, such as the model of one subject and one seed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from brainhive_cli.core import trackers
from brainhive_cli.core.artifacts import Artifact
from brainhive_cli.core.cells import Finished
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
        """Return tables that show what the command would do."""
        return ()

    def count_work(self) -> Work | None:
        """Count the units of work. Return None if the command does not count them."""
        return None

    def list_inputs(self) -> list[Input]:
        """List the inputs and the trackers, and the errors of `check` as inputs."""
        return collect_inputs(
            partial(trackers.list_inputs, self.recipe.run.trackers),
            self.inputs,
            checks=[self.check],
        )


@dataclass(frozen=True)
class FunctionJob(Job):
    """Work of a command whose module has functions instead of a job.

    Attributes:
        module: Module of the command. It has a function `inputs`, and may have
            functions `preview` and `work`.
        recipe: Settings of the command.
    """

    module: Any
    recipe: Any

    def inputs(self) -> Iterable[Input]:
        """List the inputs that the command reads."""
        try:
            inputs: Iterable[Input] = self.module.inputs(self.recipe)
        except MissingData as error:
            # the other inputs are unknown until this input exists
            return [Input(error.message, error=error)]
        return inputs

    def preview(self) -> Sequence[Table]:
        """Return tables that show what the command would do."""
        preview = getattr(self.module, "preview", None)
        return preview(self.recipe) if preview else ()

    def count_work(self) -> Work | None:
        """Count the units of work. Return None if the command does not count them."""
        count = getattr(self.module, "work", None)
        return count(self.recipe) if count else None

    def list_inputs(self) -> list[Input]:
        """List the inputs.

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
        list_known_inputs: Function that lists the inputs that are known nevertheless.
    """

    recipe: Any
    error: BrainhiveError
    list_known_inputs: Callable[[], Iterable[Input]]

    def count_work(self) -> Work | None:
        """Raise the error about the missing input, because the work is unknown."""
        raise self.error

    def list_inputs(self) -> list[Input]:
        """List the missing input, the trackers and the inputs that are known."""
        missing_input = Input(self.error.message, error=self.error)
        return collect_inputs(
            partial(trackers.list_inputs, self.recipe.run.trackers),
            lambda: [missing_input],
            self.list_known_inputs,
        )


LoggedMetrics = Mapping[str, Mapping[str, Metric]]
"""Metrics for trackers, keyed by scope and by name."""


@dataclass(frozen=True)
class CellStage:
    """Cells of a run that can be computed in any order, by several workers.

    Attributes:
        title: Description of the work, shown with the progress.
        files: File of each cell in the run folder, keyed by the name of the cell. The
            cell is finished when its file exists.
        compute: Function that computes a cell from its name and the processes that
            share it. Its result is written to the cell's file (see
            `weights.save_cell`). The result is None if the function wrote the file.
        sharing: Processes that compute a cell.

            - "alone": each process computes other cells.
            - "together": all processes compute each cell together.
            - "either": "together" if there are fewer cells than processes, else
              "alone".
        is_finished: Function that returns True if the cell of a name is finished. By
            default, a cell is finished if its file exists.
        count_work: Function that counts the work of some cells. It exists if the time
            of a cell depends only on that work.
    """

    title: str
    files: Mapping[str, str]
    compute: Callable[[str, Launch], Any]
    sharing: Literal["alone", "together", "either"] = "alone"
    is_finished: Finished | None = None
    count_work: Callable[[Sequence[str]], Work] | None = None


@dataclass(frozen=True)
class Summary:
    """Results that a run stores when it is finished.

    Attributes:
        measurements: Metrics of the run, and facts about them.
        artifacts: Further files for people, such as figures.
    """

    measurements: Measurements
    artifacts: Sequence[Artifact] = ()


@dataclass(frozen=True)
class OpenRun:
    """A run that the driver has opened.

    Attributes:
        folder: Folder of the run.
        launch: Processes that compute the run.
        parts: Results of the runs that this run consists of, keyed by their names.
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
        """Open a run for a cell in the trackers of the recipe.

        Args:
            cell: Name of the cell.
            recipe: Recipe of the cell.
            launch: Processes that share the cell. Only the main process logs.
            caveats: Caveats of the numbers.
            clock: Name of the number that states the time of an event.

        Yields:
            A function that logs an event, a mapping of names to values.
        """
        names = recipe.run.trackers if launch.is_main else ()
        settings = recipe.model_dump(mode="json")
        path = self.folder.path
        with trackers.open_trackers(
            names=names,
            run=path,
            cell=cell,
            recipe=settings,
            caveats=caveats,
            clock=clock,
        ) as log:
            yield log


class RunJob(Job):
    """Work of a command that writes a run folder.

    The driver calls the methods in this order: `inputs`, `check` and `prepare`. If the
    run is not finished, `stages` and `summarise` follow. The last call is `describe`.

    Attributes:
        summarises_together: True if all processes take part in `summarise`.
        tracker_name: Name of a finished run in trackers.
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
        """Find the present version of each input whose name may get other content.

        An example is a repository on the hub without a revision.

        Returns:
            The job with these versions, and the versions keyed by the names of the
            inputs.
        """
        return self, {}

    def prepare(self, launch: Launch) -> None:
        """Create the inputs that the command can create itself."""

    def make_parts(self, run: OpenRun, again: bool) -> Mapping[str, Any]:
        """Make the runs that this run consists of.

        Args:
            run: This run, which was just opened.
            again: True to make finished runs again.

        Returns:
            Results of the runs, keyed by their names.
        """
        return {}

    def is_outdated(self, run: OpenRun) -> bool:
        """Return True if a finished run lacks a result that can now be added."""
        return False

    def stages(self, run: OpenRun) -> Iterator[CellStage]:
        """Yield the stages of the computation, one after the other.

        The job loads the data of a stage before it yields the stage, and frees the data
        when the driver asks for the next stage.
        """
        yield from ()

    def summarise(self, run: OpenRun) -> Summary:
        """Compute the metrics of the run from its cells.

        All processes call this method if `summarises_together` is true. Otherwise only
        the main process calls it.
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
        """Choose the metrics of a finished run that trackers log."""
        return {}


def resolve(module: Any, recipe: Any) -> Job:
    """Resolve the work of a command.

    Args:
        module: Module of the command.
        recipe: Settings of the command.

    Returns:
        The job. An `UnresolvedJob` if the work is unknown because an input is missing.
    """
    if not hasattr(module, "resolve_job"):
        return FunctionJob(module, recipe)
    try:
        job: Job = module.resolve_job(recipe)
    except BrainhiveError as error:
        list_known_inputs = getattr(module, "foresee", lambda recipe: ())
        return UnresolvedJob(recipe, error, partial(list_known_inputs, recipe))
    return job


def list_inputs(module: Any, recipe: Any) -> list[Input]:
    """List the inputs of a command from its module and recipe."""
    return resolve(module, recipe).list_inputs()


def key_work(command: str, job: Job) -> tuple[Work | None, str]:
    """Count the work of a command, and find the key under which its pace is stored.

    Args:
        command: Name of the command.
        job: Work of the command.

    Returns:
        The work, and the key of its pace on the recipe's device. `(None, "")` if the
        command does not count its work.
    """
    work = job.count_work()
    if not work:
        return None, ""
    from brainhive_cli.core import launch

    run = job.recipe.run
    device = launch.start(run).device_name
    return work, work.key(command, device, launch.count_processes(run))
