"""Run of calibrate."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, lru_cache

from brainhive_cli.core.base import console
from brainhive_cli.core.runs import (
    CellStage,
    Launch,
    OpenRun,
    Result,
    RunJob,
    Summary,
    artifacts,
    driver,
    weights,
)
from brainhive_cli.evaluation.calibration.curves import draw_artifacts, summarise_draws
from brainhive_cli.evaluation.calibration.facts import Strength
from brainhive_cli.evaluation.calibration.job import Job
from brainhive_cli.evaluation.calibration.measure import (
    Part,
    choose_pulls,
    find_fixed_pulls,
    list_arms,
    make_reduced_recipe,
    measure_draw,
    require_arms,
)
from brainhive_cli.training.alignment import Cell
from brainhive_cli.training.alignment.trained import check_test_set, open_model
from brainhive_cli.training.alignment.training import TrainingRun


class CalibrationRun(Job, RunJob):
    """Run of calibrate, with a part for each model, new person and draw.

    The driver calls these methods in order:

    1. `prepare`: prepare the missing signals.
    2. `stages`: choose the strength of transfer, then measure each draw.
    3. `summarise`: compute the metrics and curves over people and draws.
    4. `describe`: read the tables.
    """

    command = "calibrate"

    def prepare(self, launch: Launch) -> None:
        """Prepare the missing signals, and warn if models were trained on trials."""
        super().prepare(launch)
        repetitions = self.training.signal.repetitions
        if repetitions != "average":
            console.warn(
                f"{self.align.name} was trained with signal.repetitions={repetitions}, "
                "but calibrate trains on trials averaged by picture"
            )

    def stages(self, run: OpenRun) -> Iterator[CellStage]:
        """Choose the strength of transfer of each model, then measure each draw."""
        yield self._choose_strengths(run)
        choices = self._read_choices(run)
        # only the last model stays loaded
        load_base = lru_cache(1)(lambda cell: self.load_base(cell, run.launch))

        def measure(name: str, launch: Launch) -> Part:
            cell, draw = self.parts[name]
            return measure_draw(
                self,
                load_base(cell),
                self.people[cell.tested_on[0]],
                list_arms(self.recipe),
                choices[self.names[cell]].pulls,
                draw,
            )

        yield CellStage("calibrating", self.files, measure)

    def summarise(self, run: OpenRun) -> Summary:
        """Compute the metrics of all arms and amounts over people and draws."""
        parts = {
            self.parts[name]: weights.load_cell(run.folder.path / file, Part)
            for name, file in self.files.items()
        }
        measurements = summarise_draws(self, parts, self._read_choices(run))
        for arm, reason in measurements.missing.items():
            console.warn(f"the arm {arm} is left out: {reason}")
        return Summary(measurements, draw_artifacts(measurements))

    def describe(self, run: OpenRun) -> Result:
        """Return all tables. Only the tables of metrics are printed."""
        tables = artifacts.read_tables(run.folder)
        return replace(super().describe(run), printed_tables=tables[:2])

    def check(self) -> None:
        """Check that models and signals fit each other.

        If all signals are prepared, also check the amounts and arms.

        Raises:
            BrainhiveError: if they do not fit.
        """
        if check_test_set(self.tests, ["train", "test"]):
            _ = self.amounts
            require_arms(self)

    @cached_property
    def names(self) -> dict[Cell, str]:
        """Name of each model with its new person."""
        return {cell: f"{cell.name} sub-{cell.tested_on[0]:02d}" for cell in self.cells}

    @cached_property
    def parts(self) -> dict[str, tuple[Cell, int]]:
        """Cell and draw of each part, by name. Draws of a model follow each other."""
        parts = {}
        for cell in self.cells:
            for draw in range(self.draws):
                parts[f"{self.names[cell]}, draw {draw}"] = cell, draw
        return parts

    @cached_property
    def files(self) -> dict[str, str]:
        """File of each part in the run folder, by name."""
        files = {}
        for name, (cell, draw) in self.parts.items():
            folder = f"parts/{cell.name}"
            subject = cell.tested_on[0]
            files[name] = f"{folder}/sub-{subject:02d}_draw-{draw:03d}.safetensors"
        return files

    @cached_property
    def choice_files(self) -> dict[Cell, str]:
        """File of the strength of transfer of each model in the run folder."""
        return {
            cell: f"choices/{cell.name}/sub-{cell.tested_on[0]:02d}.json"
            for cell in self.cells
        }

    def _choose_strengths(self, run: OpenRun) -> CellStage:
        """Train the models needed to choose strengths of transfer, and make that stage.

        A model is trained without each of its people in turn, by all processes. Other
        commands do not find these runs.
        """
        pending = run.launch.run_on_main(
            lambda: [
                cell
                for cell, file in self.choice_files.items()
                if not (run.folder.path / file).is_file()
            ]
        )
        paths = self.recipe.paths.model_copy(
            update={"runs": f"{self.recipe.paths.runs}/calibrate/.left-out"}
        )

        # (2, 3) without 2 and (1, 3) without 1 share the model of 3
        trainings: dict[str, TrainingRun] = {}
        training_names = defaultdict[Cell, dict[int, str]](dict)
        for cell in pending:
            if not self.count_choosers(cell):
                continue
            for subject in cell.trained_on:
                remaining_subjects = tuple(
                    person for person in cell.trained_on if person != subject
                )
                name = f"{remaining_subjects}, seed {cell.seed}"
                training_names[cell][subject] = name
                if name not in trainings:
                    recipe = make_reduced_recipe(
                        self, remaining_subjects, cell.seed, paths
                    )
                    # only the data of the last training stays in memory
                    first_run = next(iter(trainings.values()), None)
                    trainings[name] = TrainingRun.resolve(recipe, first_run)
        title = "training models without one person"
        results = driver.run_each(trainings, run.launch, title=title)
        runs = {}
        for name, result in results.items():
            runs[name] = open_model(str(result.folder), paths)

        # a strength is chosen by a single process
        cell_of_name = {f"strength for {self.names[cell]}": cell for cell in pending}

        def choose(name: str, _: Launch) -> None:
            cell = cell_of_name[name]
            choice = find_fixed_pulls(self, cell)
            if choice is None:
                # run of the model without each of its people
                names = training_names[cell]
                reduced_runs = {subject: runs[names[subject]] for subject in names}
                choice = choose_pulls(self, cell, reduced_runs, run.launch)
            run.folder.write_json(self.choice_files[cell], choice.model_dump())

        files = {name: self.choice_files[cell] for name, cell in cell_of_name.items()}
        return CellStage("choosing the strength of transfer", files, choose)

    def _read_choices(self, run: OpenRun) -> dict[str, Strength]:
        """Read the strength of transfer of each model with its new person."""
        return {
            self.names[cell]: run.folder.read_json(file, Strength)
            for cell, file in self.choice_files.items()
        }
