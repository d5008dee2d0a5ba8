"""Verdicts on new pictures claim no more than the design allows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random, Values
from benchmarks.simulated_statistics.designed_signals import (
    COLUMNS as COLUMNS,
    SIGNALS,
    compare_verdicts,
    predict_by_ridge,
    record,
)
from brainhive_cli.measurement.design import Exchange, Timeline, describe_pictures
from brainhive_cli.measurement.units import StimulusGrouping

KINDS = 8
TEST, TRAIN = 5, 10
"""Number of test and training pictures of a kind."""
WIDTH = 12
TRIALS = 40
"""Number of trials of a run."""
EFFECT = 0.17
AXES: Mapping[str, Sequence[Any]] = {
    "design": (
        "random",
        "unequal repetitions",
        "each picture once in a run",
        "permuted kinds",
        "kinds in blocks",
        "training beside test",
        "kinds in a cycle",
        "sorted by kind",
        "sorted by a feature",
        "only test sorted",
        "test kinds in blocks",
        "a list a session",
        "two people",
        "repetitions in a row, sorted",
        "one random order in runs",
        "random, fMRI",
    ),
    "signals": SIGNALS,
}


def designs_of_pictures(random: Random, design: str, signals: str) -> list[float]:
    """Test verdicts on 40 test pictures of eight kinds, by a ridge.

    Signals drift and hold responses to the trials before and after, but none to their
    own trial. Or they hold a response to their own trial alone.
    """
    order_name, _, modality = design.partition(", fMRI")
    kind = np.repeat(np.arange(KINDS), TEST + TRAIN)
    is_test = np.tile(np.arange(TEST + TRAIN) < TEST, KINDS)
    if order_name == "test kinds in blocks":
        is_test = kind >= KINDS - 3
    features = random.normal(size=(KINDS, WIDTH))[kind]
    features += random.normal(size=features.shape)
    if order_name in ("sorted by a feature", "only test sorted"):
        features += 0.4 * random.normal(size=features.shape).cumsum(0)
    features -= features.mean(0)
    picture, group = draw_order(random, order_name, kind, is_test)
    run = np.arange(len(picture)) // TRIALS
    run = np.unique(np.stack([group, run]), axis=1, return_inverse=True)[1].ravel()

    has_response = signals == "response only"
    recorded = record(
        random,
        features[picture],
        run,
        effect=EFFECT if has_response else 0.0,
        confound=0.0 if has_response else 1.0,
        lags=(1, 2, 3) if modality else (1, -1),
    )

    # ranks of the test pictures by the means of their signals
    number = np.full(len(kind), -1)
    number[is_test] = np.arange(is_test.sum())
    unit = number[picture]
    means = np.array(
        [recorded[unit == index].mean(0) for index in range(is_test.sum())]
    )
    is_train = unit < 0
    targets = features[picture[is_train]]
    predicted = predict_by_ridge(recorded[is_train], targets, means)
    candidates = features[is_test] - targets.mean(0)
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    similarity = predicted @ candidates.T
    ranks = 1 + (-similarity).argsort(1).argsort(1)

    is_person = order_name == "two people"
    timeline = Timeline(
        stimulus=picture,
        unit=unit,
        person=group if is_person else 0 * group,
        session=group,
        run=run,
        is_ordered=True,
        features=features,
        concept=np.arange(len(kind)),
    )
    found = describe_pictures(timeline, np.zeros(len(means), np.int64))
    names = list(range(len(means)))
    items = StimulusGrouping().make_items([names])
    units = [np.arange(len(means))]
    return compare_verdicts(ranks, items, names, Exchange(found, units))


def draw_order(
    random: Random, name: str, kind: Values, is_test: Values
) -> tuple[Values, Values]:
    """Draw the picture [n] of each trial, and its session or person [n]."""
    test, train = np.flatnonzero(is_test), np.flatnonzero(~is_test)
    once = np.concatenate([test, train])
    all_trials = np.concatenate([np.repeat(test, 4), np.repeat(train, 2)])
    group = np.zeros(len(all_trials), np.int64)
    repetitions: list[Values] = []
    shared = random.permutation(once)
    for _ in range(3):
        key = np.zeros(len(once))
        if name in ("kinds in blocks", "training beside test"):
            key = random.permutation(KINDS)[kind[once]]
        elif name.startswith("sorted"):
            key = kind[once] if name == "sorted by kind" else once
        order = once[np.lexsort((random.random(len(once)), key))]
        if name == "training beside test":
            order = np.concatenate(
                [np.split(order, KINDS)[index] for index in range(KINDS)]
            )
        elif name in ("kinds in a cycle", "permuted kinds"):
            columns = [random.permutation(once[kind[once] == k]) for k in range(KINDS)]
            rows = np.stack(columns, 1)
            if name == "permuted kinds":
                rows = random.permuted(rows, axis=1)
            order = rows.ravel()
        elif name == "one random order in runs":
            order = shared
        repetitions.append(order)
    if name == "unequal repetitions":
        counts = np.where(kind[test] < KINDS // 2, 8, 2)
        order = np.concatenate([np.repeat(test, counts), np.repeat(train, 2)])
        return random.permutation(order), np.zeros(len(order), np.int64)
    if name in ("a list a session", "two people"):
        lists = []
        for half in (0, 1):
            lists.append(random.permutation(all_trials[kind[all_trials] % 2 == half]))
        return np.concatenate(lists), np.repeat([0, 1], [len(part) for part in lists])
    shuffled_train = random.permutation(np.repeat(train, 2))
    if name == "only test sorted":
        order = np.concatenate(
            [random.permutation(np.repeat(train, 2)), np.tile(test, 4)]
        )
        return order, group
    if name == "repetitions in a row, sorted":
        order = np.concatenate(
            [random.permutation(np.repeat(train, 2)), np.repeat(test, 4)]
        )
        return order, group
    if name == "test kinds in blocks":
        parts = [shuffled_train]
        for _ in range(3):
            for number in random.permutation(np.unique(kind[test])):
                parts.append(random.permutation(test[kind[test] == number]))
        order = np.concatenate(parts)
        return order, np.zeros(len(order), np.int64)
    if name == "random":
        return random.permutation(all_trials), group
    order = np.concatenate(repetitions)
    return order, np.zeros(len(order), np.int64)
