"""Verdicts on pictures keep their level where signals drift with their order."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.simulated_statistics import Random, Values
from benchmarks.simulated_statistics.drifting_signals import (
    CHANNELS,
    draw_drift,
    predict_by_ridge,
)
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
    """Test verdicts on new pictures of six kinds, by a ridge on signals that drift.

    Training and test pictures have the same design. Drift is as strong as the noise of
    a trial.
    """
    centres = random.normal(size=(KINDS, WIDTH))
    patterns = effect * random.normal(size=(WIDTH, CHANNELS)) / WIDTH**0.5
    all_signals = []
    all_features = []
    for count in (180, 60):
        kind = np.repeat(np.arange(KINDS), count // KINDS)
        features = 0.8 * centres[kind] + 0.6 * random.normal(size=(count, WIDTH))
        orders = [draw_order(random, design, kind, features) for _ in range(runs)]
        if design == "one random order":
            orders = orders[:1] * runs
        position = np.argsort(orders, 1).T
        noise = random.normal(size=(count, runs, CHANNELS))
        drift = draw_drift(random, position, is_shared)
        all_signals.append((noise + drift).mean(1) + features @ patterns)
        all_features.append(features)

    # ranks of the test pictures by a ridge
    train, test = all_signals
    train_features, test_features = all_features
    predicted = torch.from_numpy(predict_by_ridge(train, train_features, test))
    candidates = test_features / np.linalg.norm(test_features, axis=1, keepdims=True)
    candidates -= candidates.mean(0)
    ranks = rank_first_pictures(predicted, torch.from_numpy(candidates), count)

    # verdicts that respect the order of trials, and that ignore it
    components = np.linalg.svd(candidates, full_matrices=False)[0][:, :16]
    order = TrialOrder.from_trials(
        np.repeat(np.arange(count), runs),
        list(range(count)),
        None,
        np.tile(np.arange(runs), count),
        position.ravel(),
        (components * count**0.5).astype(np.float32),
    )
    interleaving = Interleaving.from_pictures(order, np.zeros(count, np.int64))
    free_items = Items.independent([list(range(count))], "pictures")
    ordered_items = replace(
        free_items,
        parts=dict(enumerate(interleaving.parts)),
        problem=interleaving.problem,
    )
    side = judge([ranks], ordered_items, range(count))[0].side
    free_side = judge([ranks], free_items, range(count))[0].side
    return [
        side == "above chance",
        side == "below chance",
        side == "not testable",
        interleaving.follows_time,
        free_side == "above chance",
    ]


def draw_order(random: Random, design: str, kind: Values, features: Values) -> Values:
    """Draw the order of pictures in a run. Returns their numbers [N]."""
    count = len(kind)
    key = {
        "sorted by kind": kind,
        "kinds in random blocks": random.permutation(KINDS)[kind],
        "two groups of kinds": kind // (KINDS // 2),
        "graded": features[:, 0] + random.normal(size=count),
    }.get(design, np.zeros(count))
    return np.lexsort((random.random(count), key))
