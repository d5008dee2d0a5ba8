"""Intervals of balanced accuracy and AUC hold for unequal categories."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import norm

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.judging import MEASURE_OPTIONS, holds
from brainhive_cli.evaluation.retrieval.folds import measure_categories
from brainhive_cli.measurement.retrieval import (
    Scores,
    compute_auc_parts,
    compute_decision_scores,
)
from brainhive_cli.measurement.units import StimulusGrouping

AXES: Mapping[str, Sequence[Any]] = {
    "design": ("trials", "12 runs"),
    "counts": ((8, 2), (12, 8), (95, 5), (90, 30), (200, 100)),
    "effect": (0.0, 1.0, 2.5, 4.0),
}
COLUMNS = "balanced accuracy | coverage | width | AUC | coverage | width"


def unequal_categories(
    random: Random, design: str, counts: tuple[int, int], effect: float
) -> list[float]:
    """Test balanced accuracy and AUC of two categories of unequal frequency.

    Scores of trials are normal and differ by an effect. The rarer category is predicted
    too rarely. Scores of a run share an offset of sd .5, if there are runs.
    """
    # scores and predictions of trials
    runs = int(design.split()[0]) if "runs" in design else 1
    label = np.repeat([0, 1], counts)
    run_number = random.permutation(len(label)) % runs
    sd = 0.5 * (runs > 1)
    noise = random.normal(size=len(label))
    offset = random.normal(0, sd, runs)
    score = effect * label + noise + offset[run_number]
    prediction = score > effect / 2 + 0.3
    tokens = torch.from_numpy(np.stack([np.ones_like(score), np.exp(score)], 1))
    images = torch.eye(2, dtype=torch.float64)
    auc_parts = compute_auc_parts(compute_decision_scores(tokens, images), label)

    # both metrics, and their true values over all trials and runs
    group_of = dict(enumerate(run_number.tolist()))
    items = StimulusGrouping(
        group_of=group_of, group_kind="runs" if runs > 1 else "trials"
    ).make_items([list(group_of)])
    scores = Scores(
        labels=label.tolist(), ranks=2 - (prediction == label), auc_parts=auc_parts
    )
    options = {"is_share": None, "items": items, "pool": 2}
    metrics = measure_categories([[scores]], {**MEASURE_OPTIONS, **options})
    recalls = norm.cdf((np.array([effect, effect]) / 2 + [0.3, -0.3]) / np.hypot(1, sd))
    areas = norm.cdf(effect / np.sqrt([2 + 2 * sd**2, 2]))
    truths = {
        "balanced_accuracy": recalls.mean(),
        "auc": np.average(areas, weights=[runs - 1, 1]),
    }
    results = []
    for name, truth in truths.items():
        results += [
            truth,
            holds(metrics[name], truth),
            metrics[name].high - metrics[name].low,
        ]
    return results
