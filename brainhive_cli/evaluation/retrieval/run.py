"""Run of eval-retrieval."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, cast

from brainhive_cli.core.base import BrainhiveError, Line, console
from brainhive_cli.core.files import Input, collect_inputs, locate_stored
from brainhive_cli.core.results import ALL, BACKWARD, Measurements, scope
from brainhive_cli.core.runs import (
    CellStage,
    Launch,
    LoggedMetrics,
    OpenRun,
    Result,
    RunJob,
    Summary,
    driver,
    weights,
)
from brainhive_cli.data.targets import keep_identity, write_prior_arguments
from brainhive_cli.evaluation.retrieval.facts import Baseline, RetrievalFacts
from brainhive_cli.evaluation.retrieval.job import NOT_COMPARED, Job
from brainhive_cli.evaluation.retrieval.tables import lay_out
from brainhive_cli.measurement import adjust_together, compare_runs
from brainhive_cli.reports.sentences.sentences import RIDGE_RECIPE, explain_chance
from brainhive_cli.training.alignment import Cell
from brainhive_cli.training.alignment.training import TrainingRun

if TYPE_CHECKING:
    from brainhive_cli.evaluation.retrieval.folds import CellResult
    from brainhive_cli.measurement import Scores
    from brainhive_cli.training.alignment.trained import TestedPerson

T = TypeVar("T")


class RetrievalRun(Job, RunJob):
    """Run of eval-retrieval.

    The driver calls these methods in order:

    1. `prepare`: prepare the missing signals.
    2. `stages`: rank the gallery for the signals of each cell.
    3. `summarise`: compute metrics, baselines and comparisons.
    4. `describe`: lay out the tables.
    """

    command = "eval-retrieval"
    tracker_name = "retrieval"

    def prepare(self, launch: Launch) -> None:
        """Prepare the signals that are missing."""
        for align_run in self.runs:
            align_run.prepare_signals(launch)

    def stages(self, run: OpenRun) -> Iterator[CellStage]:
        """Yield the stage that ranks the gallery for the signals of each cell."""
        from brainhive_cli.evaluation.retrieval.measure import (
            measure_cell,
            measure_signal_ceiling,
        )

        stores = self.open_stores()
        run.launch.run_on_main(lambda: keep_identity(run.folder, stores))

        tests = self.tests
        # the ceiling depends on no model, so the seeds of a person share it
        ceilings: dict[TestedPerson, Scores] = {}

        def measure(name: str, launch: Launch) -> CellResult:
            models = self.open_models(self.group_of_name[name], launch.device)
            gallery, scores = measure_cell(models, tests, self.recipe)
            if not self.recipe.ceiling_splits:
                return gallery, scores
            for subject, subject_scores in scores.items():
                person = tests.open_person(models[0], subject)
                if person not in ceilings:
                    ceilings[person] = measure_signal_ceiling(
                        models, tests, subject, self.recipe
                    )
                scores[subject] = replace(subject_scores, ceiling=ceilings[person])
            return gallery, scores

        yield CellStage("testing models", self.files, measure)

    def summarise(self, run: OpenRun) -> Summary:
        """Summarise the scores of the cells.

        The steps are: load the scores, fit baselines, compute the metrics, compare them
        with other runs, explain a result at chance, and draw figures.
        """
        from brainhive_cli.evaluation.retrieval.baseline import (
            find_order,
            rank_by_classifiers,
        )
        from brainhive_cli.evaluation.retrieval.figures import draw_artifacts
        from brainhive_cli.evaluation.retrieval.lone_channel import find_lone_channel
        from brainhive_cli.evaluation.retrieval.summary import summarise_job
        from brainhive_cli.measurement import Gallery, Scores

        recipe, device = self.recipe, run.launch.device
        is_folded = self.runs[0].dataset.holdout.divides_train

        # load the scores that `stages` has stored
        results = weights.load_cells(run.folder.path, self.files, Gallery, Scores)

        # fit baselines to the same signals, unless a control has destroyed the pairs
        has_baseline = recipe.baseline != "none" and recipe.control == "none"
        plain_ranks = {}
        ridge_results: dict[Cell, CellResult] = {}
        problem = ""
        if has_baseline and recipe.split == "test":
            if is_folded:
                plain_ranks = rank_by_classifiers(self, device)
            ridge_results, problem = _try(lambda: _fit_ridge(self, run), ridge_results)

        # compute the metrics, and compare them with other runs
        measurements = summarise_job(self, results, plain_ranks, ridge_results)
        measurements = _compare_runs(measurements, run)
        if len(self.runs) == 1:
            # reports choose the best of several runs by this value
            validation = self.runs[0].read_validation()
            measurements = measurements.with_facts(validation=validation)

        # name a channel that explains a result above chance
        answers = measurements.facts.answers
        if recipe.control == "none" and answers[0].outcome == "above chance":
            channel, _ = _try(lambda: find_lone_channel(self, device), "")
            measurements = measurements.with_facts(lone_channel=channel)

        # explain a result at chance
        if has_baseline:
            facts = measurements.require_facts(RetrievalFacts)
            baseline = facts.baseline or Baseline(reason=problem)
            # Results of a test that another order of the pictures would not explain.
            is_at_chance = facts.answers[0].outcome not in (
                "above chance",
                "not testable",
            )
            if is_at_chance and not is_folded:
                # the pictures may be filed in a wrong order
                result, problem = _try(lambda: find_order(self, device), Baseline())
                changes = result.model_dump(include={"orders", "order", "order_p"})
                changes["reason"] = baseline.reason or problem
                baseline = baseline.model_copy(update=changes)
            measurements = measurements.with_facts(baseline=baseline)
        explanation = explain_chance(measurements, run.folder.path / RIDGE_RECIPE)
        if explanation:
            console.warn(explanation)

        # draw figures, with a sheet of retrieved pictures of the first cell
        models = self.open_models(self.groups[0], device) if recipe.sheet_rows else ()
        artifacts = draw_artifacts(run.folder, measurements, models, self.tests, recipe)
        return Summary(measurements, artifacts)

    def describe(self, run: OpenRun) -> Result:
        """Lay out all tables, and the tables for the terminal."""
        path = run.folder.path
        # stored references become paths on this machine
        measurements = run.folder.measurements()
        facts = measurements.require_facts(RetrievalFacts)
        differences = []
        for difference in facts.against:
            second = locate_stored(difference.second)
            differences.append(difference.model_copy(update={"second": second}))
        measurements = measurements.with_facts(
            run=locate_stored(facts.run),
            runs=list(map(locate_stored, facts.runs)),
            against=differences,
        )

        # pictures can be reconstructed with a prior
        hint = Line("report", path)
        if facts.prior:
            arguments = write_prior_arguments(
                "reconstruct", facts.prior, self.runs[0].dataset_config
            )
            hint = Line("reconstruct", *arguments, ("run", measurements.facts.run))
        # Tables in the terminal: the result, and everything else that
        # the recipe requests.
        printed_tables = (
            "cells",
            "baseline",
            "control",
            "corrections",
            "subsets",
            "repetitions",
            "regions",
            "comparisons",
        )
        return Result(
            path,
            tuple(lay_out(measurements, None)),
            measurements,
            hint=hint,
            printed_tables=tuple(lay_out(measurements, printed_tables)),
        )

    @property
    def short_name(self) -> str:
        """First part of the run's name."""
        name = self.runs[0].short_name
        return f"{name}-ensemble" if len(self.runs) > 1 else name

    @property
    def compared_jobs(self) -> Sequence[RunJob]:
        """Evaluations of the runs to compare with."""
        return cast(Sequence[RunJob], self.against)

    def list_inputs(self) -> list[Input]:
        """List the inputs, with the pictures of the sheet."""
        return collect_inputs(super().list_inputs, self.list_pictures)

    def check(self) -> None:
        """Check that the inputs fit the recipe, unless the run is finished.

        Raises:
            BrainhiveError: if an input does not fit.
        """
        if not self.is_finished:
            super().check()

    def choose_logged_metrics(self, measurements: Measurements) -> LoggedMetrics:
        """Choose the metrics of both directions."""
        scopes = measurements.scopes
        names = (ALL, scope(ALL, BACKWARD))
        return {name: scopes[name] for name in names if name in scopes}


