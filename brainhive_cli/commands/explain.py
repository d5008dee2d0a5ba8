"""explain: where, when, in which band and at which level the signal carries what was seen."""

import shlex
from typing import Any

from brainhive_cli.commands import train_align
from brainhive_cli.core import artifacts, console
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Table
from brainhive_cli.evaluation.explanation.conclusion import FIGURES, conclude
from brainhive_cli.evaluation.explanation.encoding_model import explain_signals
from brainhive_cli.evaluation.explanation.job import Job
from brainhive_cli.evaluation.explanation.model_profiles import explain_model
from brainhive_cli.evaluation.explanation.recipe import OF_MODEL, Recipe
from brainhive_cli.training.alignment.trained import AlignRun

__all__ = ["Recipe", "plan", "run"]


def plan(recipe: Recipe) -> Plan:
    """Say which run, cells and analyses there would be, and what is missing or left out."""
    job = Job(recipe)
    return Plan.of(
        {
            "run": lambda: job.align.name,
            "cells": lambda: ", ".join(cell.name for cell in job.align.cells),
            "subjects": lambda: [*job.subjects],
            "analyses": lambda: ", ".join(job.spec.analyses),
            "left out": lambda: "; ".join(f"{k}: {why}" for k, why in job.left_out().items()) or "nothing",
            "levels": lambda: ", ".join(job.check_levels()) or "none",
            "control": lambda: f"{job.spec.control}, {job.spec.draws} permutations",
            "figures": job.check_figures,
        },
        lambda: job.work,
    )


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Explain every cell and subject, then all together; what an interrupted run has finished is kept."""
    job = Job(recipe)
    job.check_figures()
    job.check_levels()
    folder = RunFolder.open("explain", job.align.label, job.pinned, launch, again)
    work = job.work if folder.is_untouched else None
    if not folder.is_finished:
        _explain(job, folder, launch)
        launch.barrier()
        if launch.is_main:
            folder.finish(conclude(job, folder, launch.device))
        launch.barrier()
    with folder.reading() as found:
        tables = tuple(each for each in artifacts.read(folder) if isinstance(each, Table))
        files = {"figures": folder.path / FIGURES} if recipe.figures else {}
        hint = shlex.join(["brainhive", "report", str(folder.path)])
        return Result(folder.path, tables, found, files, hint, work=work)


def _explain(job: Job, folder: RunFolder, launch: Launch) -> None:
    """Measure the parts that are not finished, shared by all processes."""
    job.align.prepare_signals(launch)
    control = _trained_control(job, launch)
    work: list[tuple[Any, int]] = [*job.pairs] if job.analyses_of(OF_MODEL) else []
    if "encoding" in job.spec.analyses:
        work += [(None, subject) for subject in job.subjects]
    todo = [each for each in work if not (folder.path / job.part(*each)).is_file()]
    launch.barrier()
    with console.progress("cells and subjects", len(todo)) as bar:
        for cell, subject in launch.shard(todo):
            reader = job.reader(cell or job.subjects[subject][0], subject, launch.device)
            if cell is None:
                found = explain_signals(reader, job.levels("train"), job.levels(job.spec.split), job.spec)
            else:
                shuffled = job.reader(cell, subject, launch.device, control) if control else None
                found = explain_model(reader, job.spec, shuffled)
            folder.replace(job.part(cell, subject), found.save)
            bar.advance()


def _trained_control(job: Job, launch: Launch) -> AlignRun | None:
    """Train the same cells on shuffled labels, if the recipe wants it; a finished training is found."""
    if job.spec.control != "trained" or not job.analyses_of(OF_MODEL):
        return None
    return job.opened_control(train_align.run(job.control, launch).folder)
