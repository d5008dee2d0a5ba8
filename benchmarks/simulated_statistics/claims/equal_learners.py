"""A difference of two learners on the same folds keeps its level."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.folds import (
    FOLDS,
    parse_design,
    score_categories,
)
from benchmarks.simulated_statistics.judging import LEVEL
from brainhive_cli.measurement.comparison import compare_values
from brainhive_cli.measurement.units import StimulusGrouping

AXES: Mapping[str, Sequence[Any]] = {
    "design": [name for name in FOLDS if "same" not in name],
    "effect": (0.0, 1.2),
    "surplus": (0.0, 0.6),
}
COLUMNS = "accuracy | differ | differ, of independent trials"


def equal_learners(
    random: Random, design: str, effect: float, surplus: float
) -> list[float]:
    """Test how often two learners on the same folds are reported to differ.

    The learners have equally informative halves of the features. The effect of the
    first is larger by the surplus. Designs are those of `pooled_folds`. For comparison,
    a test takes trials as independent.
    """
    runs, folds, categories, trials = parse_design(design)
    n_trials = runs * categories * trials
    run_number = np.repeat(np.arange(runs), categories * trials)
    category = np.tile(np.arange(categories), runs * trials)
    patterns = np.random.default_rng(categories).normal(size=(categories, 15))
    patterns = patterns * (runs * trials) ** -0.25
    held_out = "trials" if design.startswith("trials") else "runs"
    if held_out == "trials":
        fold = random.permutation(n_trials) % folds
    else:
        fold = run_number % folds

    # hits of both learners
    hits = np.empty((2, n_trials))
    for learner, strength in enumerate((effect + surplus, effect)):
        signals = strength * patterns[category] + random.normal(size=(n_trials, 15))
        if "drift" in design:
            offset, trend = random.normal(size=(2, runs, 15))
            time = random.uniform(-1, 1, (n_trials, 1))
            signals += offset[run_number] + time * trend[run_number]
        for number in range(folds):
            is_test = fold == number
            scores = score_categories(
                signals[~is_test], category[~is_test], signals[is_test]
            )
            hits[learner, is_test] = scores.argmax(1) == category[is_test]

    # test with the variance of folds, and without
    items = StimulusGrouping(
        group_of=dict(enumerate(run_number.tolist())),
        group_kind=held_out,
        has_folds=True,
    ).make_items([list(range(n_trials))])
    results = [hits.mean()]
    for units in (items, replace(items, inflation=1.0)):
        p_value = compare_values(hits[:1], hits[1:], items=units).p_value
        results.append(p_value is not None and p_value <= LEVEL)
    return results
