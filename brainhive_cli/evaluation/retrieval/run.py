"""The run of eval-retrieval: cells ranked against the gallery, then their statistics,
baselines and comparisons.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from brainhive_cli.core import console, driver, weights
from brainhive_cli.core.command import Input, Result, collect_inputs
from brainhive_cli.core.errors import BrainhiveError, Line
from brainhive_cli.core.facts import RIDGE_RECIPE, Baseline, RetrievalFacts
from brainhive_cli.core.files import locate_stored
from brainhive_cli.core.jobs import CellStage, LoggedMetrics, OpenRun, RunJob, Summary
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import ALL, BACKWARD, Measurements, scope
from brainhive_cli.core.sweep import collect_variants, read_sweep_run
from brainhive_cli.data.targets.encoder_stores import keep_identity
from brainhive_cli.data.targets.next_commands import write_prior_arguments
from brainhive_cli.evaluation.retrieval.job import NOT_COMPARED, Job
from brainhive_cli.evaluation.retrieval.tables import REQUESTED, lay_out, sweep_tables
from brainhive_cli.measurement.comparison import adjust_together, compare_ranks
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.reports.sentences import explain_chance
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.training.run import TrainingRun

if TYPE_CHECKING:
    from brainhive_cli.evaluation.retrieval.folds import Measured

T = TypeVar("T")
CLEAR = ("above chance", "not testable")
"""Verdicts that no other order of the pictures would explain."""


class RetrievalRun(Job, RunJob):
    """Run of eval-retrieval; that of a sweep consists of a run for each variant."""

    tracker_name = "retrieval"

    @property
    def label(self) -> str:
        """First part of the run's name."""
        return self.runs[0].label

    @property
    def compared_jobs(self) -> Sequence[RunJob]:
        """Evaluations of the runs to compare with; variants have their own."""
        return () if self.variants else cast(Sequence[RunJob], self.against)

    def list_inputs(self) -> list[Input]:
        """List the inputs, and the pictures of the sheet."""
        return collect_inputs(super().list_inputs, self.list_pictures)

    def check(self) -> None:
        """Refuse what does not fit, unless it was measured before."""
        if not driver.is_finished("eval-retrieval", self):
            super().check()

    def prepare(self, launch: Launch) -> None:
        """Make the signal stores that are missing."""
        for align_run in self.runs:
            align_run.prepare_signals(launch)

    def make_parts(self, run: OpenRun, force: bool) -> Mapping[str, Result]:
        """Evaluate the variants of a sweep."""
        variants: dict[str, Any] = {
            variant.runs[0].variant: variant for variant in self.variants
        }
        return driver.run_each("eval-retrieval", variants, run.launch, force)

    def stages(self, run: OpenRun) -> Iterator[CellStage]:
        """Rank the gallery by the signals of each cell."""
        if self.variants:
            return
        from brainhive_cli.evaluation.retrieval.measure import measure_cell

        groups = {cells[0].name: cells for cells in self.groups}
        stores = self.open_stores()
        run.launch.run_on_main(lambda: keep_identity(run.folder, stores))

        def measure(name: str, launch: Launch) -> Measured:
            models = self.open_models(groups[name], launch.device)
            return measure_cell(models, self.recipe)

        yield CellStage("evaluating cells", self.files, measure)

    @property
    def files(self) -> dict[str, str]:
        """File of each cell below the run's folder."""
        names = [cells[0].name for cells in self.groups]
        return {name: f"parts/{name}.safetensors" for name in names}

    def summarise(self, run: OpenRun) -> Summary:
        """Summarise the cells, and compare them with other runs; or compare the
        variants of a sweep, of which nothing is pooled.
        """
        if not self.variants:
            return summarise_cells(self, run)
        measured = {label: result.metrics for label, result in run.parts.items()}
        pairs = {
            (first, second): (measured[first], measured[second])
            for first, second in self.list_pairs()
        }
        compared, errors = compare_ranks(pairs)
        collected = collect_variants(run.parts).with_facts(
            run=self.runs[0].name,
            comparisons=compared,
            not_compared=[error.message for error in errors],
        )
        return Summary(collected)

    def describe(self, run: OpenRun) -> Result:
        """Lay out all tables for programs, and the requested ones for the terminal."""
        path = run.folder.path
        if self.variants:
            results = run.parts
            measurements = read_sweep_run(run.folder)
            tables, shown = (
                sweep_tables(of_variants, measurements)
                for of_variants in (
                    {label: result.tables for label, result in results.items()},
                    {
                        label: result.printed_tables or ()
                        for label, result in results.items()
                    },
                )
            )
            return Result(path, tables, measurements, printed_tables=shown)

        # stored references become paths on this machine
        measurements = run.folder.measurements()
        facts = measurements.require_facts(RetrievalFacts)
        measurements = measurements.with_facts(
            run=locate_stored(facts.run),
            runs=[locate_stored(name) for name in facts.runs],
            against=[
                row.model_copy(update={"second": locate_stored(row.second)})
                for row in facts.against
            ],
        )

        # suggest to draw through the prior, or else a report
        hint = Line("report", path)
        if prior := facts.prior:  # without one there is nothing to draw through
            drawing = write_prior_arguments(
                "reconstruct", prior, self.runs[0].dataset_config
            )
            hint = Line("reconstruct", *drawing, ("run", measurements.facts.run))
        tables, requested = (
            tuple(lay_out(measurements, parts)) for parts in (None, REQUESTED)
        )
        return Result(path, tables, measurements, hint=hint, printed_tables=requested)

    def choose_logged_metrics(self, measurements: Measurements) -> LoggedMetrics:
        """Choose the metrics of both directions; variants log their own."""
        directions = () if self.variants else (ALL, scope(ALL, BACKWARD))
        return {
            name: measurements.scopes[name]
            for name in directions
            if name in measurements.scopes
        }


