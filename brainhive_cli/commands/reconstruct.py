"""reconstruct: from test signals to pictures or clips, through a prior and a generator."""

import time
from dataclasses import replace
from pathlib import PurePosixPath

from brainhive_cli.commands import trackers
from brainhive_cli.core import console
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.pace import Work
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.set_up import SET_UP
from brainhive_cli.evaluation.reconstruction.baselines import stills
from brainhive_cli.evaluation.reconstruction.conditions import decoded_sets, of_brain
from brainhive_cli.evaluation.reconstruction.evaluation import (
    Stimuli,
    compare_with,
    measure_run,
    open_run,
    result_of,
)
from brainhive_cli.evaluation.reconstruction.job import Job
from brainhive_cli.evaluation.reconstruction.recipe import Recipe, Scoring
from brainhive_cli.evaluation.reconstruction.stimulus_heads import StimulusHeads
from brainhive_cli.evaluation.reconstruction.swept import measure_variants, sweep_tables
from brainhive_cli.measurement.units import Alike
from brainhive_cli.training.alignment.learned import describe_tested

__all__ = ["Recipe", "plan", "run"]


def plan(recipe: Recipe) -> Plan:
    """Say which run, prior and generator would be used, how much they need, and what is missing."""
    return _plan(Job(recipe, is_plan=True))


