"""Verdicts on classes of trials claim no more than the design allows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.simulated_statistics import Random, Values
from benchmarks.simulated_statistics.designed_signals import (
    COLUMNS as COLUMNS,
    SIGNALS,
    compare_verdicts,
    draw_chain,
    predict_by_ridge,
    record,
)
from brainhive_cli.measurement.design import Exchange, Timeline, describe_trials
from brainhive_cli.measurement.units import StimulusGrouping

RUNS = 8
TRIALS = 32
"""Number of trials of a run."""
CLASSES = 4
EFFECT = 0.16
AXES: Mapping[str, Sequence[Any]] = {
    "design": (
        "random in runs",
        "random",
        "permuted blocks",
        "never repeats",
        "blocks",
        "blocks, same order",
        "short blocks",
        "cycle",
        "alternation",
        "pairs",
        "often repeats",
        "often the next",
        "two before",
        "rates change",
        "one random order",
        "cycle, fMRI",
        "random in runs, fMRI",
        "a class a run",
    ),
    "signals": SIGNALS,
}


def designs_of_classes(random: Random, design: str, signals: str) -> list[float]:
    """Test verdicts on eight runs of 32 trials of four classes, by a ridge.

    Signals drift and hold responses to the trials before and after, but none to their
    own trial. Or they hold a response to their own trial alone.
    """
    order_name, _, modality = design.partition(", fMRI")
    label = np.concatenate(draw_runs(random, order_name))
    run = np.repeat(np.arange(RUNS), TRIALS)
    responses = np.eye(CLASSES)[label] @ random.normal(size=(CLASSES, 8))
    has_response = signals == "response only"
    lags: tuple[int, ...] = (1, 2, 3) if modality else (1, -1)
    if order_name.startswith(("blocks", "short blocks", "a class")):
        lags = ()  # a window that holds two trials of a class shows this class
    recorded = record(
        random,
        responses,
        run,
        effect=EFFECT if has_response else 0.0,
        confound=0.0 if has_response else 1.0,
        lags=lags,
    )

    # ranks by a ridge for each pair of runs that is held out
    scores = np.empty((len(label), CLASSES))
    for fold in range(4):
        is_test = run % 4 == fold
        targets = np.eye(CLASSES)[label[~is_test]]
        scores[is_test] = predict_by_ridge(
            recorded[~is_test], targets, recorded[is_test]
        )
    hits = np.where(scores.argmax(1)[:, None] == np.arange(CLASSES), 1, 2)

    trials = np.arange(len(label))
    zeros = np.zeros_like(run)
    timeline = Timeline(
        label, trials, zeros, zeros, run, True, None, np.arange(CLASSES)
    )
    found, units = describe_trials(timeline, zeros)
    grouping = StimulusGrouping(
        group_of=dict(enumerate(run.tolist())), group_kind="runs", has_folds=True
    )
    items = grouping.make_items([trials.tolist()])
    return compare_verdicts(
        hits,
        items,
        range(CLASSES),
        Exchange(found, [units]),
        label_of=dict(enumerate(label.tolist())),
        are_hits=True,
    )


def draw_runs(random: Random, name: str) -> list[Values]:
    """Draw the classes [TRIALS] of each run."""
    classes = np.arange(CLASSES)
    each = np.repeat(classes, TRIALS // CLASSES)
    if name == "random":
        return np.split(random.permutation(np.tile(each, RUNS)), RUNS)
    if name == "rates change":
        rates = random.normal(size=(RUNS * TRIALS, CLASSES)).cumsum(0) * 0.25
        noise = random.gumbel(size=rates.shape)
        return np.split((rates + noise).argmax(1), RUNS)
    shared = random.permutation(CLASSES)
    same = random.permutation(each)
    runs = []
    for number in range(RUNS):
        start = int(random.integers(CLASSES))
        order = random.permutation(each)
        if name == "permuted blocks":
            blocks = [random.permutation(CLASSES) for _ in range(TRIALS // CLASSES)]
            order = np.concatenate(blocks)
        elif name == "blocks":
            order = np.repeat(random.permutation(CLASSES), TRIALS // CLASSES)
        elif name == "blocks, same order":
            order = np.repeat(shared, TRIALS // CLASSES)
        elif name == "short blocks":
            order = np.repeat(random.permutation(np.tile(classes, 2)), 4)
        elif name == "cycle":
            order = shared[(start + np.arange(TRIALS)) % CLASSES]
        elif name == "alternation":
            order = (start + np.arange(TRIALS)) % 2
        elif name == "pairs":
            first = 2 * random.permutation(np.repeat([0, 1], TRIALS // 4))
            order = shared[np.stack([first, first + 1], 1).ravel()]
        elif name == "never repeats":
            order = draw_chain(random, TRIALS, 0.0, CLASSES)
        elif name == "often repeats":
            order = draw_chain(random, TRIALS, 0.6, CLASSES)
        elif name == "often the next":
            is_next = random.random(TRIALS) < 0.6
            steps = np.where(is_next, 1, random.integers(CLASSES, size=TRIALS))
            order = steps.cumsum() % CLASSES
        elif name == "two before":
            order = random.integers(CLASSES, size=TRIALS)
            for row in range(2, TRIALS):
                if random.random() < 0.8:
                    order[row] = order[row - 2]
        elif name == "one random order":
            order = same
        elif name == "a class a run":
            order = np.full(TRIALS, shared[number % CLASSES])
        runs.append(order)
    return runs
