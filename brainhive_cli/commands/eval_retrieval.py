"""eval-retrieval: retrieval of the stimulus from a gallery, for every cell of an align
run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from brainhive_cli.commands import trackers, train_align
from brainhive_cli.core import artifacts, console, weights
from brainhive_cli.core.cells import fill, finishing, is_untouched, say_found, start_run
from brainhive_cli.core.command import Input, Result, Work, collect, digests_of
from brainhive_cli.core.errors import BrainhiveError, Line
from brainhive_cli.core.facts import RIDGE_RECIPE, Baseline, RetrievalFacts
from brainhive_cli.core.files import locate_stored
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import ALL, BACKWARD, Measurements, scope
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.sweep import collect_variants, read_sweep_run
from brainhive_cli.data.targets.target_stores import keep_identity, write_prior
from brainhive_cli.evaluation.retrieval.job import NOT_COMPARED, Job
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.evaluation.retrieval.tables import REQUESTED, lay_out, sweep_tables
from brainhive_cli.measurement.comparison import adjust_together, compare_ranks
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.reports.sentences import explain_chance
from brainhive_cli.training.alignment.recipe import Cell

if TYPE_CHECKING:
    from brainhive_cli.evaluation.retrieval.folds import Measured

T = TypeVar("T")
CLEAR = ("above chance", "not testable")
"""Verdicts that no other order of the pictures would explain."""


def inputs(recipe: Recipe) -> list[Input]:
    """List the libraries of trackers, the runs, what they are evaluated with, and the
    pictures of the sheet.
    """
    job = cache(lambda: Job.resolve(recipe))
    return collect(
        lambda: trackers.inputs(recipe.run.trackers),
        lambda: job().inputs(),
        lambda: job().list_pictures(),
        checks=[lambda: job().check()],
    )


def work(recipe: Recipe) -> Work:
    """Count what there is to measure."""
    return Job.resolve(recipe).work


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Evaluate the runs to compare with, then every cell on the subjects it is tested
    on.
    """
    # refuse missing libraries before anything is computed
    trackers.require(recipe.run.trackers)
    with console.progress("opening models, signals and embeddings"):
        job = Job.resolve(recipe)

    # evaluate the runs to compare with, then this one
    against = [_evaluate(other, (), launch).metrics for other in job.against]
    if not job.variants:
        return _evaluate(job, against, launch, again)

    # a sweep: every variant by itself, then compared with one, or in pairs; nothing is
    # pooled
    finished = list[str]()
    results = {
        variant.runs[0].variant: _evaluate(variant, against, launch, again, finished)
        for variant in job.variants
    }
    say_found(finished)
    folder = start_run(
        "eval-retrieval",
        job.runs[0].label,
        job.recipe,
        launch,
        again,
        digests_of(job.inputs()),
    )
    if launch.is_main and not folder.is_finished:
        measured = {label: result.metrics for label, result in results.items()}
        compared, errors = compare_ranks(
            {
                (first, second): (measured[first], measured[second])
                for first, second in job.list_pairs()
            }
        )
        collected = collect_variants(results).stating(
            run=job.runs[0].name,
            comparisons=compared,
            not_compared=[error.message for error in errors],
        )
        folder.finish(collected)
    launch.barrier()
    measurements = read_sweep_run(folder)
    tables = sweep_tables(
        {label: result.tables for label, result in results.items()}, measurements
    )
    shown = sweep_tables(
        {label: result.shown or () for label, result in results.items()}, measurements
    )
    return Result(folder.path, tables, measurements, shown=shown)


def _evaluate(
    job: Job,
    against: Sequence[Measurements],
    launch: Launch,
    again: bool = False,
    finished: list[str] | None = None,
) -> Result:
    """Evaluate a job that is no sweep, and compare it with others; a finished run is
    only read, and `finished` gets its name.
    """
    # prepare the signals, and open the run
    with console.progress("opening signals"):
        for align_run in job.runs:
            align_run.prepare_signals(launch)
        recipe = job.recipe
        digests = digests_of(job.inputs())
    folder = start_run(
        "eval-retrieval", job.runs[0].label, recipe, launch, again, digests, finished
    )
    work = job.work if is_untouched(folder) else None
    if not folder.is_finished:
        from brainhive_cli.evaluation.retrieval.measure import measure_cell

        # rankings, curves and ceilings of the cells, by whoever is free
        groups = {cells[0].name: cells for cells in job.groups}
        files = {name: f"parts/{name}.safetensors" for name in groups}

        def measure(name: str) -> Measured:
            models = job.open_models(groups[name], launch.device)
            return measure_cell(models, recipe)

        keep_identity(folder, job.open_stores(), launch.is_main)
        if not fill(folder, "evaluating cells", files, launch, measure, job.work):
            work = None

        # the run is finished by one process
        if launch.is_main:
            with finishing(folder, launch.alone) as is_due:
                if is_due:
                    _finish(job, against, folder, launch)
        launch.barrier()

    measurements = folder.measurements()
    # stored references become paths on this machine
    facts = measurements.facts_of(RetrievalFacts)
    measurements = measurements.stating(
        run=locate_stored(facts.run),
        runs=[locate_stored(name) for name in facts.runs],
        against=[
            row.model_copy(update={"second": locate_stored(row.second)})
            for row in facts.against
        ],
    )

    # suggest to draw through the prior, or else a report
    hint = Line("report", folder.path)
    if prior := facts.prior:  # without one there is nothing to draw through
        drawing = write_prior("reconstruct", prior, job.runs[0].dataset_config)
        hint = Line("reconstruct", *drawing, ("run", measurements.facts.run))

    # lay out all tables for programs, and the requested ones for the terminal
    tables, requested = (
        tuple(lay_out(measurements, parts)) for parts in (None, REQUESTED)
    )
    result = Result(
        folder.path, tables, measurements, hint=hint, shown=requested, work=work
    )
    if launch.is_main:
        # log the metrics of both directions
        directions = (ALL, scope(ALL, BACKWARD))
        metrics = {
            name: measurements.scopes[name]
            for name in directions
            if name in measurements.scopes
        }
        trackers.log_results(
            recipe, folder.path, "retrieval", metrics, measurements.caveats
        )
    return result