def _compare_runs(measurements: Measurements, run: OpenRun) -> Measurements:
    """Add the differences between this run and the runs that it is compared with.

    Their p values are adjusted together with the p values that `measurements` has.

    Raises:
        BrainhiveError: if the runs have different galleries, subjects or items.
    """
    pairs = {
        ("this run", other_run.metrics.facts.run): (measurements, other_run.metrics)
        for other_run in run.compared_results
    }
    differences, errors = compare_runs(pairs)
    for error in errors.values():
        raise error
    run_differences, differences = adjust_together(
        run=measurements.facts.against, pair=differences
    )
    return measurements.with_facts(against=run_differences + differences)


def _try(compute: Callable[[], T], default: T) -> tuple[T, str]:
    """Compute a baseline, which a result does not need.

    Returns:
        The value and "", or the default and the reason why it cannot be computed.
    """
    from brainhive_cli.evaluation.retrieval.baseline import FAILURES

    try:
        return compute(), ""
    except BrainhiveError as error:
        return default, error.in_one_line
    except FAILURES as error:
        return default, f"{type(error).__name__}: {error}"


@console.progress("fitting a ridge")
def _fit_ridge(job: RetrievalRun, run: OpenRun) -> dict[Cell, CellResult]:
    """Train a ridge as train-align does, and measure its cells.

    Raises:
        BrainhiveError: if a ridge is no baseline of the run.
    """
    from brainhive_cli.evaluation.retrieval.baseline import write_ridge
    from brainhive_cli.evaluation.retrieval.measure import measure_cell

    ridge = write_ridge(job, run.folder.path)
    # warnings about the signals have been printed for the run itself
    with tempfile.TemporaryDirectory() as runs, console.mute_messages():
        paths = ridge.paths.model_copy(update={"runs": runs})
        training = TrainingRun.resolve(ridge.model_copy(update={"paths": paths}))
        training_result = driver.run(training, run.launch, is_part=True)

        changes = {
            **NOT_COMPARED,
            "head": None,
            "ceiling_splits": 0,
            "align_run": [str(training_result.folder)],
        }
        recipe = job.recipe.model_copy(update=changes)
        ridge_job = replace(Job.resolve(recipe), like=job)
        results = {}
        for cells in ridge_job.groups:
            models = ridge_job.open_models(cells, run.launch.device)
            results[cells[0]] = measure_cell(models, ridge_job.tests, recipe)
        return results
