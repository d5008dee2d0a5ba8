"""Run of train-align: a model for each cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from brainhive_cli.core.base import Hint, Line, Table, console
from brainhive_cli.core.results import Measurements, merge_caveats
from brainhive_cli.core.runs import (
    METRICS_FILE,
    CellStage,
    Launch,
    OpenRun,
    Result,
    RunFolder,
    RunJob,
    Summary,
    Work,
    open_trackers,
)
from brainhive_cli.data.targets import (
    are_embedded,
    describe_health_problem,
    keep_identity,
    write_embed_commands,
)
from brainhive_cli.training.alignment import (
    Cell,
    Recipe,
    TrainingFacts,
    describe_division,
    list_subjects,
)
from brainhive_cli.training.alignment.training.job import Job
from brainhive_cli.training.alignment.training.results import learning_curves, tables

if TYPE_CHECKING:
    from brainhive_cli.training.alignment.training.training_data import TrainingData


@dataclass
class LatestData:
    """Training data of the cell that was trained last.

    Attributes:
        data: Data that the next cell shares if it has the same inputs, or None.
    """

    data: TrainingData | None = None


@dataclass(frozen=True)
class TrainingRun(Job, RunJob):
    """Run of train-align. Test signals are read only if they select epochs.

    Attributes:
        latest_data: Training data of the last cell. Several runs may share it.
    """

    latest_data: LatestData = field(
        default_factory=LatestData, repr=False, compare=False
    )
    command = "train-align"

    @classmethod
    def resolve(cls, recipe: Recipe, like: Self | None = None) -> Self:
        """Make the run of a recipe, as `Job.resolve` does.

        Args:
            recipe: Settings of the run.
            like: Run whose training data is shared if it is equal, or None.
        """
        run = super().resolve(recipe)
        return run if like is None else replace(run, latest_data=like.latest_data)

    def preview(self) -> list[Table]:
        """List the names of the models in a table."""
        names = console.summarise_names([cell.name for cell in self.cells])
        return [Table("Models", ("item", "value"), [("models", names)])]

    def check(self) -> None:
        """Open the inputs, and rehearse a training step of each kind of cell.

        Raises:
            BrainhiveError: if an input does not fit the recipe, or as the training
                would.
        """
        super().check()
        if self.is_finished:
            return
        # importing it loads torch
        from brainhive_cli.training.alignment.training.rehearsal import rehearse

        rehearse(self)

    def stages(self, run: OpenRun) -> Iterator[CellStage]:
        """Yield the stage that trains the cells.

        Each cell is trained by one process, or by all if cells are fewer.
        """
        run.launch.run_on_main(lambda: keep_identity(run.folder, self.stores))
        # train the longest cells first
        cells = sorted(self.cells, key=lambda cell: -len(cell.trained_on))
        cells_by_name = {cell.name: cell for cell in cells}

        def count_work(names: Sequence[str]) -> Work:
            return self.count_work([cells_by_name[name] for name in names])

        trainer = _CellTrainer(self, cells_by_name, run)
        files = {name: f"cells/{name}/{METRICS_FILE}" for name in cells_by_name}
        yield CellStage(
            "training models", files, trainer.train, "either", count_work=count_work
        )

    def summarise(self, run: OpenRun) -> Summary:
        """Collect the metrics of all cells, and draw their learning curves."""
        warnings = []
        for name, store in self.stores.items():
            problem = describe_health_problem(store)
            if problem:
                warnings.append(f"{name} failed its health check: {problem}")
        # metrics and facts of all cells
        scopes: dict[str, Any] = {}
        caveats = []
        cell_facts = {}
        for cell in self.cells:
            measurements = run.folder.measurements(f"cells/{cell.name}/{METRICS_FILE}")
            scopes |= measurements.scopes
            caveats.append(measurements.caveats)
            # the metrics are of a subject if no other was trained on or tested
            subject = None
            if len(cell.trained_on) == 1 and cell.trained_on == cell.tested_on:
                subject = cell.trained_on[0]
            cell_facts[cell.name] = measurements.facts.cells[cell.name].model_copy(
                update={"subject": subject, "seed": cell.seed}
            )

        facts = TrainingFacts(
            mode=self.recipe.mode,
            dataset=self.dataset.name,
            stimulus=self.dataset.stimulus,
            warnings=warnings,
            is_closed_form=self.recipe.backbone.is_closed_form,
            division=describe_division(self.cells, self.recipe.mode),
            caveats=merge_caveats(*caveats),
            cells=cell_facts,
            **self.describe_set_up(),
        )
        curves = learning_curves(run.folder, list(cell_facts))
        return Summary(Measurements(scopes, facts=facts), curves)

    def describe(self, run: OpenRun) -> Result:
        """Describe the finished run: tables, metrics and the next command."""
        measurements = run.folder.measurements()
        return Result(
            run.folder.path,
            tables(
                measurements,
                self.cells,
                can_validate=not self.dataset.holdout.has_seen_pictures,
            ),
            measurements,
            hint=_write_next_command(self, run.folder),
        )


@dataclass
class _CellTrainer:
    """Training of the cells of a run, by their names."""

    job: TrainingRun
    cells: dict[str, Cell]
    run: OpenRun

    def train(self, name: str, launch: Launch) -> None:
        """Read the data of a cell, train it, and write its model and metrics."""
        from brainhive_cli.training.alignment.training.cell_folder import train_cell
        from brainhive_cli.training.alignment.training.initialisation import (
            make_history,
        )
        from brainhive_cli.training.alignment.training.training_data import TrainingData

        cell = self.cells[name]
        recipe = self.job.recipe
        with console.progress("reading signals and embeddings"):
            # cells with the same inputs share the training data
            latest = self.job.latest_data
            subjects = list_subjects(self.cells.values(), with_tested=False)
            if latest.data is None or not latest.data.is_compatible(self.job, subjects):
                latest.data = TrainingData(self.job, subjects, self.run.launch)
            layout, data = latest.data.select_cell(cell, self.job)
        caveats = make_history(data, recipe.train).caveats
        path = self.run.folder.path
        with open_trackers(path, name, recipe, launch, caveats) as track:
            train_cell(
                name,
                cell.seed,
                layout,
                data,
                recipe.loss_terms,
                recipe.train,
                self.run.folder,
                launch,
                track,
            )


def _write_next_command(job: Job, folder: RunFolder) -> Hint:
    """Write the command that evaluates the run, or reports it without test stimuli."""
    recipe = job.recipe
    if job.dataset.holdout.name_stored_split("test") not in job.dataset.splits:
        return Line("report", folder.path.name)
    hint = Line("eval-retrieval", ("run", folder.path))
    if are_embedded(job.dataset, recipe.encoders, recipe.paths, ["test"]):
        return hint
    return f"{write_embed_commands(recipe.dataset, recipe.encoders)} && {hint}"