def _finish(
    job: Job, against: Sequence[Measurements], folder: RunFolder, launch: Launch
) -> None:
    """Summarise what was measured of the cells, compare it with other runs, and finish
    the run.
    """
    from brainhive_cli.evaluation.retrieval.baseline import find_order, rank_plainly
    from brainhive_cli.evaluation.retrieval.figures import draw_artifacts
    from brainhive_cli.evaluation.retrieval.folds import Measured
    from brainhive_cli.evaluation.retrieval.summary import summarise_job
    from brainhive_cli.measurement.retrieval import Gallery, Scores

    recipe = job.recipe
    files = {
        cells[0].name: folder.path / f"parts/{cells[0].name}.safetensors"
        for cells in job.groups
    }
    types = Gallery, Scores, Interleaving
    scores: dict[str, Measured] = {
        name: weights.load_cell(file, *types) for name, file in files.items()
    }

    # metrics over cells and subjects, next to those of the other runs
    # baselines learn from the same signals, and a control leaves them nothing to find
    is_wanted = recipe.baseline != "none" and recipe.control == "none"
    is_folded = job.runs[0].dataset.holdout.divides_train
    plain = {}
    ridge = dict[Cell, Measured]()
    reason = ""
    if is_wanted and recipe.split == "test":
        plain = rank_plainly(job, launch.device) if is_folded else {}
        ridge, reason = _try(lambda: _fit_ridge(job, folder, launch), ridge)
    measurements = summarise_job(job, scores, plain, ridge)
    compared, errors = compare_ranks(
        {("this run", other.facts.run): (measurements, other) for other in against}
    )
    if errors:
        raise errors[0]
    # reports choose the best of several runs by their validation; an average has none
    validation = job.runs[0].read_validation() if len(job.runs) == 1 else {}
    gains, compared = adjust_together(run=measurements.facts.against, pair=compared)
    measurements = measurements.stating(
        against=[*gains, *compared], validation=validation
    )

    # at chance, the pictures may be filed in another order than the signals
    baseline = measurements.facts_of(RetrievalFacts).baseline or Baseline(reason=reason)
    is_at_chance = measurements.facts.answers[0].side not in CLEAR
    if is_wanted and is_at_chance and not is_folded:
        order, problem = _try(lambda: find_order(job, launch.device), Baseline())
        tried = order.model_dump(include={"orders", "order", "order_p"})
        baseline = baseline.model_copy(
            update={**tried, "reason": baseline.reason or problem}
        )
    if is_wanted:
        measurements = measurements.stating(baseline=baseline)
    if explanation := explain_chance(measurements, folder.path / RIDGE_RECIPE):
        console.warn(explanation)
    # artifacts for pages, of the metrics and of the first cell; metrics come last and
    # finish the run
    models = job.open_models(job.groups[0], launch.device) if recipe.sheet_rows else ()
    artifacts.write(folder, draw_artifacts(folder, measurements, models, recipe))
    folder.finish(measurements)


def _try(compute: Callable[[], T], otherwise: T) -> tuple[T, str]:
    """Compute a baseline, or say why it cannot be computed: a result stands without."""
    from brainhive_cli.evaluation.retrieval.baseline import FAILURES

    try:
        return compute(), ""
    except BrainhiveError as error:
        return otherwise, error.in_one_line
    except FAILURES as error:
        return otherwise, f"{type(error).__name__}: {error}"


@console.progress("fitting a ridge")
def _fit_ridge(job: Job, folder: RunFolder, launch: Launch) -> dict[Cell, Measured]:
    """Train a ridge as train-align does, and measure its cells as those of the run.

    Raises:
        BrainhiveError: if a ridge is no baseline of the run.
    """
    from brainhive_cli.evaluation.retrieval.baseline import write_ridge
    from brainhive_cli.evaluation.retrieval.measure import measure_cell

    ridge = write_ridge(job, folder.path)
    # what is said of the signals was said of the run
    with tempfile.TemporaryDirectory() as runs, console.silent():
        paths = ridge.paths.model_copy(update={"runs": runs})
        trained = train_align.run(
            ridge.model_copy(update={"paths": paths}), launch.alone
        )
        how = {**NOT_COMPARED, "head": None, "ceiling_splits": 0}
        spec = job.recipe.model_copy(update={**how, "align_run": [str(trained.folder)]})
        fitted = Job.resolve(spec)
        # pictures were compared and orders were found for the run
        fitted.runs[0].share_data(job.runs[0])
        return {
            cells[0]: measure_cell(fitted.open_models(cells, launch.device), spec)
            for cells in fitted.groups
        }
