"""Recordings whose signals drift, with pictures in several orders.

The tables are printed by `benchmarks/simulated_statistics.py`.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.evaluation.retrieval.measure import measure_ceiling
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.ranks import ranks_of_all
from brainhive_cli.measurement.repetitions import separate_repetitions
from brainhive_cli.measurement.trial_order import TrialOrder
from brainhive_cli.measurement.units import Items
from brainhive_cli.measurement.verdict import judge

Values = NDArray[np.float64]
Random = np.random.Generator
KINDS, WIDTH, CHANNELS = 6, 20, 12
PICTURE_ORDERS = (
    "random",
    "sorted by kind",
    "kinds in random blocks",
    "two groups of kinds",
    "graded",
    "one random order",
)
REPEATED = ("random", "one order", "two orders", "halves of runs", "in a row")


def draw_order(random: Random, design: str, kind: Values, features: Values) -> Values:
    """Draw the order of pictures in a run: their numbers, [N]."""
    count = len(kind)
    key = {
        "sorted by kind": kind,
        "kinds in random blocks": random.permutation(KINDS)[kind],
        "two groups of kinds": kind // (KINDS // 2),
        "graded": features[:, 0] + random.normal(size=count),
    }.get(design, np.zeros(count))
    return np.lexsort((random.random(count), key))


def draw_drift(random: Random, position: Values, is_shared: bool) -> Values:
    """Draw drift [N, R, C] at positions [N, R]: a trend, habituation, a U and a wave,
    of unit spread.
    """
    time = position / position.max()
    courses = [time, np.exp(-5 * time), (2 * time - 1) ** 2, np.sin(6 * time)]
    basis = np.stack(courses, -1)
    basis = (basis - basis.mean((0, 1))) / basis.std((0, 1))
    runs = 1 if is_shared else position.shape[1]
    load = np.broadcast_to(
        random.normal(size=(runs, 4, CHANNELS)) / 2, (position.shape[1], 4, CHANNELS)
    )
    return np.einsum("nrk,rkc->nrc", basis, load)


def sorted_pictures(
    random: Random, design: str, runs: int, is_shared: bool, effect: float
) -> list[float]:
    """Give verdicts on new pictures of six kinds, by a ridge on signals that drift.

    Training and test pictures come in orders of one design; drift is as strong as the
    noise of a trial.
    """
    centres = random.normal(size=(KINDS, WIDTH))
    patterns = effect * random.normal(size=(WIDTH, CHANNELS)) / WIDTH**0.5
    signals, shown = [], []
    for count in (180, 60):
        kind = np.repeat(np.arange(KINDS), count // KINDS)
        features = 0.8 * centres[kind] + 0.6 * random.normal(size=(count, WIDTH))
        orders = [draw_order(random, design, kind, features) for _ in range(runs)]
        if design == "one random order":
            orders = orders[:1] * runs
        position = np.argsort(orders, 1).T
        noise = random.normal(size=(count, runs, CHANNELS))
        drift = draw_drift(random, position, is_shared)
        signals.append((noise + drift).mean(1) + features @ patterns)
        shown.append(features)

    # ranks of the test pictures by a ridge
    centred = signals[0] - signals[0].mean(0)
    products = centred.T @ centred + 3 * np.eye(CHANNELS)
    weights = np.linalg.solve(products, centred.T @ (shown[0] - shown[0].mean(0)))
    predicted = torch.from_numpy((signals[1] - signals[0].mean(0)) @ weights)
    likeness = shown[1] / np.linalg.norm(shown[1], axis=1, keepdims=True)
    likeness -= likeness.mean(0)
    ranked = ranks_of_all(predicted, torch.from_numpy(likeness), count)

    # the verdict, with what the order allows and without
    item = np.repeat(np.arange(count), runs)
    run = np.tile(np.arange(runs), count)
    components = np.linalg.svd(likeness, full_matrices=False)[0][:, :16]
    order = TrialOrder.of(
        item,
        [*range(count)],
        None,
        run,
        position.ravel(),
        (components * count**0.5).astype(np.float32),
    )
    found = Interleaving.from_pictures(order, np.zeros(count, np.int64))
    free = Items.independent([[*range(count)]], "pictures")
    allowed = replace(free, parts=dict(enumerate(found.parts)), problem=found.problem)
    sides = [judge([ranked], each, range(count))[0].side for each in (allowed, free)]
    return [
        sides[0] == "above chance",
        sides[0] == "below chance",
        sides[0] == "not testable",
        found.follows_time,
        sides[1] == "above chance",
    ]


def ceilings_by_order(
    random: Random, design: str, strength: float, effect: float
) -> list[float]:
    """Measure the ceiling of 60 pictures in 8 runs that drift alike, by their order."""
    count, runs = 60, 8
    orders = [random.permutation(count) for _ in range(runs)]
    if design == "one order":
        orders = orders[:1] * runs
    if design == "two orders":
        orders = orders[:2] * (runs // 2)
    if design == "halves of runs":
        halves = np.arange(count).reshape(2, -1)
        orders = [random.permuted(halves, axis=1).ravel() for _ in range(runs)]
    position = np.argsort(orders, 1).T  # [N, R]
    run = np.tile(np.arange(runs), (count, 1))
    if design == "in a row":
        position = orders[0][:, None] * runs + np.arange(runs)
        run = np.zeros((count, runs), np.int64)
    drift = draw_drift(random, position, True)
    pictures = effect * random.normal(size=(count, 1, CHANNELS))
    signals = strength * drift + random.normal(size=drift.shape) + pictures

    is_there = np.ones((count, runs), bool)
    try:
        parts = separate_repetitions(is_there, None, run, position.astype(float))
    except BrainhiveError:
        return [1.0, np.nan]
    ceiling = measure_ceiling(
        torch.from_numpy(signals),
        torch.full((count,), runs),
        [*map(str, range(count))],
        10,
        0,
        torch.from_numpy(parts),
    )
    return [0.0, float(ceiling.values["reliability"].mean())]
