"""reconstruct: from test signals to pictures or clips, through a prior and a generator."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from brainhive_cli.commands import trackers
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.results import Need, Plan, Result, Work
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.set_up import SET_UP
from brainhive_cli.core.sweep import reading_sweep
from brainhive_cli.evaluation.reconstruction.baselines import stills
from brainhive_cli.evaluation.reconstruction.conditions import StimulusHeads, decoded_sets, of_brain
from brainhive_cli.evaluation.reconstruction.evaluation import (
    compare_with,
    measure_run,
    open_run,
    result_of,
)
from brainhive_cli.evaluation.reconstruction.folders import MatchedFolders
from brainhive_cli.evaluation.reconstruction.job import (
    Job,
    describe_memory,
    describe_metrics,
    find_runs_to_compare,
    find_start_pictures,
    load_prior,
    resolve_variants,
)
from brainhive_cli.evaluation.reconstruction.recipe import Recipe, Scoring
from brainhive_cli.evaluation.reconstruction.scoring import Stimuli
from brainhive_cli.evaluation.reconstruction.swept import measure_variants, sweep_tables
from brainhive_cli.measurement.units import Alike
from brainhive_cli.training.alignment.learned import describe_tested

__all__ = ["Recipe", "plan", "run"]


def plan(recipe: Recipe) -> Plan:
    """Say which run, prior and generator would be used, how much they need, and what is missing."""
    if recipe.score is not None:
        try:
            folders = MatchedFolders.match(recipe.score, recipe.truth, recipe.medium)
        except BrainhiveError as error:
            return Plan.of({}, raised=[error])
        return Plan.of(
            {
                "pictures": lambda: len(folders.generated.media),
                "metrics": lambda: describe_metrics(recipe, folders.medium),
            }
        )
    if recipe.is_swept:
        return _plan_sweep(recipe)
    prior = None
    try:
        prior = load_prior(recipe)
        return _plan(recipe, prior, Job.resolve(recipe, prior, is_plan=True))
    except BrainhiveError as error:
        return _plan(recipe, prior, None, error)


def _plan(
    recipe: Recipe,
    prior: Any,
    job: Job | None,
    error: BrainhiveError | None = None,
    estimates_memory: bool = True,
) -> Plan:
    """Plan as far as prior and job could be resolved; `error` says why they could not."""
    checks: dict[str, Callable[[], Any] | BrainhiveError] = {}
    if prior is not None:
        checks["prior"] = lambda: ": ".join(filter(None, [recipe.prior.source, ", ".join(prior.dims)]))
    if job is not None:
        checks["align run"] = lambda: job.align.name
        checks["pictures"] = job.describe_count
        checks["baselines"] = job.describe_baselines
    elif error is not None:
        checks["prior" if prior is None else "align run"] = error
    checks["generator"] = recipe.generator.check
    if recipe.initial.is_given:
        checks["starts from"] = lambda: find_start_pictures(recipe) and "pictures"
    if prior is not None and estimates_memory:
        checks["memory, estimated"] = lambda: describe_memory(recipe, prior)
    if job is not None:
        checks["metrics"] = lambda: describe_metrics(recipe, job.medium)
    checks["against"] = lambda: ", ".join(str(run.path) for run in find_runs_to_compare(recipe)) or "none"
    checks |= trackers.checks(recipe.run.trackers)

    def needs() -> list[Need]:
        of_generator: list[Need] = list(getattr(recipe.generator, "needs", list)())
        return [*(job.needs() if job is not None else []), *of_generator]

    return Plan.of(checks, None if job is None else lambda: job.work, needs)


def _plan_sweep(recipe: Recipe) -> Plan:
    """Plan the first variant, and collect what is missing for any."""
    try:
        jobs = resolve_variants(recipe, is_plan=True)
    except BrainhiveError as error:
        return Plan({}, (error,))
    plans = {
        label: _plan(job.recipe, job.prior, job, estimates_memory=not place)
        for place, (label, job) in enumerate(jobs.items())
    }
    counts, sampled = [], 0
    for label, job in jobs.items():
        kept = job.work.count // job.recipe.best_of
        more = f", of {job.work.count} generated" if job.recipe.best_of > 1 else ""  # of several one is kept
        counts.append(f"{label} ({kept} pictures{more})")
        sampled += job.work.count
    first = next(iter(plans.values()))
    merged = Plan.of(
        {},
        needs=lambda: [need for planned in plans.values() for need in planned.needs],
        raised=[error for planned in plans.values() for error in planned.errors],
    )
    return replace(
        merged, items={"variants": ", ".join(counts), "in all": f"{sampled:,} pictures", **first.items}
    )


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Generate what is not there yet, then measure; or score what others made."""
    trackers.require(recipe.run.trackers)
    if recipe.is_swept:
        return _run_sweep(recipe, launch, again)
    return _run(recipe, None, launch, again)


