"""Baseline of time alone: the label of a trial, from the labels shown around it."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from brainhive_cli.core.arrays import Array, Float64, Int64

ROUNDING = 1e-9
"""Largest difference between two votes that count as equal."""


@dataclass(frozen=True)
class TimedTrials:
    """Labels and times of n trials.

    Attributes:
        item: Number [n] of the tested item that each trial belongs to, from 0.
        label: Label [n] of each trial, such as its concept.
        run: Number [n] of the run of each trial, which differs between sessions.
        time: Time [n] in any unit, from any start of the run. Equal if the order is
            unknown.
    """

    item: Int64
    label: Array
    run: Int64
    time: Float64


def recognise_by_time(test: TimedTrials, train: TimedTrials) -> Float64:
    """Recognise labels by the training trials that are nearest in time.

    They are searched in the run of a test trial, or at the same time of other runs if
    the model was trained on no trial of its run. The trials of an item vote.

    Args:
        test: Test trials. The trials of an item have the same label.
        train: Training trials of the same recordings.

    Returns:
        Hit [I] of each item: 1 if the label with the most votes is right, a share if
        it ties with wrong labels, and 0 otherwise.
    """
    # times since the first trial of each run
    runs = np.concatenate([test.run, train.run])
    times = np.concatenate([test.time, train.time])
    for run in np.unique(runs):
        times[runs == run] -= times[runs == run].min()
    test_times, train_times = np.split(times, [len(test.time)])

    labels = dict(zip(test.item.tolist(), test.label.tolist(), strict=True))
    votes: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for item, run, time in zip(test.item.tolist(), test.run, test_times, strict=True):
        distance = abs(train_times - time)
        is_same_run = train.run == run
        if is_same_run.any():
            distance = np.where(is_same_run, distance, np.inf)
        nearest_labels = train.label[distance == distance.min()].tolist()
        for label in nearest_labels:
            votes[item][label] += 1 / len(nearest_labels)

    hits = np.zeros(len(labels))
    for item, label in labels.items():
        most_votes = max(votes[item].values())
        winners = []
        for name, count in votes[item].items():
            if count >= most_votes - ROUNDING:
                winners.append(name)
        hits[item] = (label in winners) / len(winners)
    return hits
