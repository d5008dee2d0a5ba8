"""train-align: a brain model for each cell (subjects × seed), trained to predict its targets."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from brainhive_cli.commands import trackers
from brainhive_cli.core import artifacts, console, documents
from brainhive_cli.core.caveats import merge_caveats
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.results import Plan, Result, Work
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.data.command_lines import are_embedded, command
from brainhive_cli.data.targets.target_stores import keep_identity
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.initialisation import learned_by
from brainhive_cli.training.alignment.job import Job
from brainhive_cli.training.alignment.loop import train_cell
from brainhive_cli.training.alignment.progress import Watch, artifacts_of, failed, tables
from brainhive_cli.training.alignment.recipe import Recipe
from brainhive_cli.training.alignment.training_data import TrainingData


class CellNotes(BaseModel):
    """What the notes of a cell's metrics say."""

    epoch: int
    selected_on: str


def plan(recipe: Recipe) -> Plan:
    """List the cells there would be, and what is missing for them."""
    job = Job(recipe, is_plan=True)
    checks: dict[str, Callable[[], Any]] = {
        "subjects": lambda: job.subjects,
        "seeds": lambda: job.recipe.seeds,
        "cells": lambda: console.few([cell.name for cell in job.cells]),
        "embeddings": lambda: ", ".join(job.stores),
        "held out": lambda: "; ".join(why or share for share, why in job.validation.items()),
        **({"at each step": lambda: job.online} if recipe.train.online else {}),
        "signal": lambda: job.signal,
        "target": lambda: job.targets,
        "memory, estimated": lambda: job.memory_line,
        **trackers.checks(recipe.run.trackers),
    }
    if any(recipe.train.starts):
        checks["starts from"] = lambda: job.start_line
    if recipe.is_swept:
        checks["variants"] = lambda: ", ".join(job.variants)
    if recipe.mode == "finetune":
        checks["trained from"] = lambda: job.recipe.finetune.run or job.recipe.finetune.trained_by or ""
    return Plan.of(checks, lambda: job.work(job.cells), job.needs)


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Train every cell that is not finished; the test split is never read."""
    job = Job(recipe)
    trackers.require(recipe.run.trackers)
    folder = RunFolder.open("train-align", job.label, job.recipe.holding(job.digests), launch, again)
    work = None
    if not folder.is_finished:
        work = _train(job, folder, launch)
        if launch.is_main:
            notes = {"mode": job.recipe.mode, "dataset": job.dataset.name, **job.described()}
            notes["warnings"] = [*failed(job.stores), *filter(None, job.validation.values())]
            shown = artifacts_of(folder, [cell.name for cell in job.cells], job.stores)
            artifacts.write(folder, shown)
            folder.finish(_measurements(folder, job.cells, notes))
        launch.barrier()
    hint = _next(job, folder) if launch.is_main else ""
    with folder.reading() as metrics:
        return Result(folder.path, tables(metrics, job.cells), metrics, hint=hint, work=work)


def _next(job: Job, folder: RunFolder) -> str:
    """Write the line of the next step: retrieval, after embedding the test stimuli where that is missing."""
    recipe = job.recipe
    if "test" not in job.dataset.splits:
        return shlex.join(["brainhive", "report", folder.path.name])
    hint = shlex.join(["brainhive", "eval-retrieval", "--run", str(folder.path)])
    if are_embedded(job.dataset, recipe.encoders, recipe.paths.under_home("embeddings"), ["test"]):
        return hint
    return f"{command('embed', recipe.dataset, recipe.encoders)} && {hint}"


def _measurements(folder: RunFolder, cells: Sequence[Cell], notes: Mapping[str, Any]) -> Measurements:
    """Collect what the cells measured."""
    found = {}
    for cell in cells:
        name = f"cells/{cell.name}/{FINISHED}"
        found[cell.name] = folder.measurements(name)
        documents.check(dict(found[cell.name].notes), f"{folder.path / name}: notes", CellNotes)
    scopes = {name: metrics for each in found.values() for name, metrics in each.scopes.items()}
    caveats = merge_caveats(*(each.caveats for each in found.values()))
    of_cells = {cell.name: dict(found[cell.name].notes) | _about(cell) for cell in cells}
    return Measurements(scopes, notes={**notes, "caveats": caveats, "cells": of_cells})


def _about(cell: Cell) -> dict[str, Any]:
    """Say whose validation a cell's is: of one subject, if that one was trained on."""
    is_of_one = len(cell.trained_on) == 1 and cell.trained_on == cell.tested_on
    whose: dict[str, Any] = {"subject": cell.trained_on[0]} if is_of_one else {}
    return whose | {"seed": cell.seed} | ({"variant": cell.variant} if cell.variant else {})


def _train(job: Job, folder: RunFolder, launch: Launch) -> Work | None:
    """Take whole cells from a queue when there are enough for all; else share each cell's batches.

    Returns:
        What was done; None where the run was continued.
    """
    is_new = folder.is_untouched
    todo = [cell for cell in job.cells if not (folder.path / f"cells/{cell.name}/metrics.json").is_file()]
    todo = sorted(launch.gather(todo)[0], key=lambda cell: -len(cell.trained_on))  # the longest first
    alone = len(todo) >= launch.processes
    worker = Launch(0, 1, launch.device) if alone else launch
    keep_identity(folder, job.stores, launch.is_main)  # before signals are made: a missing store ends it here
    for reason in filter(None, job.validation.values()):
        console.warn(reason)
    job.prepare_signals(launch)
    watch = Watch(folder.path, todo, {label: each.train.epochs for label, each in job.variants.items()})
    data = None
    with console.live(watch.table, watch.news):
        for cell in launch.queue(todo, str(folder.path)) if alone else todo:
            if data is None or not data.is_compatible(job.variants[cell.variant]):
                data = TrainingData(job, job.variants[cell.variant], launch)
            _train_cell(job, cell, data, folder, worker)
    launch.barrier()
    return job.work(todo) if is_new else None


def _train_cell(job: Job, cell: Cell, opened: TrainingData, folder: RunFolder, worker: Launch) -> None:
    """Train one cell; its epochs go to the log and the trackers."""
    recipe = job.variants[cell.variant].holding(job.digests)
    layout, data = opened.of_cell(cell)
    names, caveats = recipe.run.trackers if worker.is_main else (), learned_by(data, recipe.train).caveats
    with trackers.tracked(names, folder.path, cell.name, recipe.model_dump(mode="json"), caveats) as track:

        def on_epoch(event: dict[str, Any]) -> None:
            folder.log(**event)
            track(event)

        given = (layout, data, recipe.loss_terms, recipe.train, folder, worker, on_epoch)
        train_cell(cell.name, cell.seed, *given)
