"""train-align: a brain model for each cell (subjects × seed), trained to predict its
targets.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from typing import Any

from brainhive_cli.commands import trackers
from brainhive_cli.core import artifacts, console
from brainhive_cli.core.cells import announce, claim_cells, finishing, start_run
from brainhive_cli.core.command import Input, Result, Work, collect
from brainhive_cli.core.errors import Hint, Line
from brainhive_cli.core.facts import TrainingFacts
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import (
    Measurements,
    Metric,
    merge_caveats,
    name_rows,
)
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.core.tables import Table, mean_sd
from brainhive_cli.data.stores.target_store import TargetStore
from brainhive_cli.data.targets.target_stores import (
    are_embedded,
    keep_identity,
    problem_of,
    write_embedding,
)
from brainhive_cli.reports.tables import ABSENT, published_tables, with_interval
from brainhive_cli.training.alignment.job import Job
from brainhive_cli.training.alignment.recipe import Cell, Recipe, list_subjects

PROTOCOLS = {"test": "epochs selected on test", "last epoch": "last epoch kept"}
"""Selection of epochs, in a table's title; nothing where it was by validation."""
MOST = 6
"""Cells that have a line each; of more, their mean is drawn, with the lowest and the
highest.
"""
CURVE_TITLES = {
    "loss": "Loss",
    "validation_top1": "Top-1 on held-out training pictures",
}
"""Keys of an epoch in the log, and the titles of their curves."""


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
    names = console.summarise_names(
        [cell.name for cell in Job.resolve(recipe).list_cells()]
    )
    return [Table("Cells", ("item", "value"), [("cells", names)])]


def run(
    recipe: Recipe,
    launch: Launch,
    again: bool = False,
    finished: list[str] | None = None,
) -> Result:
    """Train every cell that is not finished; the test split is never read.

    A finished run is only read; `finished` gets its name, if it is no None.
    """
    trackers.require(recipe.run.trackers)
    # resolve: cells, signals, and the identities of all that is read, which name the
    # run
    with console.progress("opening signals and embeddings"):
        job = Job.resolve(recipe)
        job.require()
        cells = job.list_cells()
        # a missing store ends it before signals are made
        stores = {} if job.has_signals(cells) else job.open_stores()
        job.prepare_signals(cells, launch)
        digests = job.digests()
        job = job.pinned(digests)
    folder = start_run(
        "train-align",
        job.recipe.run_label(job.recipe.paths),
        job.recipe,
        launch,
        again,
        digests,
        finished,
    )

    # train what an earlier command has not trained, and write what all cells measured
    work = None
    if not folder.is_finished:
        with console.progress("opening embeddings and what is trained further"):
            for cell in cells:
                job.find_starts(cell)  # which are refused before anything is trained
            stores = stores or job.open_stores()
        work = train_cells(job, cells, stores, folder, launch)
        with finishing(folder, launch) as is_due:
            if is_due and launch.is_main:
                problems = {name: problem_of(store) for name, store in stores.items()}
                failed = [
                    f"{name} failed its health check: {why}"
                    for name, why in problems.items()
                    if why
                ]
                facts = TrainingFacts(
                    mode=job.recipe.mode,
                    dataset=job.dataset.name,
                    stimulus=job.dataset.stimulus,
                    warnings=failed,
                    is_closed_form=all(
                        variant.backbone.is_closed_form
                        for variant in job.variants.values()
                    ),
                    **job.describe_set_ups(cells),
                )
                artifacts.write(
                    folder, learning_curves(folder, [cell.name for cell in cells])
                )
                folder.finish(_collect_measurements(folder, cells, facts))

    # show the tables, and the line of what comes next
    hint = _next_command(job, folder) if launch.is_main else ""
    metrics = folder.measurements()
    return Result(folder.path, tables(metrics, cells), metrics, hint=hint, work=work)


