"""The work of a command, resolved once from its recipe, and what is known before it is
done.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from brainhive_cli.core import trackers
from brainhive_cli.core.artifacts import Artifact
from brainhive_cli.core.cells import Finished
from brainhive_cli.core.command import Input, Result, Work, collect
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements, Metric
from brainhive_cli.core.recipe import Recipe
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Table


class Job:
    """Work of a command, resolved once from its recipe.

    Attributes:
        recipe: Settings of the command.
    """

    recipe: Any

    def inputs(self) -> Iterable[Input]:
        """List what the command reads; the only place that asks whether it is there."""
        return ()

    def check(self) -> None:
        """Open what is listed, and refuse what does not fit; nothing is made."""

    def preview(self) -> Sequence[Table]:
        """Lay out what the command would do."""
        return ()

    def count_work(self) -> Work | None:
        """Count what there is to do; None where it is not counted."""
        return None

    def list_inputs(self) -> list[Input]:
        """List each input once, with the trackers, and what does not fit."""
        return collect(
            partial(trackers.inputs, self.recipe.run.trackers),
            self.inputs,
            checks=[self.check],
        )


@dataclass(frozen=True)
class FunctionJob(Job):
    """Work of a command that has functions instead of a job."""

    module: Any
    recipe: Any

    def inputs(self) -> Iterable[Input]:
        """List what the command reads."""
        try:
            listed: Iterable[Input] = self.module.inputs(self.recipe)
        except MissingData as error:
            # other inputs cannot be listed before this one is there
            return [Input(error.message, None, error)]
        return listed

    def preview(self) -> Sequence[Table]:
        """Lay out what the command would do, where it says so."""
        preview = getattr(self.module, "preview", None)
        return preview(self.recipe) if preview else ()

    def count_work(self) -> Work | None:
        """Count the work, where the command does so."""
        work = getattr(self.module, "work", None)
        return work(self.recipe) if work else None

    def list_inputs(self) -> list[Input]:
        """List each input once; a recipe that does not hold raises."""
        return [*self.inputs()]


@dataclass(frozen=True)
class UnresolvedJob(Job):
    """Work that cannot be resolved before something is there.

    Attributes:
        recipe: Settings of the command.
        error: What is missing.
        further: Inputs that are known nevertheless.
    """

    recipe: Any
    error: BrainhiveError
    further: Callable[[], Iterable[Input]]

    def count_work(self) -> Work | None:
        """Raise the error: no work is known."""
        raise self.error

    def list_inputs(self) -> list[Input]:
        """List what is missing, and what is known nevertheless."""
        return collect(
            partial(trackers.inputs, self.recipe.run.trackers),
            lambda: [Input(self.error.message, None, self.error)],
            self.further,
        )


Logged = Mapping[str, Mapping[str, Metric]]
"""Metrics by scope and name."""


@dataclass(frozen=True)
class CellStage:
    """Cells of a run that can be computed in any order, each by whoever is free.

    Attributes:
        title: What is done, on the line of progress.
        files: Name of each cell, and the file of the run that makes it finished.
        compute: Computes a cell, given its name and the processes that share it. What
            it returns is written to the cell's file (see `weights.save_cell`); None
            where it has written the file itself.
        sharing: `alone` if each process computes cells by itself, `together` if all
            processes share each cell, `either` if they do so where there are fewer
            cells than processes.
        is_finished: Whether a cell is finished. Default: its file is there.
        count_work: Counts the work of some cells, where a cell's time does not depend
            on anything else that the command does.
    """

    title: str
    files: Mapping[str, str]
    compute: Callable[[str, Launch], Any]
    sharing: Literal["alone", "together", "either"] = "alone"
    is_finished: Finished | None = None
    count_work: Callable[[Sequence[str]], Work] | None = None


@dataclass(frozen=True)
class Summary:
    """What a finished run states and shows."""

    measurements: Measurements
    artifacts: Sequence[Artifact] = ()


@dataclass(frozen=True)
class OpenRun:
    """A run that is being made, or was found finished.

    Attributes:
        folder: Its folder.
        launch: The processes that make it.
        parts: Results of the runs that it consists of, by name.
        against: Results of the runs that it is compared with.
    """

    folder: RunFolder
    launch: Launch
    parts: Mapping[str, Any] = field(default_factory=dict)
    against: Sequence[Result] = ()

    @contextmanager
    def track(
        self,
        cell: str,
        recipe: Recipe,
        launch: Launch,
        caveats: Sequence[str] = (),
        clock: str = "epoch",
    ) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """Open a cell in the trackers of the recipe; yield a function that logs events.

        Args:
            cell: Name of the cell.
            recipe: Recipe of the cell.
            launch: The processes that share the cell, of which one logs.
            caveats: Caveats of the numbers.
            clock: Name of the number that is the time of an event.
        """
        names = recipe.run.trackers if launch.is_main else ()
        settings = recipe.model_dump(mode="json")
        path = self.folder.path
        with trackers.tracked(names, path, cell, settings, caveats, clock) as log:
            yield log


class RunJob(Job):
    """Work of a command that writes a run folder, resolved from its recipe.

    The driver calls the methods in this order: `inputs`, `check`, `prepare`; then, for
    a run that is not finished, `stages` and `summarise`; then `describe`.

    Attributes:
        summarises_together: Whether all processes take part in `summarise`.
        tracked_as: Name of a finished run in trackers.
    """

    summarises_together: ClassVar[bool] = False
    tracked_as: ClassVar[str] = ""

    @property
    def label(self) -> str:
        """First part of the folder's name; the fingerprint follows."""
        raise NotImplementedError

    @property
    def compared(self) -> Sequence["RunJob"]:
        """The runs that this one is compared with."""
        return ()

    def pin_versions(self) -> tuple["RunJob", dict[str, str]]:
        """Name the versions of inputs whose names may move on.

        Returns:
            The job with these versions, and the versions by the names of the inputs.
        """
        return self, {}

    def prepare(self, launch: Launch) -> None:
        """Make the inputs that the command makes by itself."""

    def make_parts(self, run: OpenRun, again: bool) -> Mapping[str, Any]:
        """Make the runs that this one consists of, by name.

        Args:
            run: This run, just opened.
            again: Whether finished runs are made anew.
        """
        return {}

    def is_outdated(self, run: OpenRun) -> bool:
        """Return True if a finished run lacks something that can be added now."""
        return False

    def stages(self, run: OpenRun) -> Iterator[CellStage]:
        """Give the stages of the computation, one after the other.

        What a stage needs is opened before it is given, and released after it.
        """
        yield from ()

    def summarise(self, run: OpenRun) -> Summary:
        """Measure what the cells computed; one process does it, or all together."""
        raise NotImplementedError

    def describe(self, run: OpenRun) -> Result:
        """Describe a finished run: tables, files, and the next command."""
        raise NotImplementedError

    def list_inputs(self) -> list[Input]:
        """List the inputs of this run, and of the runs that it is compared with."""
        compared = [partial(Job.list_inputs, other) for other in self.compared]
        return collect(super().list_inputs, *compared)

    def choose_logged(self, measurements: Measurements) -> Logged:
        """Choose the metrics that trackers get of a finished run, by scope and name."""
        return {}


def resolve(module: Any, recipe: Any) -> Job:
    """Resolve the work of a command, by its module, for all that looks at it before it
    is done.
    """
    if not hasattr(module, "resolve_job"):
        return FunctionJob(module, recipe)
    try:
        job: Job = module.resolve_job(recipe)
    except BrainhiveError as error:
        foresee = getattr(module, "foresee", lambda recipe: ())
        return UnresolvedJob(recipe, error, partial(foresee, recipe))
    return job


def list_inputs(module: Any, recipe: Any) -> list[Input]:
    """List the inputs of a command, by its module."""
    return resolve(module, recipe).list_inputs()


def key_work(command: str, job: Job) -> tuple[Work | None, str]:
    """Give the work of a command, and the name of its pace on the recipe's device."""
    work = job.count_work()
    if not work:
        return None, ""
    from brainhive_cli.core import launch

    run = job.recipe.run
    device = launch.start(run).device_name
    return work, work.key(command, device, launch.count_processes(run))
