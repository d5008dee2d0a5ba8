"""Reported results of an evaluation, compared with those that are measured again."""

from collections.abc import Iterator, Mapping
from math import isclose
from pathlib import Path
from typing import Any, NamedTuple

import torch

from brainhive_cli.core import weights
from brainhive_cli.core.measurements import Measurements, metric_title
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.runs import RunFolder, list_finished_runs
from brainhive_cli.core.tables import format_number, format_p
from brainhive_cli.data.targets.encoder_stores import list_changed
from brainhive_cli.evaluation.retrieval.job import NOT_COMPARED, Job
from brainhive_cli.evaluation.retrieval.measure import measure_cell
from brainhive_cli.evaluation.retrieval.recipe import Recipe
from brainhive_cli.evaluation.retrieval.summary import summarise_job
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.retrieval import Gallery, Scores

COMPARED = ("value", "n", "pool", "chance", "low", "high", "selected", "caveats")
"""Fields of a metric that are compared."""


class Verification(NamedTuple):
    """What differs in an evaluation: signals that another model ranks otherwise, by
    subject; lines on metrics, and on embeddings.
    """

    ranks: Mapping[str, int]
    metrics: list[str]
    embeddings: list[str]


def verify(
    evaluation: RunFolder, paths: Paths, cell: str, model: Path, device: torch.device
) -> Verification:
    """Rank by another model of a cell, and measure the stored ranks of all cells again.

    Baselines have no stored ranks, and are not verified.
    """
    spec = evaluation.recipe(Recipe, paths=paths)
    job = Job.resolve(spec.model_copy(update={"against": None, "compare": None}))
    parts = {}
    for first, *_ in job.groups:
        file = evaluation.path / f"parts/{first.name}.safetensors"
        parts[first.name] = weights.load_cell(file, Gallery, Scores, Interleaving)

    # the other model, by its ranks alone
    group = next(group for group in job.groups if group[0].name == cell)
    models = job.open_models(group, device)
    models[0].path = model
    ranks_alone = {**NOT_COMPARED, "ceiling_splits": 0}
    _, again = measure_cell(models, job.recipe.model_copy(update=ranks_alone))
    ranks = {
        f"{evaluation.name}, subject {subject}, {len(scores.ranks)} signals": (
            int((scores.ranks != again[subject].ranks).sum())
        )
        for subject, scores in parts[cell][1].items()
    }

    # the evaluation reports the metrics, and so does a sweep that it is a variant of
    found = summarise_job(job, parts, {}, {})
    metrics = [*compare_metrics(evaluation.measurements(), found)]
    for sweep in list_finished_runs(paths.under_home("runs"), "eval-retrieval"):
        measured = sweep.measurements()
        for label, variant in measured.facts.variants.items():
            if variant.run == evaluation.path.name:
                lines = compare_metrics(measured.select_variant(label), found)
                metrics += [f"{sweep.name}:{label}, {line}" for line in lines]
    return Verification(ranks, metrics, list_changed(evaluation, job.open_stores()))


def compare_metrics(reported: Measurements, found: Measurements) -> Iterator[str]:
    """Say in which metrics, ranks and answers a report differs from what was found."""
    for scope, metrics in found.scopes.items():
        for name, metric in metrics.items():
            stated = reported.scopes.get(scope, {}).get(name)
            for key in COMPARED:
                values = getattr(stated, key, None), getattr(metric, key)
                if not _is_equal(*values):
                    title = (
                        metric_title(name)
                        if key == "value"
                        else f"{key} of {metric_title(name)}"
                    )
                    there, here = map(format_number, values)
                    yield f"{title}, {scope}: {there} reported, {here} measured again"
    for scope, items in found.items.items():
        # shared runs and sweeps have no items
        if reported.items.get(scope, items)["ranks"] != items["ranks"]:
            yield f"ranks, {scope}: others reported than measured again"
    for one, other in zip(reported.facts.answers, found.facts.answers, strict=False):
        if not _is_equal(one.p, other.p):
            there, here = format_p(one.p), format_p(other.p)
            yield f"p of {other.question}: {there} reported, {here} measured again"


def _is_equal(one: Any, other: Any) -> bool:
    """Whether two values are equal, numbers up to rounding."""
    if isinstance(one, float) and isinstance(other, float):
        return isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)
    return bool(one == other)
