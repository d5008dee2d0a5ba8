"""Baseline of time alone: the label of a trial, from the labels shown around it."""

from dataclasses import dataclass

import numpy as np

from brainhive_cli.core.arrays import Float64, Int64

ROUNDING = 1e-9
"""Largest difference between two votes that count as equal."""


@dataclass(frozen=True)
class TimedTrials:
    """Labels and times of n trials.

    Attributes:
        item: Number [n] of the tested item that each trial belongs to, from 0.
        label: Number [n] of the label of each trial, such as its concept.
        run: Number [n] of the run of each trial, which differs between sessions.
        time: Time [n] in any unit, from any start of the run. Equal if the order is
            unknown.
    """

    item: Int64
    label: Int64
    run: Int64
    time: Float64


def recognise_by_time(test: TimedTrials, train: TimedTrials) -> Float64:
    """Recognise labels by the training trials that are nearest in time.

    Neighbours are sought in the run of the test trial. If the model was trained on no
    trial of that run, they are sought at the same time of other runs. Each trial of an
    item has a vote.

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

    # the nearest training trials share the vote of a test trial
    n_items = 1 + int(test.item.max(initial=-1))
    n_labels = 1 + int(max(test.label.max(), train.label.max()))
    votes = np.zeros((n_items, n_labels))
    for row, item in enumerate(test.item):
        distance = abs(train_times - test_times[row])
        is_same_run = train.run == test.run[row]
        if is_same_run.any():
            distance[~is_same_run] = np.inf
        nearest_labels = train.label[distance == distance.min()]
        counts = np.bincount(nearest_labels, minlength=n_labels)
        votes[item] += counts / len(nearest_labels)

    labels = np.zeros(n_items, np.int64)
    labels[test.item] = test.label
    is_winner = votes >= votes.max(1, keepdims=True) - ROUNDING
    hits: Float64 = is_winner[np.arange(n_items), labels] / is_winner.sum(1)
    return hits
