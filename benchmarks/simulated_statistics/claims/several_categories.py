"""Intervals of accuracy, balanced accuracy and AUC hold for several categories."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random, Values
from benchmarks.simulated_statistics.judging import MEASURE_OPTIONS, holds
from brainhive_cli.core.base.arrays import Int64
from brainhive_cli.evaluation.retrieval.folds import measure_categories
from brainhive_cli.measurement.ranks import summarise_ranks
from brainhive_cli.measurement.retrieval import Scores, compute_auc_parts
from brainhive_cli.measurement.units import StimulusGrouping

AXES: Mapping[str, Sequence[Any]] = {
    "design": ("trials", "12 runs"),
    "categories": (2, 4, 8),
    "effect": (0.0, 1.0, 2.5),
}
COLUMNS = (
    "accuracy | coverage | above chance | balanced accuracy | coverage | "
    "above chance | AUC | coverage | above chance"
)
TRUTH_TRIALS = 20_000
"""Trials of each category that the true values are computed from."""


def several_categories(
    random: Random, design: str, categories: int, effect: float
) -> list[float]:
    """Test metrics of several categories, the first of which is twice as frequent.

    Scores of trials are normal, and the score of the shown category is higher by an
    effect. If runs are held out, the scores of a run have a shift and a size of the
    effect of their own, and areas compare trials of the same run.
    """
    # each run shows two trials of the first category and one of the others
    runs = 12
    shown = np.concatenate([[0], np.arange(categories)])
    label = np.tile(shown, runs)
    run_number = np.repeat(np.arange(runs), len(shown))
    sizes = np.full(runs, effect)
    shifts = np.zeros((runs, categories))
    if design != "trials":
        sizes = effect * random.uniform(0.5, 1.5, runs)
        shifts = random.normal(0, 0.5, (runs, categories))
    scores = _draw_scores(random, label, sizes[run_number], categories)
    scores += shifts[run_number]

    # areas of all trials, or within runs
    if design == "trials":
        auc_parts = compute_auc_parts(scores, label)
    else:
        parts = []
        for run in range(runs):
            rows = run_number == run
            parts.append(compute_auc_parts(scores[rows], label[rows]))
        auc_parts = np.concatenate(parts)
    group_of = dict(enumerate(run_number.tolist()))
    kind = "trials" if design == "trials" else "runs"
    grouping = StimulusGrouping(group_of=group_of, group_kind=kind)
    items = grouping.make_items([list(group_of)])
    ranks = (scores >= scores[np.arange(len(label)), label][:, None]).sum(1)
    table = Scores(labels=label.tolist(), ranks=ranks, auc_parts=auc_parts)

    # intervals, and how often they hold the truth and lie above chance
    options = {**MEASURE_OPTIONS, "items": items, "pool": categories}
    metrics = measure_categories([[table]], {**options, "is_share": None})
    options.pop("is_share")
    (metrics["accuracy"],) = summarise_ranks(
        [ranks], metric_names=["accuracy"], **options
    )
    truths = _compute_truths(design, categories, effect)
    chances = {
        "accuracy": 1 / categories,
        "balanced_accuracy": 1 / categories,
        "auc": 0.5,
    }
    results = []
    for name, chance in chances.items():
        metric = metrics[name]
        results += [
            truths[name],
            holds(metric, truths[name]),
            (metric.low or 0) > chance,
        ]
    return results


def _draw_scores(
    random: Random, label: Int64, sizes: Values, categories: int
) -> Values:
    """Draw the scores [N, K] of trials with labels [N] and effects [N]."""
    scores = random.normal(size=(len(label), categories))
    scores[np.arange(len(label)), label] += sizes
    return scores


@cache
def _compute_truths(design: str, categories: int, effect: float) -> dict[str, float]:
    """Compute the true value of each metric from many trials."""
    random = np.random.default_rng(0)
    label = np.repeat(np.arange(categories), TRUTH_TRIALS)
    sizes = np.full(len(label), effect)
    shifts = np.zeros((len(label), categories))
    if design != "trials":
        sizes = effect * random.uniform(0.5, 1.5, len(label))
        shifts = random.normal(0, 0.5, shifts.shape)
    scores = _draw_scores(random, label, sizes, categories)
    decoded = (scores + shifts).argmax(1)
    recalls = []
    areas = []
    for category in range(categories):
        recalls.append((decoded[label == category] == category).mean())
        # a trial of the category against a trial of another, without the shift of runs
        own = scores[label == category, category]
        other = random.normal(size=len(own))
        areas.append((own > other).mean())
    weights = np.ones(categories)
    weights[0] = 2
    return {
        "accuracy": float(np.average(recalls, weights=weights)),
        "balanced_accuracy": float(np.mean(recalls)),
        "auc": float(np.mean(areas)),
    }
