"""Verdicts on trials keep their level where signals drift."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.folds import score_categories
from benchmarks.simulated_statistics.judging import rank_all
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.trial_order import TrialOrder
from brainhive_cli.measurement.units import StimulusGrouping
from brainhive_cli.measurement.verdict import judge

AXES: Mapping[str, Sequence[Any]] = {
    "design": [
        f"{shown}, out: {by}"
        for by, more in (("trials", "a category a run"), ("runs", "one order"))
        for shown in (
            *("random", "blocks of 10", "blocks of 3", "pairs"),
            *("one random order", more),
        )
    ],
    "effect": (0.0, 1.2),
}
COLUMNS = (
    "accuracy | above | below | not testable | above, order ignored | below, "
    "order ignored"
)


def verdicts_under_drift(random: Random, design: str, effect: float) -> list[float]:
    """Six runs of four categories, ten trials each, whose signals drift: verdicts with
    and without order.

    Drift is a moving average over some thirty trials, as strong as the noise of a
    trial, and of one course in all runs where labels have one order; so are offsets of
    runs. Learners are those of pooled folds.
    """
    shown, _, by = design.partition(", out: ")
    size = {"blocks of 10": 10, "one order": 10, "blocks of 3": 3, "pairs": 2}.get(
        shown, 1
    )
    run, orders = np.repeat(np.arange(6), 40), []
    for number in range(6):
        blocks = random.permutation(
            np.repeat(np.arange(4), 12 // size + 1 if size < 10 else 1)
        )
        blocks = {
            "one order": np.arange(4),
            "a category a run": np.full(40, number % 4),
            "one random order": (orders or [blocks])[0],
        }.get(shown, blocks)
        orders.append(np.repeat(blocks, size)[:40])
    category = np.concatenate(orders)

    # signals [N, F]
    is_shared = shown in ("one order", "one random order")
    courses = gaussian_filter1d(
        random.normal(size=(1 if is_shared else 6, 100, 30)), 12, axis=1
    )
    drift = np.broadcast_to(courses[:, 30:70] / courses.std(), (6, 40, 30)).reshape(
        240, 30
    )
    patterns = np.random.default_rng(4).normal(size=(4, 30)) * 240**-0.25
    signals = effect * patterns[category] + drift + random.normal(size=(6, 30))[run]
    signals = signals + random.normal(size=(240, 30))

    # ranks [N, 4] of the categories by each trial
    fold, ranked = (
        random.permutation(240) % 6 if by == "trials" else run,
        np.empty((240, 4)),
    )
    for number in range(6):
        is_tested = fold == number
        scores = score_categories(
            signals[~is_tested], category[~is_tested], signals[is_tested]
        )
        ranked[is_tested] = rank_all(scores, np.eye(4))

    # verdicts with labels exchanged within what was interleaved, and freely or within
    # runs
    order = TrialOrder.from_trials(
        np.arange(240), category.tolist(), None, run, np.arange(240.0)
    )
    found = Interleaving.from_trials(order, fold, by)
    label_of, parts, blocks = (
        dict(enumerate(each)) for each in (category.tolist(), found.parts, found.blocks)
    )
    items = StimulusGrouping(
        group_of=dict(enumerate(run.tolist())), group_kind=by, has_folds=True
    ).make_items([[*range(240)]])
    allowed = replace(items, parts=parts, problem=found.problem)
    naive = replace(
        items, parts={} if by == "trials" else dict(enumerate(run.tolist()))
    )
    sides = [
        judge([ranked], each, range(4), label_of=label_of, blocks=listed)[0].side
        for each, listed in ((allowed, blocks), (naive, None))
    ]
    accuracy = float((ranked[np.arange(240), category] == 1).mean())
    answers = [(side == "above chance", side == "below chance") for side in sides]
    return [accuracy, *answers[0], sides[0] == "not testable", *answers[1]]