def _run_sweep(recipe: Recipe, launch: Launch, again: bool) -> Result:
    """Run every variant by itself, and lay them out in one table; they are compared with the first."""
    jobs = resolve_variants(recipe)
    results = {label: _run(job.recipe, job, launch, again) for label, job in jobs.items()}
    first = next(iter(jobs.values()))
    digests = {name: digest for job in jobs.values() for name, digest in job.pinned().digests.items()}
    pinned = recipe.model_copy(update={"align_run": first.align_reference}).holding(digests)
    folder = RunFolder.open("reconstruct", f"{first.align.label}-sweep", pinned, launch, again)
    if launch.is_main:  # again where it is finished: a variant may have got a metric
        folder.finish(measure_variants(results))
    launch.barrier()
    with reading_sweep(folder) as measurements:
        files = {
            f"{label} {kind}": path
            for label, result in results.items()
            for kind, path in result.files.items()
        }
        return Result(folder.path, sweep_tables(measurements, recipe.published), measurements, files)


def _run(recipe: Recipe, job: Job | None, launch: Launch, again: bool) -> Result:
    """Run a recipe that is no sweep, or one variant of it; then compare it with other runs."""
    runs_to_compare = find_runs_to_compare(recipe)  # before anything is generated
    work = None
    if recipe.score is not None:
        folder = _score(recipe, launch, again)
    else:
        job = Job.resolve(recipe, load_prior(recipe)) if job is None else job
        folder, work = _reconstruct(job, launch, again)
    if launch.is_main and runs_to_compare:
        compare_with(folder, runs_to_compare)
    launch.barrier()
    result = result_of(folder, recipe.published)
    if launch.is_main:
        metrics = result.metrics
        values = {source: metrics.scopes[source] for source in metrics.notes["sources"]}
        trackers.log_results(
            recipe.run.trackers,
            result.folder,
            "reconstruction",
            recipe.model_dump(mode="json"),
            values,
            metrics.caveats,
        )
    return replace(result, work=work)


def _score(recipe: Recipe, launch: Launch, again: bool) -> RunFolder:
    """Score a folder of reconstructions."""
    folders = MatchedFolders.match(str(recipe.score), recipe.truth, recipe.medium)
    label, pinned = f"score-{folders.generated.name}", recipe.holding(folders.digests)
    folder = open_run(label, pinned, recipe.metric_encoders, launch, again)
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
    recipe, align, baselines = job.recipe, job.align, job.baselines
    folder = open_run(align.label, job.pinned(), recipe.metric_encoders, launch, again, baselines.is_here)
    work = job.work if folder.is_untouched else None
    if not folder.is_finished:
        job = replace(job, prior=job.prior.to(launch.device))
        heads = StimulusHeads.of(align, job.prior, launch.device)
        start = find_start_pictures(recipe)
        align.prepare_signals(launch)

        # heads: decoded from signals, then of all other sources
        brain = [of_brain(align, cell, subject, recipe.split, launch.device) for cell, subject in job.cells]
        sets = decoded_sets(job.sources, brain, heads, recipe.split, recipe.items)
        if start is not None:
            start.prepare(sets, launch)
        job.refuse_idle_strength(sets)

        # media, written to the run's folder
        generation = job.generation(start, heads, launch)
        for decoded_set in sets:
            generation.generate(decoded_set, folder, launch)
        del generation  # and with it the generator: its memory is the metrics' now

        # training pictures in their place, then scores
        models = job.describe_models(start)
        used = [decoded_set.first(recipe.items) for decoded_set in brain]
        generated = [job.generated(decoded_set, models, folder) for decoded_set in sets]
        launch.barrier()  # stills are made of what all processes generated
        of_baselines, missing = baselines.make(job.sources, used, generated, heads, models, folder, launch)
        generated += of_baselines
        if not generated:
            raise MissingData(
                f"none of the sources can be made: {', '.join(missing)}",
                "; ".join(dict.fromkeys(missing.values())),
            )
        generated.sort(key=lambda some: [*map(str, job.sources)].index(some.source))
        generated += job.task_floors(brain, models, folder)
        notes = {"prior": recipe.prior.source, "mode": align.mode, "published": recipe.published_notes}
        notes[SET_UP] = job.set_up()
        notes |= describe_tested([align.tested_pictures(recipe.split)])
        scoring = recipe.section(Scoring)
        measure_run(folder, scoring, generated, job.stimuli(), recipe.split, launch, missing, notes)
    launch.barrier()
    return folder, work
