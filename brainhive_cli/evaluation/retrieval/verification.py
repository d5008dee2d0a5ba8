"""Comparison of a stored evaluation with a new one."""

from collections.abc import Iterator, Mapping
from math import isclose
from pathlib import Path
from typing import Any, NamedTuple

import torch

from brainhive_cli.core.base import format_number, format_p
from brainhive_cli.core.recipes import Paths
from brainhive_cli.core.results import Measurements, metric_title
from brainhive_cli.core.runs import RunFolder, weights
from brainhive_cli.data.targets import list_changed
from brainhive_cli.evaluation.retrieval.job import NOT_COMPARED, Job
from brainhive_cli.evaluation.retrieval.measure import measure_cell
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.evaluation.retrieval.summary import summarise_job
from brainhive_cli.measurement import Gallery, Scores


class Verification(NamedTuple):
    """Differences between a stored evaluation and a new one.

    Attributes:
        ranks: Number of signals whose rank differs, by description of the subject.
        metrics: Sentences about metrics that differ.
        embeddings: Sentences about embeddings that differ.
    """

    ranks: Mapping[str, int]
    metrics: list[str]
    embeddings: list[str]


def verify(
    evaluation: RunFolder, paths: Paths, cell: str, model: Path, device: torch.device
) -> Verification:
    """Verify an evaluation: rank by another model of a cell, and recompute metrics.

    Baselines have no stored ranks, and are not verified.

    Args:
        evaluation: Folder of the stored evaluation.
        paths: Folders of runs and data.
        cell: Name of the cell.
        model: Folder of the other model.
        device: Device of the other model.
    """
    recipe = evaluation.recipe(Recipe, paths=paths)
    job = Job.resolve(recipe.model_copy(update={"against": None}))
    results = weights.load_cells(evaluation.path, job.files, Gallery, Scores)

    # rank by the other model
    models = job.open_models(job.group_of_name[cell], device)
    models[0].path = model
    only_ranks = {**NOT_COMPARED, "ceiling_splits": 0}
    new_recipe = job.recipe.model_copy(update=only_ranks)
    _, new_scores = measure_cell(models, job.tests, new_recipe)
    _, stored_scores = results[cell]
    rank_differences = {}
    for subject, scores in stored_scores.items():
        n_different = int((scores.ranks != new_scores[subject].ranks).sum())
        label = f"{evaluation.name}, subject {subject}, {len(scores.ranks)} signals"
        rank_differences[label] = n_different

    # compare with the metrics of the evaluation
    new_measurements = summarise_job(job, results, {}, {})
    lines = list(compare_metrics(evaluation.measurements(), new_measurements))
    changed = list_changed(evaluation, job.open_stores())
    return Verification(rank_differences, lines, changed)


def compare_metrics(
    reported: Measurements, measurements: Measurements
) -> Iterator[str]:
    """Yield a sentence for each difference in metrics, ranks and p values.

    Args:
        reported: Stored measurements.
        measurements: New measurements.
    """
    # Fields of a metric that are compared.
    compared_fields = (
        "value",
        "n",
        "pool",
        "chance",
        "low",
        "high",
        "selected",
        "caveats",
    )
    for scope, metrics in measurements.scopes.items():
        for name, metric in metrics.items():
            reported_metric = reported.scopes.get(scope, {}).get(name)
            for field in compared_fields:
                value = getattr(metric, field)
                reported_value = None
                if reported_metric is not None:
                    reported_value = getattr(reported_metric, field)
                if _is_equal(reported_value, value):
                    continue
                title = metric_title(name)
                if field != "value":
                    title = f"{field} of {title}"
                yield (
                    f"{title}, {scope}: {format_number(reported_value)} reported, "
                    f"{format_number(value)} measured again"
                )
    for scope, items in measurements.items.items():
        # shared runs have no items
        reported_items = reported.items.get(scope, items)
        if reported_items["ranks"] != items["ranks"]:
            yield f"ranks, {scope}: others reported than measured again"
    pairs = zip(reported.facts.answers, measurements.facts.answers, strict=False)
    for reported_answer, answer in pairs:
        if not _is_equal(reported_answer.p, answer.p):
            yield (
                f"p of {answer.question}: {format_p(reported_answer.p)} reported, "
                f"{format_p(answer.p)} measured again"
            )


def _is_equal(value: Any, other_value: Any) -> bool:
    """Return True if two values are equal. Floats may differ by rounding."""
    if isinstance(value, float) and isinstance(other_value, float):
        return isclose(value, other_value, rel_tol=1e-6, abs_tol=1e-9)
    return bool(value == other_value)
