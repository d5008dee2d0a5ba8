"""Intervals and verdicts hold for folds of runs or trials."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.folds import (
    FOLDS,
    parse_design,
    score_categories,
)
from benchmarks.simulated_statistics.judging import rank_all
from brainhive_cli.measurement.design import Exchange, LabelDesign
from brainhive_cli.measurement.ranks import summarise_ranks
from brainhive_cli.measurement.units import StimulusGrouping
from brainhive_cli.measurement.verdict import judge

AXES: Mapping[str, Sequence[Any]] = {"design": FOLDS, "effect": (0.0, 0.7, 1.2)}
COLUMNS = "accuracy | coverage | width | above chance | below chance"


def pooled_folds(random: Random, design: str, effect: float) -> list[Any]:
    """Test accuracy around the mean of all simulations, and verdicts.

    A design has categories with fixed patterns, and trials of each in a run. The trials
    of a drifting run share an offset and a linear trend, each as strong as the noise of
    a trial. Runs are new in each simulation, or the same. Each fold is classified by
    linear discriminant analysis with shrinkage, fitted to all other trials.

    Source: Ledoit and Wolf 2004 (shrinkage of the covariance).
    """
    runs, folds, categories, trials = parse_design(design)
    n_trials = runs * trials
    shape = (categories, n_trials, 30)
    run_number = np.tile(np.repeat(np.arange(runs), trials), (categories, 1))
    category = np.tile(np.arange(categories)[:, None], n_trials)

    # signals [K, N, F], with patterns that are weaker if there are many trials
    patterns = np.random.default_rng(categories).normal(size=(categories, 1, 30))
    signals = effect * n_trials**-0.25 * patterns + random.normal(size=shape)
    if "drift" in design:
        run_random = np.random.default_rng(runs) if "same" in design else random
        offset, trend = run_random.normal(size=(2, runs, 30))
        time = random.uniform(-1, 1, (categories, n_trials, 1))
        signals += offset[run_number] + time * trend[run_number]

    # folds [K, N], as `Holdout` deals runs and the trials of each category
    is_by_trial = design.startswith("trials")
    trial_numbers = np.tile(np.arange(n_trials), (categories, 1))
    shuffled = random.permuted(trial_numbers, axis=1)
    if is_by_trial:
        fold = (shuffled + np.arange(categories)[:, None]) % folds
    else:
        fold = run_number % folds

    # one row per trial [K * N]
    signals = signals.reshape(run_number.size, -1)
    run_number = run_number.ravel()
    category = category.ravel()
    fold = fold.ravel()

    # ranks [K * N, K] of the categories by each trial
    ranks = np.empty((len(category), categories))
    for number in range(folds):
        is_test = fold == number
        scores = score_categories(
            signals[~is_test], category[~is_test], signals[is_test]
        )
        ranks[is_test] = rank_all(scores, np.eye(categories))

    # interval and verdicts as in an evaluation
    group_of = dict(enumerate(run_number.tolist()))
    label_of = dict(enumerate(category.tolist()))
    items = StimulusGrouping(
        group_of=group_of,
        group_kind="trials" if is_by_trial else "runs",
        has_folds=True,
    ).make_items([list(group_of)])
    target_ranks = ranks[np.arange(len(ranks)), category]
    top1 = summarise_ranks(
        [target_ranks], categories, split="test", items=items, metric_names=("top1",)
    )
    design = LabelDesign.free(category, fold if is_by_trial else run_number)
    exchange = Exchange(design, [np.arange(len(category))])
    side = judge(
        [ranks], items, range(categories), label_of=label_of, exchange=exchange
    )[0].side
    return [top1[0], side == "above chance", side == "below chance"]