def summarise_cells(job: RetrievalRun, run: OpenRun) -> Summary:
    """Summarise what was measured of the cells, with baselines, and compare it with
    other runs.
    """
    from brainhive_cli.evaluation.retrieval.baseline import find_order, rank_plainly
    from brainhive_cli.evaluation.retrieval.figures import draw_artifacts
    from brainhive_cli.evaluation.retrieval.folds import Measured
    from brainhive_cli.evaluation.retrieval.summary import summarise_job
    from brainhive_cli.measurement.retrieval import Gallery, Scores

    recipe, folder, device = job.recipe, run.folder, run.launch.device
    types = Gallery, Scores, Interleaving
    scores: dict[str, Measured] = {
        name: weights.load_cell(folder.path / file, *types)
        for name, file in job.files.items()
    }

    # metrics over cells and subjects, next to those of the other runs
    # baselines learn from the same signals, and a control leaves them nothing to find
    is_wanted = recipe.baseline != "none" and recipe.control == "none"
    is_folded = job.runs[0].dataset.holdout.divides_train
    plain = {}
    ridge = dict[Cell, Measured]()
    reason = ""
    if is_wanted and recipe.split == "test":
        plain = rank_plainly(job, device) if is_folded else {}
        ridge, reason = _try(lambda: _fit_ridge(job, run), ridge)
    measurements = summarise_job(job, scores, plain, ridge)
    compared, errors = compare_ranks(
        {
            ("this run", other.metrics.facts.run): (measurements, other.metrics)
            for other in run.compared_results
        }
    )
    if errors:
        raise errors[0]
    # reports choose the best of several runs by their validation; an average has none
    validation = job.runs[0].read_validation() if len(job.runs) == 1 else {}
    gains, compared = adjust_together(run=measurements.facts.against, pair=compared)
    measurements = measurements.with_facts(
        against=[*gains, *compared], validation=validation
    )

    # at chance, the pictures may be filed in another order than the signals
    baseline = measurements.require_facts(RetrievalFacts).baseline or Baseline(
        reason=reason
    )
    is_at_chance = measurements.facts.answers[0].side not in CLEAR
    if is_wanted and is_at_chance and not is_folded:
        order, problem = _try(lambda: find_order(job, device), Baseline())
        tried = order.model_dump(include={"orders", "order", "order_p"})
        baseline = baseline.model_copy(
            update={**tried, "reason": baseline.reason or problem}
        )
    if is_wanted:
        measurements = measurements.with_facts(baseline=baseline)
    if explanation := explain_chance(measurements, folder.path / RIDGE_RECIPE):
        console.warn(explanation)
    # artifacts for pages, of the metrics and of the first cell
    models = job.open_models(job.groups[0], device) if recipe.sheet_rows else ()
    return Summary(measurements, draw_artifacts(folder, measurements, models, recipe))


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
def _fit_ridge(job: RetrievalRun, run: OpenRun) -> dict[Cell, Measured]:
    """Train a ridge as train-align does, and measure its cells as those of the run.

    Raises:
        BrainhiveError: if a ridge is no baseline of the run.
    """
    from brainhive_cli.evaluation.retrieval.baseline import write_ridge
    from brainhive_cli.evaluation.retrieval.measure import measure_cell

    ridge = write_ridge(job, run.folder.path)
    # what is said of the signals was said of the run
    with tempfile.TemporaryDirectory() as runs, console.mute_messages():
        paths = ridge.paths.model_copy(update={"runs": runs})
        training = TrainingRun.resolve(ridge.model_copy(update={"paths": paths}))
        trained = driver.run("train-align", training, run.launch)
        changes = {**NOT_COMPARED, "head": None, "ceiling_splits": 0}
        changes["align_run"] = [str(trained.folder)]
        recipe = job.recipe.model_copy(update=changes)
        fitted = Job.resolve(recipe)
        # pictures were compared and orders were found for the run
        fitted.runs[0].share_data(job.runs[0])
        return {
            cells[0]: measure_cell(fitted.open_models(cells, run.launch.device), recipe)
            for cells in fitted.groups
        }
