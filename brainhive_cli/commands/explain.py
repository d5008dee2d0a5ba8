"""explain: sensors, times, bands and levels at which the signal carries information on stimuli."""

import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from brainhive_cli.commands import train_align
from brainhive_cli.core import artifacts, console
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Table
from brainhive_cli.data.targets.target_stores import digests_of_imported
from brainhive_cli.evaluation.explanation.conclusion import FIGURES, conclude
from brainhive_cli.evaluation.explanation.encoding_model import explain_signals
from brainhive_cli.evaluation.explanation.job import Job
from brainhive_cli.evaluation.explanation.model_profiles import explain_model
from brainhive_cli.evaluation.explanation.profiles import SubjectProfiles, part_file
from brainhive_cli.evaluation.explanation.recipe import OF_MODEL, Recipe
from brainhive_cli.evaluation.explanation.trial_decoding import count_folds, explain_trials
from brainhive_cli.training.alignment.recipe import Cell
from brainhive_cli.training.alignment.trained import AlignRun, find

__all__ = ["Recipe", "plan", "run"]


def plan(recipe: Recipe) -> Plan:
    """List the run, cells and analyses, and those that are missing or left out."""
    # checks that need no run
    analyses = {"analyses": lambda: ", ".join(recipe.analyses)}
    controls = {
        "control": lambda: f"{recipe.control}, {recipe.draws} permutations",
        "figures": lambda: ", ".join(recipe.figures) or "none",
    }
    try:
        job = Job.resolve(recipe)
    except BrainhiveError as error:
        return Plan.of(analyses | controls, raised=[error])

    # held-out trials: folds in place of cells and analyses
    if job.align.dataset.holdout is not None:
        folds = {"folds": lambda: count_folds(job)}
        return Plan.of({"run": lambda: job.align.name, **folds, **controls}, lambda: job.work)

    # held-out pictures: cells, subjects, analyses and levels
    checks: dict[str, Callable[[], Any]] = {
        "run": lambda: job.align.name,
        "cells": lambda: ", ".join(cell.name for cell in job.align.cells),
        "subjects": lambda: [*job.subjects],
        **analyses,
        "left out": lambda: "; ".join(f"{k}: {why}" for k, why in job.left_out().items()) or "nothing",
        "levels": lambda: ", ".join(job.open_levels().get(recipe.split, ())) or "none",
        **controls,
    }
    return Plan.of(checks, lambda: job.work)


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Explain every cell and subject, then all together; an interrupted run keeps its finished parts."""
    # refuse folds and levels that cannot be had before anything is computed
    with console.progress("opening models, signals and embeddings"):
        job = Job.resolve(recipe)
        count_folds(job)  # which refuses those of pictures
        spec, align = job.spec, job.align
        has_trials = align.dataset.holdout is not None
        levels = {} if has_trials else job.open_levels()
        align.prepare_signals(launch)

        # the run is pinned to the content of the trained models, and of own vectors among the levels
        own: dict[str, str] = {}
        for split in levels:
            own |= digests_of_imported(align.dataset, split, job.encoders, recipe.paths)
        pinned = job.recipe.holding({**align.digests, **own})
    folder = RunFolder.open("explain", align.label, pinned, launch, again)
    work = job.work if folder.is_untouched else None

    # held-out trials are decoded fold by fold
    if has_trials and not folder.is_finished:
        with folder.finishing(launch) as is_due:
            if is_due and launch.is_main:
                folder.finish(explain_trials(job, folder))
        launch.barrier()

    # held-out pictures are explained by the trained models
    if not folder.is_finished:
        control = _train_control(job, launch)
        with console.progress("matching the pictures of all subjects"):
            shared = job.find_shared()
            in_time, caveats = job.find_parts(shared, launch.device)

        # one part for each cell and subject, and one for the signals of each subject, by all processes
        parts: list[tuple[Cell | None, int]] = []
        if spec.analyses_of(OF_MODEL):
            parts += job.pairs
        if "encoding" in spec.analyses:
            parts += [(None, subject) for subject in job.subjects]
        todo = [part for part in parts if not (folder.path / part_file(*part)).is_file()]
        named, count = {part_file(*part): part for part in todo}, 0
        with (
            console.progress("cells and subjects", len(todo)) as bar,
            folder.claim_cells({name: name for name in named}, launch.alone) as free,
        ):
            for cell, subject in map(named.__getitem__, free):
                reader = job.reader(
                    cell or job.subjects[subject][0], subject, shared, launch.device, parts=in_time
                )
                if cell is None:
                    profiles = explain_signals(reader, levels["train"], levels[spec.split], spec)
                else:
                    shuffled = (
                        job.reader(cell, subject, shared, launch.device, control, in_time)
                        if control
                        else None
                    )
                    profiles = explain_model(reader, spec, shuffled)
                folder.replace(part_file(cell, subject), profiles.save)
                bar.advance()
                count += 1
        if sum(launch.gather(count)) < len(todo):  # no pace is known of what others have shared
            work = None
        launch.barrier()

        # all subjects together
        with folder.finishing(launch) as is_due, console.progress("explaining all subjects together"):
            if is_due and launch.is_main:
                readers = [
                    job.reader(cells[0], subject, shared, launch.device, parts=in_time)
                    for subject, cells in job.subjects.items()
                ]
                loaded = {part: SubjectProfiles.load(folder.path / part_file(*part)) for part in parts}
                folder.finish(conclude(job, folder, readers, loaded, levels.get(spec.split, {}), caveats))
        launch.barrier()

    # report the tables and figures
    with folder.reading() as measurements:
        tables = tuple(artifact for artifact in artifacts.read(folder) if isinstance(artifact, Table))
        files = {"figures": folder.path / FIGURES} if recipe.figures else {}
        hint = shlex.join(["brainhive", "report", str(folder.path)])
        return Result(folder.path, tables, measurements, files, hint, work=work)


def _train_control(job: Job, launch: Launch) -> AlignRun | None:
    """Train the same cells on shuffled labels, if the recipe asks for it; a finished training is read."""
    # only analyses of trained models have this control
    recipe, training = job.recipe, job.align.recipe
    if recipe.control != "trained" or not recipe.analyses_of(OF_MODEL) or training is None:
        return None

    # the runs of the control lie below those of explain, so that other commands do not find them
    paths = recipe.paths.model_copy(update={"runs": f"{recipe.paths.runs}/explain/controls"})
    train = training.train.model_copy(update={"shuffled_labels": True})
    control = training.model_copy(update={"paths": paths, "train": train, "run": recipe.run})
    folder = train_align.run(control, launch).folder
    shuffled = find(str(folder), paths, recipe.dataset, recipe.subjects)
    return replace(shuffled, allows_copies=job.align.allows_copies)
