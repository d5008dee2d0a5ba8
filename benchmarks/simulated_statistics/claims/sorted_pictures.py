"""Verdicts on pictures keep their level where signals drift with their order."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.simulated_statistics import Random, Values
from benchmarks.simulated_statistics.drifting_signals import CHANNELS, draw_drift
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.ranks import rank_first_pictures
from brainhive_cli.measurement.trial_order import TrialOrder
from brainhive_cli.measurement.units import Items
from brainhive_cli.measurement.verdict import judge

KINDS = 6
WIDTH = 20
AXES: Mapping[str, Sequence[Any]] = {
    "design": (
        "random",
        "sorted by kind",
        "kinds in random blocks",
        "two groups of kinds",
        "graded",
        "one random order",
    ),
    "runs": (1, 6),
    "is_shared": (True, False),
    "effect": (0.0, 0.25),
}
COLUMNS = "above | below | not testable | caveat | above, order ignored"


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
    ranked = rank_first_pictures(predicted, torch.from_numpy(likeness), count)

    # the verdict, with what the order allows and without
    item = np.repeat(np.arange(count), runs)
    run = np.tile(np.arange(runs), count)
    components = np.linalg.svd(likeness, full_matrices=False)[0][:, :16]
    order = TrialOrder.from_trials(
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
