"""The run of train-align: a model for each cell (subjects × seed)."""

from collections.abc import Iterator, Sequence
from typing import Any

from brainhive_cli.core import console, driver
from brainhive_cli.core.command import Result, Work
from brainhive_cli.core.errors import Hint, Line
from brainhive_cli.core.facts import TrainingFacts
from brainhive_cli.core.jobs import CellStage, OpenRun, RunJob, Summary
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements, merge_caveats
from brainhive_cli.core.runs import METRICS_FILE, RunFolder
from brainhive_cli.core.tables import Table
from brainhive_cli.data.targets.encoder_stores import (
    describe_health_problem,
    keep_identity,
)
from brainhive_cli.data.targets.next_commands import are_embedded, write_embed_commands
from brainhive_cli.training.alignment.cells import Cell, list_subjects
from brainhive_cli.training.alignment.training.job import Job
from brainhive_cli.training.alignment.training.results import learning_curves, tables


class TrainingRun(Job, RunJob):
    """Run of train-align; the test split is never read, unless it selects epochs."""

    def preview(self) -> list[Table]:
        """Lay out the cells."""
        names = console.summarise_names([cell.name for cell in self.cells])
        return [Table("Cells", ("item", "value"), [("cells", names)])]

    def check(self) -> None:
        """Open what is listed, and take one step of each kind of cell without values,
        which refuses what the training would refuse.
        """
        super().check()
        if driver.is_finished("train-align", self):
            return
        # which loads torch
        from brainhive_cli.training.alignment.training.rehearsal import rehearse

        rehearse(self)

    def stages(self, run: OpenRun) -> Iterator[CellStage]:
        """Train each cell by one process where there are enough for all; else the
        processes share its batches.
        """
        from brainhive_cli.training.alignment.training.cell_folder import train_cell
        from brainhive_cli.training.alignment.training.initialisation import (
            make_history,
        )
        from brainhive_cli.training.alignment.training.training_data import TrainingData

        run.launch.run_on_main(lambda: keep_identity(run.folder, self.stores))
        # the longest first
        cells = sorted(self.cells, key=lambda cell: -len(cell.trained_on))
        cell_of_name = {cell.name: cell for cell in cells}
        subjects = list_subjects(cells, with_tested=False)
        opened: TrainingData | None = None

        def train(name: str, launch: Launch) -> None:
            nonlocal opened
            cell = cell_of_name[name]
            recipe = self.variants[cell.variant]
            # variants that read the same data share them
            with console.progress("reading signals and embeddings"):
                if opened is None or not opened.is_compatible(recipe):
                    opened = TrainingData(
                        self, recipe, self.stores, subjects, run.launch
                    )
                layout, data = opened.select_cell(cell)
            caveats = make_history(data, recipe.train).caveats
            with run.track(name, recipe, launch, caveats) as track:
                train_cell(
                    name,
                    cell.seed,
                    layout,
                    data,
                    recipe.loss_terms,
                    recipe.train,
                    run.folder,
                    launch,
                    track,
                )

        def count_work(names: Sequence[str]) -> Work:
            return self.count_work([cell_of_name[name] for name in names])

        files = {name: f"cells/{name}/{METRICS_FILE}" for name in cell_of_name}
        yield CellStage("training cells", files, train, "either", count_work=count_work)

    def summarise(self, run: OpenRun) -> Summary:
        """Collect what all cells measured, and draw their learning curves."""
        problems = {
            name: describe_health_problem(store) for name, store in self.stores.items()
        }
        failed = [
            f"{name} failed its health check: {why}"
            for name, why in problems.items()
            if why
        ]
        facts = TrainingFacts(
            mode=self.recipe.mode,
            dataset=self.dataset.name,
            stimulus=self.dataset.stimulus,
            warnings=failed,
            is_closed_form=all(
                variant.backbone.is_closed_form for variant in self.variants.values()
            ),
            **self.describe_set_ups(self.cells),
        )
        curves = learning_curves(run.folder, [cell.name for cell in self.cells])
        measurements = _collect_measurements(run.folder, self.cells, facts)
        return Summary(measurements, curves)

    def describe(self, run: OpenRun) -> Result:
        """Show the table of the cells, and the line of what comes next."""
        measurements = run.folder.measurements()
        return Result(
            run.folder.path,
            tables(measurements, self.cells),
            measurements,
            hint=_next_command(self, run.folder),
        )


def _collect_measurements(
    folder: RunFolder, cells: Sequence[Cell], facts: TrainingFacts
) -> Measurements:
    """Collect what the cells measured."""
    scopes: dict[str, Any] = {}
    caveats, described = [], {}
    for cell in cells:
        name = f"cells/{cell.name}/{METRICS_FILE}"
        # join the scopes of all cells; nothing is averaged over them
        measured = folder.measurements(name)
        scopes |= measured.scopes
        caveats.append(measured.caveats)
        # a validation is of one subject, if that one was trained on
        is_of_one = len(cell.trained_on) == 1 and cell.trained_on == cell.tested_on
        described[cell.name] = measured.facts.cells[cell.name].model_copy(
            update={
                "subject": cell.trained_on[0] if is_of_one else None,
                "seed": cell.seed,
                "variant": cell.variant,
            }
        )
    facts = facts.model_copy(
        update={"caveats": merge_caveats(*caveats), "cells": described}
    )
    return Measurements(scopes, facts=facts)


def _next_command(job: Job, folder: RunFolder) -> Hint:
    """Write the line of the next step: retrieval, after embedding the test stimuli
    where that is missing.
    """
    recipe = job.recipe
    # without test stimuli there is no gallery to retrieve from
    if job.dataset.holdout.name_stored_split("test") not in job.dataset.splits:
        return Line("report", folder.path.name)
    hint = Line("eval-retrieval", ("run", folder.path))
    if are_embedded(job.dataset, recipe.encoders, recipe.paths, ["test"]):
        return hint
    return f"{write_embed_commands(recipe.dataset, recipe.encoders)} && {hint}"
