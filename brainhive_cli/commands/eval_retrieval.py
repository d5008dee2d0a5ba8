"""eval-retrieval: which picture of the gallery was seen, for every cell of an align run."""

import shlex
from dataclasses import replace

from brainhive_cli.commands import trackers
from brainhive_cli.core import artifacts, console, home
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import ALL, Measurements, scope
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.sweep import collect_variants, reading_sweep
from brainhive_cli.data.command_lines import command, write_prior
from brainhive_cli.evaluation.retrieval.cell_scores import measure_cell
from brainhive_cli.evaluation.retrieval.figures import artifacts_of
from brainhive_cli.evaluation.retrieval.job import Job
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.evaluation.retrieval.summary import BACKWARD, summarise_job
from brainhive_cli.evaluation.retrieval.tables import asked_tables, sweep_tables, tables
from brainhive_cli.measurement.paired_runs import compare_pairs, compare_ranks

__all__ = ["Recipe", "plan", "run"]


def plan(recipe: Recipe) -> Plan:
    """Say which runs and cells would be evaluated, and what is missing."""
    job = Job(recipe, is_plan=True)
    return Plan.of(
        {
            "run": lambda: ", ".join(run.name for run in job.runs),
            "cells": lambda: len(job.groups),
            f"{recipe.gallery} pictures of": lambda: ", ".join(job.stores),
            "curves": lambda: ", ".join(job.check_figures()) or "none",
            "against": lambda: ", ".join(other.runs[0].name for other in job.against) or "none",
            **trackers.checks(recipe.run.trackers),
        },
        lambda: job.work,
        job.needs,
    )


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Evaluate every cell on the subjects it is tested on, then compare with other runs."""
    trackers.require(recipe.run.trackers)
    return _run(Job(recipe), launch, again)


def _run(job: Job, launch: Launch, again: bool = False) -> Result:
    if job.variants:
        return _run_sweep(job, launch, again)
    job.check_figures()
    others = [_run(other, launch).metrics for other in job.against]
    folder = RunFolder.open("eval-retrieval", job.label, job.pinned, launch, again)
    work = job.work if folder.is_untouched else None
    if not folder.is_finished:
        _evaluate(job, others, folder, launch)
        launch.barrier()
    result = replace(_result(job, folder), work=work)
    if launch.is_main:
        found = result.metrics
        both = {name: found.scopes[name] for name in (ALL, scope(ALL, BACKWARD)) if name in found.scopes}
        written = job.pinned.model_dump(mode="json")
        trackers.log_results(job.recipe.run.trackers, folder.path, "retrieval", written, both, found.caveats)
    return result


def _evaluate(job: Job, others: list[Measurements], folder: RunFolder, launch: Launch) -> None:
    """Measure the cells, shared by all processes; the main one writes."""
    for run in job.runs:
        run.prepare_signals(launch)
    own = {}
    for group in launch.shard(job.groups):
        ensemble = job.load(group, launch.device)
        own[ensemble.cell.name] = measure_cell(ensemble, job.spec)
    scores = {name: score for share in launch.gather(own) for name, score in share.items()}
    if not launch.is_main:
        return
    found = summarise_job(job, scores)
    found |= Measurements(notes={"against": compare_ranks(found, others)})
    if found.notes["verdict"] != "above chance" and job.spec.control == "none":
        verdict = found.notes["verdict"]
        console.warn(f"retrieval is {verdict}: do signals and pictures belong together as they are filed?")
    recipe = job.recipe
    first = job.load(job.groups[0], launch.device) if recipe.sheet_rows else None
    rows = (recipe.sheet_rows, recipe.concept_rows)
    artifacts.write(folder, artifacts_of(folder, found, first, job.spec, *rows, recipe.embedding_map))
    folder.finish(found)


def _run_sweep(job: Job, launch: Launch, again: bool) -> Result:
    """Evaluate every variant of a sweep by itself, then compare them in pairs; nothing is pooled."""
    results = {variant.runs[0].variant: _run(variant, launch, again) for variant in job.variants}
    folder = RunFolder.open("eval-retrieval", job.label, job.pinned, launch, again)
    if launch.is_main and not folder.is_finished:
        compared, reasons = compare_pairs({label: result.metrics for label, result in results.items()})
        collected = collect_variants(results)
        notes = {"run": job.runs[0].name, "comparisons": compared, "not_compared": reasons}
        folder.finish(replace(collected, notes={**collected.notes, **notes}))
    launch.barrier()
    with reading_sweep(folder) as found:
        every, shown = (
            sweep_tables({variant: tables or () for variant, tables in each.items()}, found)
            for each in (
                {variant: result.tables for variant, result in results.items()},
                {variant: result.shown for variant, result in results.items()},
            )
        )
        return Result(folder.path, every, found, shown=shown)


def _result(job: Job, folder: RunFolder) -> Result:
    with folder.reading() as found:
        return _shown(job, folder, found)


def _shown(job: Job, folder: RunFolder, found: Measurements) -> Result:
    notes = dict(found.notes)
    notes |= {"run": home.stored(notes["run"]), "runs": [home.stored(each) for each in notes["runs"]]}
    notes["against"] = [{**each, "run": home.stored(each["run"])} for each in notes["against"]]
    found |= Measurements(notes=notes)
    hint = shlex.join(["brainhive", "report", str(folder.path)])
    if prior := notes["prior"]:  # without one there is nothing to draw through
        drawing = write_prior("reconstruct", prior, job.runs[0].dataset_config)
        hint = command("reconstruct", None, [], *drawing, "--run", notes["run"])
    every = tables(found, job.recipe.concept_rows)
    return Result(folder.path, every, found, hint=hint, shown=asked_tables(found))
