"""Intervals and verdicts hold for folds of runs or trials."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.folds import FOLDS, score_categories
from benchmarks.simulated_statistics.judging import rank_all
from brainhive_cli.measurement.ranks import summarise_ranks
from brainhive_cli.measurement.units import StimulusGrouping
from brainhive_cli.measurement.verdict import judge

AXES: Mapping[str, Sequence[Any]] = {"design": FOLDS, "effect": (0.0, 0.7, 1.2)}
COLUMNS = "accuracy | coverage | width | above chance | below chance"


def pooled_folds(random: Random, design: str, effect: float) -> list[Any]:
    """Runs or trials in folds: coverage of accuracy for the mean of all simulations,
    and verdicts.

    A design has so many categories of fixed patterns, and trials of each in a run.
    Where runs drift, their trials share an offset and a linear trend, each as strong as
    the noise of a trial; runs are new in each simulation, or the same. Each fold is
    classified by linear discriminant analysis with shrinkage, fitted to the trials of
    all others.

    Source: Ledoit and Wolf 2004 (shrinkage of the covariance).
    """
    runs, folds, categories, trials = (
        int(word) for word in design.split() if word.isdigit()
    )
    shape = (categories, runs * trials, 30)
    run = np.tile(np.repeat(np.arange(runs), trials), (categories, 1))
    category = np.tile(np.arange(categories)[:, None], shape[1])

    # signals [K, N, F]; patterns are weaker where there are many trials to learn from
    patterns = np.random.default_rng(categories).normal(size=(categories, 1, shape[2]))
    signals = effect * shape[1] ** -0.25 * patterns + random.normal(size=shape)
    if "drift" in design:
        of_runs = np.random.default_rng(runs) if "same" in design else random
        offset, trend = of_runs.normal(size=(2, runs, shape[2]))
        signals += offset[run] + random.uniform(-1, 1, (*run.shape, 1)) * trend[run]

    # folds [K, N], as `Holdout` deals runs and the trials of each category
    is_by_trial = design.startswith("trials")
    dealt = random.permuted(np.tile(np.arange(shape[1]), (categories, 1)), axis=1)
    fold = (
        (dealt + np.arange(categories)[:, None]) % folds if is_by_trial else run % folds
    )

    # ranks [K * N, K] of the categories by each trial
    ranked, flat = np.empty((run.size, categories)), signals.reshape(run.size, -1)
    for number in range(folds):
        is_tested = fold.ravel() == number
        scores = score_categories(
            flat[~is_tested], category.ravel()[~is_tested], flat[is_tested]
        )
        ranked[is_tested] = rank_all(scores, np.eye(categories))

    # interval and verdicts, as of an evaluation
    group_of, label_of = (
        dict(enumerate(each.ravel().tolist())) for each in (run, category)
    )
    items = StimulusGrouping(
        group_of=group_of,
        group_kind="trials" if is_by_trial else "runs",
        has_folds=True,
    ).make_items([[*group_of]])
    own = ranked[np.arange(len(ranked)), category.ravel()]
    top1 = summarise_ranks(
        [own], categories, split="test", items=items, metric_names=("top1",)
    )
    tested_with = dict(enumerate(fold.ravel().tolist())) if is_by_trial else group_of
    items = replace(items, parts=tested_with)
    side = judge([ranked], items, range(categories), label_of=label_of)[0].side
    return [*top1, side == "above chance", side == "below chance"]