def _plan(job: Job, estimates_memory: bool = True) -> Plan:
    recipe = job.recipe
    if recipe.is_swept:
        return _plan_sweep(job)
    if recipe.score is not None:
        return Plan.of(
            {"pictures": lambda: len(job.folders.generated.media), "metrics": lambda: job.metrics_line}
        )
    return Plan.of(
        {
            "prior": lambda: ": ".join(filter(None, [recipe.prior.source, ", ".join(job.prior.dims)])),
            "align run": lambda: job.align.name,
            "pictures": lambda: job.count_line,
            "baselines": lambda: job.baselines_line,
            "generator": recipe.generator.check,
            **({"memory, estimated": lambda: job.memory_line} if estimates_memory else {}),
            "metrics": lambda: job.metrics_line,
            "against": lambda: ", ".join(str(other.path) for other in job.against) or "none",
            **trackers.checks(recipe.run.trackers),
        },
        lambda: job.work,
        job.needs,
    )


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Generate what is not there yet, then measure; or score what others made."""
    trackers.require(recipe.run.trackers)
    job = Job(recipe)
    return _run_sweep(job, launch, again) if recipe.is_swept else _run(job, launch, again)


def _plan_sweep(job: Job) -> Plan:
    """Plan the first variant, and collect what is missing for any."""
    try:
        plans = {label: _plan(each, not place) for place, (label, each) in enumerate(job.variants.items())}
    except BrainhiveError as error:
        return Plan({}, (error,))
    first = next(iter(plans.values()))
    counts, sampled = {}, 0
    for label, each in plans.items():
        kept, _, rest = str(each.items.get("pictures", "unknown")).partition(":")
        more = rest.partition(", ")[2]  # of several samplings one is kept
        counts[label] = f"{kept} pictures{more and f', {more}'}"
        sampled += job.variants[label].work.count if kept.isdigit() else 0
    listed = ", ".join(f"{label} ({count})" for label, count in counts.items())
    needs = [need for each in plans.values() for need in each.needs]
    errors = [error for each in plans.values() for error in each.errors]
    merged = Plan.of({}, needs=lambda: needs, raised=errors)
    return replace(merged, items={"variants": listed, "in all": f"{sampled:,} pictures", **first.items})


def _run_sweep(job: Job, launch: Launch, again: bool) -> Result:
    """Run every variant by itself, and lay them out in one table; they are compared with the first."""
    results = {label: _run(each, launch, again) for label, each in job.variants.items()}
    first = next(iter(job.variants.values()))
    folder = RunFolder.open("reconstruct", f"{first.align.label}-sweep", job.pinned, launch, again)
    if launch.is_main:
        folder.finish(
            measure_variants(results)
        )  # again where it is finished: a variant may have got a metric
    launch.barrier()
    with folder.reading() as found:
        for reason in found.notes["not_compared"]:
            console.warn(f"not compared: {reason}")
        files = {
            f"{label} {kind}": path for label, each in results.items() for kind, path in each.files.items()
        }
        return Result(folder.path, sweep_tables(found, job.recipe.published), found, files)


def _run(job: Job, launch: Launch, again: bool) -> Result:
    recipe = job.recipe
    others = job.against  # found before anything is generated
    score = (_score(job, launch, again), None) if recipe.score is not None else None
    start = time.monotonic()
    folder, work = score or _reconstruct(job, launch, again)
    if launch.is_main and others:
        compare_with(folder, others)
    launch.barrier()
    result = result_of(folder, recipe.published)
    if launch.is_main:
        found = result.metrics
        values = {source: found.scopes[source] for source in found.notes["sources"]}
        shown = recipe.model_dump(mode="json")
        trackers.log_results(
            recipe.run.trackers, result.folder, "reconstruction", shown, values, found.caveats
        )
    return replace(result, work=(work, time.monotonic() - start) if work else None)


def _score(job: Job, launch: Launch, again: bool) -> RunFolder:
    """Score a folder of reconstructions."""
    folders, recipe = job.folders, job.pinned
    folder = open_run(f"score-{folders.generated.name}", recipe, recipe.metric_encoders, launch, again)
    if not folder.is_finished:
        stimuli = Stimuli(
            lambda name: folders.open_true(folders.truths[name]),
            lambda name: PurePosixPath(name).name,
            alike=Alike("neighbours" if folders.medium == "clip" else "concept", medium=folders.medium),
        )
        notes = {"score": recipe.score, "unmatched": folders.unmatched, "without": folders.without}
        generated = [folders.generated]
        if folders.medium == "clip":
            if len(folders.generated.files) > 1:
                generated.append(folders.shuffled())
            generated += launch.gather(stills(generated[:1], folder) if launch.is_main else [])[0]
        scoring = recipe.section(Scoring)
        measure_run(folder, scoring, generated, stimuli, "scored", launch, {}, notes)
    launch.barrier()
    return folder


def _reconstruct(job: Job, launch: Launch, again: bool) -> tuple[RunFolder, Work | None]:
    """Decode, generate and score; a finished run is left as it is.

    Returns:
        The run, and the work that was done, where it was all of it.
    """
    recipe, align, baselines = job.pinned, job.align, job.baselines
    folder = open_run(align.label, recipe, recipe.metric_encoders, launch, again, baselines.is_here)
    work = job.work if folder.is_untouched else None
    if not folder.is_finished:
        prior = job.prior.to(launch.device)
        heads = StimulusHeads.of(align, prior, launch.device)
        align.prepare_signals(launch)

        # heads: decoded from signals, then of all other sources
        brain = [of_brain(align, cell, subject, recipe.split, launch.device) for cell, subject in job.cells]
        sets = decoded_sets(job.sources, brain, heads, recipe.split, recipe.items)
        job.check(sets, prior, launch)

        # media, written to the run's folder
        generation = job.generation(prior, heads, launch)
        for decoded_set in sets:
            generation.generate(decoded_set, folder, launch)
        del generation  # and with it the generator: its memory is the metrics' now

        # training pictures in their place, then scores
        kept = [decoded_set.first(recipe.items) for decoded_set in brain]
        generated = [job.generated(decoded_set, folder) for decoded_set in sets]
        launch.barrier()  # stills are made of what all processes generated
        others, missing = baselines.make(job.sources, kept, generated, heads, job.trained, folder, launch)
        generated += others
        if not generated:
            raise MissingData(
                f"none of the sources can be made: {', '.join(missing)}",
                "; ".join(dict.fromkeys(missing.values())),
            )
        generated.sort(key=lambda each: [*map(str, job.sources)].index(each.source))
        generated += job.task_floors(brain, folder)
        notes = {"prior": recipe.prior.source, "mode": align.mode, "published": recipe.published_notes}
        notes[SET_UP] = job.set_up
        notes |= describe_tested([align.tested_pictures(recipe.split)])
        scoring = recipe.section(Scoring)
        measure_run(folder, scoring, generated, job.stimuli, recipe.split, launch, missing, notes)
    launch.barrier()
    return folder, work
