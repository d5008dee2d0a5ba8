"""Verdicts where all pictures of a class followed one another, as in EEGCVPR40."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.simulated_statistics import Random
from benchmarks.simulated_statistics.drifting_signals import CHANNELS, predict_by_ridge
from brainhive_cli.measurement.interleaving import Interleaving
from brainhive_cli.measurement.ranks import find_nearest, rank_first_pictures
from brainhive_cli.measurement.time_alone import TimedTrials, recognise_by_time
from brainhive_cli.measurement.trial_order import TrialOrder
from brainhive_cli.measurement.units import Items
from brainhive_cli.measurement.verdict import judge

WIDTH = 20
STEP = 0.3
"""Step of the random walk from a trial to the next. The noise of a trial is 1."""
AXES: Mapping[str, Sequence[Any]] = {
    "size": ((40, 50), (10, 50)),
    "order_in_blocks": ("unknown", "known"),
    "effect": (0.0, 0.3),
}
COLUMNS = (
    "picture above | picture below | picture not testable | class not testable | "
    "class right | class right by time | picture above, order ignored"
)


def class_blocks(
    random: Random, size: tuple[int, int], order_in_blocks: str, effect: float
) -> list[float]:
    """Test verdicts on a person's walk through blocks of a class, by a ridge.

    Four fifths of the pictures of each class are for training. Features of pictures
    differ between classes and within them.
    """
    n_classes, n_pictures = size
    label = np.repeat(np.arange(n_classes), n_pictures)
    count = len(label)
    centres = random.normal(size=(n_classes, WIDTH))
    features = 0.8 * centres[label] + 0.6 * random.normal(size=(count, WIDTH))
    patterns = effect * random.normal(size=(WIDTH, CHANNELS)) / WIDTH**0.5
    walk = STEP * random.normal(size=(count, CHANNELS)).cumsum(0)
    signals = walk + random.normal(size=(count, CHANNELS)) + features @ patterns
    is_test = np.zeros(count, bool)
    for start in range(0, count, n_pictures):
        rows = random.permutation(n_pictures)[: n_pictures // 5]
        is_test[start + rows] = True

    # ranks of the test pictures
    predicted = torch.from_numpy(
        predict_by_ridge(signals[~is_test], features[~is_test], signals[is_test])
    )
    candidates = torch.from_numpy(features[is_test] - features[~is_test].mean(0))
    n_test = len(candidates)
    ranks = rank_first_pictures(predicted, candidates, n_test)

    # exchangeable labels by the order of the test trials, each block a run
    test_label = label[is_test]
    time = np.flatnonzero(is_test).astype(float)
    components = np.linalg.svd(candidates.numpy(), full_matrices=False)[0]
    order = TrialOrder.from_trials(
        np.arange(n_test),
        test_label.tolist(),
        None,
        test_label,
        time if order_in_blocks == "known" else None,
        (components * n_test**0.5).astype(np.float32),
    )
    interleaving = Interleaving.from_pictures(order, np.zeros(n_test, np.int64))
    names = list(range(n_test))
    free_items = Items([names], [test_label.tolist()], kind="concepts")
    items = replace(
        free_items,
        parts=dict(enumerate(interleaving.parts)),
        problem=interleaving.problem,
    )
    answers = judge(
        [ranks],
        items,
        names,
        interleaving.concept_parts,
        dict(enumerate(map(str, test_label.tolist()))),
        concept_problem=interleaving.concept_problem,
    )
    sides = {answer.question: answer.side for answer in answers}
    free_side = judge([ranks], Items.independent([names], "pictures"), names)[0].side

    # classes by the picture that ranks first, and by time alone
    zeros = np.zeros(count)
    by_time = recognise_by_time(
        TimedTrials(np.arange(n_test), test_label, test_label, zeros[is_test]),
        TimedTrials(
            np.flatnonzero(~is_test),
            label[~is_test],
            label[~is_test],
            zeros[~is_test],
        ),
    )
    side = sides["which picture"]
    return [
        side == "above chance",
        side == "below chance",
        side == "not testable",
        sides["which concept"] == "not testable",
        (test_label[find_nearest(predicted, candidates)] == test_label).mean(),
        by_time.mean(),
        free_side == "above chance",
    ]
