"""A difference of two learners on the same folds keeps its level."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.folds import FOLDS, score_categories
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
    """Learners on the same folds: how often they differ, beside sign flips that take
    trials as they come.

    Half of the features is for one, half for the other, which carry as much; the first
    one's effect is larger by a surplus. Designs are those of pooled folds.
    """
    runs, folds, categories, trials = (
        int(word) for word in design.split() if word.isdigit()
    )
    run, category = (
        np.repeat(np.arange(runs), categories * trials),
        np.tile(np.arange(categories), runs * trials),
    )
    patterns = (
        np.random.default_rng(categories).normal(size=(categories, 15))
        * (runs * trials) ** -0.25
    )
    held_out = "trials" if design.startswith("trials") else "runs"
    fold = (random.permutation(len(run)) if held_out == "trials" else run) % folds

    # hits of both learners
    hits = np.empty((2, len(run)))
    for learner, strength in enumerate((effect + surplus, effect)):
        signals = strength * patterns[category] + random.normal(size=(len(run), 15))
        if "drift" in design:
            offset, trend = random.normal(size=(2, runs, 15))
            signals += offset[run] + random.uniform(-1, 1, (len(run), 1)) * trend[run]
        for number in range(folds):
            is_tested = fold == number
            scores = score_categories(
                signals[~is_tested], category[~is_tested], signals[is_tested]
            )
            hits[learner, is_tested] = scores.argmax(1) == category[is_tested]

    # p, with the variance of folds, and without
    items = StimulusGrouping(
        group_of=dict(enumerate(run.tolist())), group_kind=held_out, has_folds=True
    ).make_items([[*range(len(run))]])
    compared = [
        compare_values(hits[:1], hits[1:], items=each)
        for each in (items, replace(items, inflation=1.0))
    ]
    return [
        hits.mean(),
        *(each.p_value is not None and each.p_value <= LEVEL for each in compared),
    ]