def train_cells(
    job: Job,
    cells: Sequence[Cell],
    stores: Mapping[str, TargetStore],
    folder: RunFolder,
    launch: Launch,
) -> Work | None:
    """Train free cells, each by one process when there are enough for all; else share
    each cell's batches.

    Returns:
        What these processes have trained from the first epoch to the last, and how long
        that took.
    """
    from brainhive_cli.training.alignment.initialisation import learned_by
    from brainhive_cli.training.alignment.loop import train_cell
    from brainhive_cli.training.alignment.training_data import TrainingData

    # all processes need one list, though other workers finish cells meanwhile
    todo = [
        cell
        for cell in cells
        if not (folder.path / f"cells/{cell.name}/{FINISHED}").is_file()
    ]
    # the longest first
    todo = sorted(launch.gather(todo)[0], key=lambda cell: -len(cell.trained_on))
    is_alone = len(todo) >= launch.processes  # each process trains cells by itself
    worker = launch.alone if is_alone else launch

    # say how much there is to train, and note which stores are read
    if todo:
        work = job.count_work(todo)
        runs = folder.path.parents[1]
        announce(work, folder.command, runs, launch)
    keep_identity(folder, stores, launch.is_main)

    # train cell by cell; variants that read the same data share them
    subjects = list_subjects(cells, with_tested=False)
    opened = None
    trained = list[Cell]()
    started_s = time.monotonic()
    cell_of_name = {cell.name: cell for cell in todo}
    files = {name: f"cells/{name}/{FINISHED}" for name in cell_of_name}
    with (
        console.divert_prints(),  # of trackers
        console.progress("training cells", len(todo)) as bar,
        claim_cells(folder, files, worker) as free,
    ):
        for cell in map(cell_of_name.__getitem__, free):
            recipe = job.variants[cell.variant]
            is_begun = folder.checkpoint_path(cell.name).is_file()
            with console.progress("reading signals and embeddings"):
                if opened is None or not opened.is_compatible(recipe):
                    opened = TrainingData(job, recipe, stores, subjects, launch)
                layout, data = opened.select_cell(cell)
            # one process logs, with the caveats of all that the cell learns from
            names = recipe.run.trackers if worker.is_main else ()
            caveats = learned_by(data, recipe.train).caveats
            settings = recipe.model_dump(mode="json")
            with trackers.tracked(
                names, folder.path, cell.name, settings, caveats
            ) as track:
                terms = recipe.loss_terms
                train = recipe.train
                train_cell(
                    cell.name,
                    cell.seed,
                    layout,
                    data,
                    terms,
                    train,
                    folder,
                    worker,
                    track,
                )
            # the time of a resumed cell is not that of all its epochs
            trained += [] if is_begun else [cell]
            busy_s = time.monotonic() - started_s
            bar.advance(folder.count_finished(files) - bar.items)
        bar.advance(len(todo) - bar.items)

    # the pace of this launch, without waiting for other workers
    launch.barrier()
    every = launch.gather((trained, busy_s if trained else 0.0))
    cells = [
        cell
        for cells_of_job, _ in (every if is_alone else every[:1])
        for cell in cells_of_job
    ]
    return (
        replace(job.count_work(cells), seconds=max(spent for _, spent in every))
        if cells
        else None
    )


def _collect_measurements(
    folder: RunFolder, cells: Sequence[Cell], facts: TrainingFacts
) -> Measurements:
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
    if job.dataset.holdout.stored_split("test") not in job.dataset.splits:
        return Line("report", folder.path.name)
    hint = Line("eval-retrieval", ("run", folder.path))
    if are_embedded(job.dataset, recipe.encoders, recipe.paths, ["test"]):
        return hint
    return f"{write_embedding(recipe.dataset, recipe.encoders)} && {hint}"


