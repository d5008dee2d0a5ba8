"""The run of calibrate: the strength of transfer is chosen for each model, then each
draw is measured.
"""

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import product

from brainhive_cli.core import artifacts, console, driver, weights
from brainhive_cli.core.command import Result
from brainhive_cli.core.errors import Line
from brainhive_cli.core.facts import Strength
from brainhive_cli.core.jobs import CellStage, OpenRun, RunJob, Summary
from brainhive_cli.core.launch import Launch
from brainhive_cli.evaluation.calibration.curves import conclude, draw
from brainhive_cli.evaluation.calibration.job import Job
from brainhive_cli.evaluation.calibration.measure import (
    Part,
    choose_pulls,
    fix_pulls,
    list_arms,
    measure_draw,
    refuse_arms,
    train_on,
)
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.trained.run import TrainedRun, open_model
from brainhive_cli.training.alignment.training.run import TrainingRun


class CalibrationRun(Job, RunJob):
    """Run of calibrate: a part for each model, new person and draw."""

    @property
    def label(self) -> str:
        """First part of the run's name."""
        return self.align.label

    def check(self) -> None:
        """Refuse models and signals that do not fit each other; once all signals are
        prepared, also amounts that a person lacks and arms that no model has.
        """
        if self.align.check(["train", "test"]):
            _ = self.amounts
            refuse_arms(self)

    def prepare(self, launch: Launch) -> None:
        """Make the signal stores that are missing."""
        self.align.prepare_signals(launch)
        if (repetitions := self.training.signal.repetitions) != "average":
            console.warn(
                f"{self.align.name} learned from trials ({repetitions}); calibrate "
                "learns from averages"
            )

    @cached_property
    def names(self) -> dict[Cell, str]:
        """Name of each model with its new person."""
        return {cell: f"{cell.name} sub-{cell.tested_on[0]:02d}" for cell in self.cells}

    @cached_property
    def parts(self) -> dict[str, tuple[Cell, int]]:
        """Model and draw of each part; draws of one model follow each other."""
        pairs = product(self.cells, range(self.draws))
        return {
            f"{self.names[cell]}, draw {number}": (cell, number)
            for cell, number in pairs
        }

    @cached_property
    def files(self) -> dict[str, str]:
        """File of each part."""
        return {
            name: f"parts/{cell.name}/sub-{cell.tested_on[0]:02d}_draw-{number:03d}"
            ".safetensors"
            for name, (cell, number) in self.parts.items()
        }

    @cached_property
    def choice_files(self) -> dict[Cell, str]:
        """File of the strength of transfer of each model."""
        return {
            cell: f"choices/{cell.name}/sub-{cell.tested_on[0]:02d}.json"
            for cell in self.cells
        }

    def stages(self, run: OpenRun) -> Iterator[CellStage]:
        """Choose the strength of transfer of each model, then measure each draw."""
        yield self._choose(run)
        choices = self._read_choices(run)
        # only the last model stays loaded
        open_base = lru_cache(1)(lambda cell: self.load_base(cell, run.launch))

        def measure(name: str, launch: Launch) -> Part:
            cell, number = self.parts[name]
            person = self.people[cell.tested_on[0]]
            pulls = choices[self.names[cell]].pulls
            arms = list_arms(self.recipe)
            return measure_draw(self, open_base(cell), person, arms, pulls, number)

        yield CellStage("calibrating models, persons and draws", self.files, measure)

    def _choose(self, run: OpenRun) -> CellStage:
        """Train the models without one person that choose a strength, by all processes;
        other commands do not find these runs.
        """
        todo = run.launch.run_on_main(
            lambda: [
                cell
                for cell, file in self.choice_files.items()
                if not (run.folder.path / file).is_file()
            ]
        )
        # a strength that recipe or run fix needs no further trainings
        fixed = {cell: fix_pulls(self, cell) for cell in todo}
        people = {
            (cell, subject): tuple(one for one in cell.trained_on if one != subject)
            for cell in todo
            if fixed[cell] is None
            for subject in cell.trained_on
        }
        paths = self.recipe.paths.model_copy(
            update={"runs": f"{self.recipe.paths.runs}/calibrate/.left-out"}
        )

        # two new persons who leave each other out share a model
        trainings = {
            f"{others}, seed {cell.seed}": TrainingRun.resolve(
                train_on(self, others, cell.seed, paths)
            )
            for (cell, _), others in people.items()
        }
        title = "training models without one person"
        trained = driver.run_each("train-align", trainings, run.launch, title=title)
        models = {
            name: open_model(str(result.folder), paths)
            for name, result in trained.items()
        }
        left_out = defaultdict[Cell, dict[int, TrainedRun]](dict)
        for (cell, subject), others in people.items():
            left_out[cell][subject] = models[f"{others}, seed {cell.seed}"]

        # the choice of each model, by one process
        cell_of_name = {f"strength for {self.names[cell]}": cell for cell in todo}

        def choose(name: str, launch: Launch) -> None:
            cell = cell_of_name[name]
            choice = fixed[cell] or choose_pulls(self, cell, left_out[cell], run.launch)
            run.folder.write_json(self.choice_files[cell], choice.model_dump())

        files = {name: self.choice_files[cell] for name, cell in cell_of_name.items()}
        return CellStage("choosing the strength of transfer", files, choose)

    def _read_choices(self, run: OpenRun) -> dict[str, Strength]:
        """Read the strength of transfer of each model, by its name."""
        return {
            self.names[cell]: run.folder.read_json(file, Strength)
            for cell, file in self.choice_files.items()
        }

    def summarise(self, run: OpenRun) -> Summary:
        """Measure all arms and amounts over persons and draws."""
        ranked = {
            self.parts[name]: weights.load_cell(run.folder.path / file, Part)
            for name, file in self.files.items()
        }
        measured = conclude(self, ranked, self._read_choices(run))
        for name, reason in measured.missing.items():
            console.warn(f"{name} left out: {reason}")
        return Summary(measured, draw(measured))

    def describe(self, run: OpenRun) -> Result:
        """Show the tables but for the last, which says what arms are."""
        path = run.folder.path
        tables = artifacts.read_tables(run.folder)
        return Result(
            path,
            tables,
            run.folder.measurements(),
            hint=Line("report", path),
            printed_tables=tables[:2],
        )
