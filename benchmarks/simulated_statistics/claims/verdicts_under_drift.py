"""Verdicts on trials keep their level where signals drift."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.folds import score_categories
from benchmarks.simulated_statistics.judging import rank_all
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.trial_order import TrialOrder
from brainhive_cli.measurement.units import StimulusGrouping
from brainhive_cli.measurement.verdict import judge

AXES: Mapping[str, Sequence[Any]] = {
    "design": (
        "random, out: trials",
        "blocks of 10, out: trials",
        "blocks of 3, out: trials",
        "pairs, out: trials",
        "one random order, out: trials",
        "a category a run, out: trials",
        "random, out: runs",
        "blocks of 10, out: runs",
        "blocks of 3, out: runs",
        "pairs, out: runs",
        "one random order, out: runs",
        "one order, out: runs",
    ),
    "effect": (0.0, 1.2),
}
BLOCK_SIZES = {"blocks of 10": 10, "one order": 10, "blocks of 3": 3, "pairs": 2}
COLUMNS = (
    "accuracy | above | below | not testable | above, order ignored | below, "
    "order ignored"
)


def verdicts_under_drift(random: Random, design: str, effect: float) -> list[float]:
    """Test verdicts on six drifting runs of four categories with ten trials each.

    Drift is a moving average over some thirty trials, as strong as the noise of a
    trial, and so are the offsets of runs. If labels have the same order in all runs,
    runs drift alike. The classifier is the same as in `pooled_folds`.
    """
    order_name, _, held_out = design.partition(", out: ")
    run_number = np.repeat(np.arange(6), 40)
    category = draw_categories(random, order_name)

    # signals [N, F]
    is_shared = order_name in ("one order", "one random order")
    noise = random.normal(size=(1 if is_shared else 6, 100, 30))
    courses = gaussian_filter1d(noise, 12, axis=1)
    drift = np.broadcast_to(courses[:, 30:70] / courses.std(), (6, 40, 30))
    patterns = np.random.default_rng(4).normal(size=(4, 30)) * 240**-0.25
    signals = effect * patterns[category] + drift.reshape(240, 30)
    signals = signals + random.normal(size=(6, 30))[run_number]
    signals = signals + random.normal(size=(240, 30))

    # ranks [N, 4] of the categories by each trial
    fold = random.permutation(240) % 6 if held_out == "trials" else run_number
    ranks = np.empty((240, 4))
    for number in range(6):
        is_test = fold == number
        scores = score_categories(
            signals[~is_test], category[~is_test], signals[is_test]
        )
        ranks[is_test] = rank_all(scores, np.eye(4))
    accuracy = float((ranks[np.arange(240), category] == 1).mean())

    # a verdict that exchanges labels only within interleaved trials
    label_of = dict(enumerate(category.tolist()))
    run_of = dict(enumerate(run_number.tolist()))
    order = TrialOrder.from_trials(
        np.arange(240), category.tolist(), None, run_number, np.arange(240.0)
    )
    interleaving = Interleaving.from_trials(order, fold, held_out)
    items = StimulusGrouping(
        group_of=run_of, group_kind=held_out, has_folds=True
    ).make_items([list(range(240))])
    side = judge(
        [ranks],
        replace(
            items,
            parts=dict(enumerate(interleaving.parts)),
            problem=interleaving.problem,
        ),
        range(4),
        label_of=label_of,
        blocks=dict(enumerate(interleaving.blocks)),
    )[0].side

    # a verdict that ignores the order
    free_items = replace(items, parts={} if held_out == "trials" else run_of)
    free_side = judge([ranks], free_items, range(4), label_of=label_of)[0].side
    return [
        accuracy,
        side == "above chance",
        side == "below chance",
        side == "not testable",
        free_side == "above chance",
        free_side == "below chance",
    ]


def draw_categories(random: Random, order_name: str) -> NDArray[np.int64]:
    """Draw the categories [240] of six runs in an order of `AXES`."""
    size = BLOCK_SIZES.get(order_name, 1)
    orders: list[NDArray[np.int64]] = []
    for number in range(6):
        repetitions = 12 // size + 1 if size < 10 else 1
        blocks = random.permutation(np.repeat(np.arange(4), repetitions))
        if order_name == "one order":
            blocks = np.arange(4)
        elif order_name == "a category a run":
            blocks = np.full(40, number % 4)
        elif order_name == "one random order" and orders:
            blocks = orders[0]
        orders.append(np.repeat(blocks, size)[:40])
    return np.concatenate(orders)