def tables(measured: Measurements, cells: Sequence[Cell]) -> tuple[Table, ...]:
    """Lay out the metrics of a finished run, cell by cell in the order of the
    recipe.
    """
    # the title says the data set, the mode and how epochs were selected
    facts = measured.facts
    described = measured.facts.cells
    selected_on = {each.selected_on for each in described.values()}
    how = "".join(
        f", {PROTOCOLS[name]}" for name in sorted(selected_on & PROTOCOLS.keys())
    )
    is_closed_form = measured.facts_of(TrainingFacts).is_closed_form
    title = (
        f"{facts.dataset} {facts.mode}{', in closed form' if is_closed_form else how}"
    )
    published = published_tables(facts.published)
    top1 = {cell.name: measured.scopes.get(cell.name, {}).get("top1") for cell in cells}

    # without validation, each cell only has the number of its epoch
    if not any(top1.values()):
        title += "; no validation: no training concept is held out (train.validation)"
        if is_closed_form:  # no epochs either
            return Table(title, ("cell",), [(name,) for name in top1]), *published
        epochs = [(name, described[name].epoch) for name in top1]
        return Table(title, ("cell", "epoch"), epochs), *published
    measured_on = next(metric.protocol for metric in top1.values() if metric)
    title += f": validation on {measured_on.partition(',')[0]}"

    # a row for each cell; one without validation has no figures
    rows: list[Any] = []
    variant_metrics = defaultdict[str, list[Metric | None]](list)
    for cell in cells:
        metric = top1[cell.name]
        context = (metric.n, metric.chance) if metric else (ABSENT, ABSENT)
        rows.append(
            (cell.name, described[cell.name].epoch, with_interval(metric), *context)
        )
        variant_metrics[cell.variant].append(metric)

    # mean and spread over all cells, or over those of each variant
    means = []
    variant_names = name_rows(variant_metrics)
    for label, metrics in variant_metrics.items():
        spread = mean_sd(metric.value for metric in metrics if metric is not None)
        if label:
            chance = metrics[0].chance if metrics[0] else ABSENT
            means.append((variant_names[label], spread, len(metrics), chance))
        elif len(cells) > 1:
            rows.append((f"mean ± sd of {len(cells)}", "", spread, "", ""))

    # means of variants come first: they are what a sweep compares
    cell_table = Table(
        title, ("cell", "epoch", "val top-1, 95 % CI", "n", "chance"), rows
    )
    variant_table = Table(
        title, ("variant", "val top-1, mean ± sd", "cells", "chance"), means
    )
    return *([variant_table] if means else []), cell_table, *published


def learning_curves(run: RunFolder, cells: Sequence[str]) -> list[artifacts.Curve]:
    """Draw the log of a run: what each cell measured after each epoch."""
    curves = []
    events = [
        event
        for event in run.events()
        if event.get("cell") in cells and "loss" in event
    ]
    for key, title in CURVE_TITLES.items():
        # values of each cell by epoch, counted from 1
        cell_values = defaultdict[str, dict[int, float]](dict)
        for event in events:
            if (value := event.get(key)) is not None:
                cell_values[event["cell"]][event["epoch"] + 1] = value

        # a line for each cell; cells may have stopped at different epochs
        epochs = sorted({*chain(*cell_values.values())})
        note = ""
        lines = [
            artifacts.Line(cell, [*map(values.get, epochs)])
            for cell, values in cell_values.items()
        ]

        # too many lines to tell apart: draw their mean, with a band from lowest to
        # highest
        if len(lines) > MOST:
            at = [
                [values[epoch] for values in cell_values.values() if epoch in values]
                for epoch in epochs
            ]
            mean = [*map(statistics.mean, at)]
            low = [*map(min, at)]
            high = [*map(max, at)]
            lines = [artifacts.Line(f"mean of {len(lines)} cells", mean, low, high)]
            note = "The band goes from the lowest cell to the highest."
        # no cell has validation_top1 where nothing validates
        if lines:
            curves.append(
                artifacts.Curve(
                    title, "epoch", epochs, lines, section="Training", note=note
                )
            )
    return curves
