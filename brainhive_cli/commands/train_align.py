"""train-align: a brain model for each cell (subjects × seed), trained to predict its targets."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from brainhive_cli.commands import trackers
from brainhive_cli.core import artifacts, console
from brainhive_cli.core.facts import TrainingFacts
from brainhive_cli.core.inputs import Input, collect
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.lines import Hint, Line
from brainhive_cli.core.measurements import Measurements, merge_caveats
from brainhive_cli.core.results import Result, Work
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.core.tables import Table
from brainhive_cli.data.command_lines import are_embedded, write_embedding
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.target_stores import keep_identity
from brainhive_cli.training.alignment.initialisation import learned_by
from brainhive_cli.training.alignment.job import Job, list_subjects
from brainhive_cli.training.alignment.loop import train_cell
from brainhive_cli.training.alignment.progress import (
    describe_health,
    learning_curves,
    list_failed_stores,
    tables,
)
from brainhive_cli.training.alignment.recipe import Cell, Recipe
from brainhive_cli.training.alignment.training_data import TrainingData


def inputs(recipe: Recipe) -> list[Input]:
    """List the trackers, and all that the training reads; see `Job.inputs`."""
    job = cache(lambda: Job.resolve(recipe))
    return collect(
        lambda: trackers.inputs(recipe.run.trackers),
        lambda: job().inputs(),
        checks=[lambda: job().check()],
    )


def work(recipe: Recipe) -> Work:
    """Count the epochs of all cells."""
    job = Job.resolve(recipe)
    return job.count_work(job.list_cells())


def preview(recipe: Recipe) -> list[Table]:
    """Lay out the cells."""
    names = console.summarise_names([cell.name for cell in Job.resolve(recipe).list_cells()])
    return [Table("Cells", ("item", "value"), [("cells", names)])]


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Train every cell that is not finished; the test split is never read."""
    trackers.require(recipe.run.trackers)
    # resolve: cells, signals, and the identities of all that is read, which name the run
    with console.progress("opening signals and embeddings"):
        job = Job.resolve(recipe)
        job.require()
        cells = job.list_cells()
        # a missing store ends it before signals are made
        stores = {} if job.has_signals(cells) else job.open_stores()
        job.prepare_signals(cells, launch)
        digests = job.digests()
        job = job.pinned(digests)
    folder = RunFolder.open(
        "train-align", job.recipe.run_label(job.recipe.paths), job.recipe, launch, again, digests
    )

    # train what an earlier command has not trained, and write what all cells measured
    work = None
    if not folder.is_finished:
        with console.progress("opening embeddings and what is trained further"):
            for cell in cells:
                job.find_starts(cell)  # which are refused before anything is trained
            stores = stores or job.open_stores()
        warnings = job.explain_no_validation(stores)
        work = _train(job, cells, stores, warnings, folder, launch)
        with folder.finishing(launch) as is_due:
            if is_due and launch.is_main:
                facts = TrainingFacts(
                    mode=job.recipe.mode,
                    dataset=job.dataset.name,
                    stimulus=job.dataset.stimulus,
                    warnings=[*list_failed_stores(stores), *warnings],
                    is_closed_form=all(variant.backbone.is_closed_form for variant in job.variants.values()),
                    **job.describe_set_ups(cells),
                )
                curves = learning_curves(folder, [cell.name for cell in cells])
                artifacts.write(folder, [*curves, *describe_health(stores)])
                folder.finish(_collect_measurements(folder, cells, facts))

    # show the tables, and the line of what comes next
    hint = _next_command(job, folder) if launch.is_main else ""
    with folder.reading() as metrics:
        return Result(folder.path, tables(metrics, cells), metrics, hint=hint, work=work)


def _train(
    job: Job,
    cells: Sequence[Cell],
    stores: Mapping[str, TargetStore],
    warnings: Sequence[str],
    folder: RunFolder,
    launch: Launch,
) -> Work | None:
    """Train free cells, each by one process when there are enough for all; else share each cell's batches.

    Returns:
        What these processes have trained from the first epoch to the last, and how long that took.
    """
    # all processes need one list, though other workers finish cells meanwhile
    todo = [cell for cell in cells if not (folder.path / f"cells/{cell.name}/{FINISHED}").is_file()]
    todo = sorted(launch.gather(todo)[0], key=lambda cell: -len(cell.trained_on))  # the longest first
    is_alone = len(todo) >= launch.processes  # each process trains cells by itself
    worker = launch.alone if is_alone else launch

    # note which stores are read, and warn once of all that limits the training
    keep_identity(folder, stores, launch.is_main)
    for reason in warnings:
        console.warn(reason)

    # train cell by cell; variants that read the same data share them
    subjects = list_subjects(cells, with_tested=False)
    opened = None
    trained, started_s = list[Cell](), time.monotonic()
    cell_of_name = {cell.name: cell for cell in todo}
    files = {name: f"cells/{name}/{FINISHED}" for name in cell_of_name}
    with (
        console.divert_prints(),  # of trackers
        console.progress("training cells", len(todo)) as bar,
        folder.claim_cells(files, worker) as free,
    ):
        for cell in map(cell_of_name.__getitem__, free):
            recipe, is_begun = job.variants[cell.variant], folder.checkpoint_path(cell.name).is_file()
            with console.progress("reading signals and embeddings"):
                if opened is None or not opened.is_compatible(recipe):
                    opened = TrainingData(job, recipe, stores, subjects, launch)
                layout, data = opened.select_cell(cell)
            # one process logs, with the caveats of all that the cell learns from
            names = recipe.run.trackers if worker.is_main else ()
            caveats, settings = learned_by(data, recipe.train).caveats, recipe.model_dump(mode="json")
            with trackers.tracked(names, folder.path, cell.name, settings, caveats) as track:
                terms, train = recipe.loss_terms, recipe.train
                train_cell(cell.name, cell.seed, layout, data, terms, train, folder, worker, track)
            # the time of a resumed cell is not that of all its epochs
            trained += [] if is_begun else [cell]
            busy_s = time.monotonic() - started_s
            bar.advance(folder.count_finished(files) - bar.items)
        bar.advance(len(todo) - bar.items)

    # the pace of this launch, without waiting for other workers
    launch.barrier()
    every = launch.gather((trained, busy_s if trained else 0.0))
    cells = [cell for cells_of_job, _ in (every if is_alone else every[:1]) for cell in cells_of_job]
    return replace(job.count_work(cells), seconds=max(spent for _, spent in every)) if cells else None


def _collect_measurements(folder: RunFolder, cells: Sequence[Cell], facts: TrainingFacts) -> Measurements:
    """Collect what the cells measured."""
    scopes: dict[str, Any] = {}
    caveats, described = [], {}
    for cell in cells:
        name = f"cells/{cell.name}/{FINISHED}"
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
    facts = facts.model_copy(update={"caveats": merge_caveats(*caveats), "cells": described})
    return Measurements(scopes, facts=facts)


def _next_command(job: Job, folder: RunFolder) -> Hint:
    """Write the line of the next step: retrieval, after embedding the test stimuli where that is missing."""
    recipe = job.recipe
    # without test stimuli there is no gallery to retrieve from
    if job.dataset.holdout.stored_split("test") not in job.dataset.splits:
        return Line("report", folder.path.name)
    hint = Line("eval-retrieval", ("run", folder.path))
    if are_embedded(job.dataset, recipe.encoders, recipe.paths.under_home("embeddings"), ["test"]):
        return hint
    return f"{write_embedding(recipe.dataset, recipe.encoders)} && {hint}"
