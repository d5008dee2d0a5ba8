"""Repetitions of a picture that are far apart in time."""

import numpy as np
import pytest

from brainhive_cli.core.base.errors import BrainhiveError
from brainhive_cli.measurement.trial_order import (
    TrialOrder,
    find_confound,
    separate_repetitions,
)


@pytest.mark.parametrize(
    ("design", "parts"),
    [
        ("random", 8),
        ("one after the other", None),
        ("in one order", None),
        ("in each session", 4),
        ("in one of ten sessions", None),
        ("in two of ten sessions", 2),
    ],
)
def test_repetitions_are_halved_by_parts_that_are_far_apart(design, parts):
    """Fifty pictures have eight repetitions each. If repetitions follow one another,
    drift alone makes them agree. The ceiling of noise was then 0.62, not 0.01.
    """
    random, pictures = np.random.default_rng(0), np.arange(50)
    shown_pictures, sessions = np.repeat(random.permutation(pictures), 8), None
    if design == "random":
        shown_pictures = random.permutation(shown_pictures)
    if design == "in one order":
        shown_pictures = np.tile(pictures, 8)
    if design == "in each session":
        shown_pictures = np.concatenate(
            [np.repeat(random.permutation(pictures), 2) for _ in range(4)]
        )
        sessions = np.empty((50, 8), np.int64)
    if design == "in two of ten sessions":
        shown_pictures = np.concatenate(
            [np.repeat(random.permutation(pictures), 4) for _ in range(2)]
        )
    trials_a_session = 100
    if "ten sessions" in design:
        sessions, trials_a_session = np.empty((50, 8), np.int64), 40
    onset_s = np.empty((50, 8))
    for picture in pictures:
        onset_s[picture] = trial_numbers = np.flatnonzero(shown_pictures == picture)
        if sessions is not None:
            sessions[picture] = trial_numbers // trials_a_session
    runs = onset_s // 50 if design == "in one order" else None
    times = [np.repeat(pictures, 8)]
    for values in (sessions, runs, onset_s):
        times.append(None if values is None else values.ravel())

    if parts is None:
        with pytest.raises(BrainhiveError, match="agree by"):
            separate_repetitions(*times)
    else:
        assert (
            np.median(separate_repetitions(*times).reshape(50, 8).max(1)) == parts - 1
        )


@pytest.mark.parametrize(
    ("design", "confound"),
    [
        ("random", ""),
        ("kinds in blocks", "in blocks"),
        ("pictures in a row", "in blocks"),
        ("the same order", "in the same order in all runs"),
    ],
)
def test_orders_that_time_tells_are_named(design, confound):
    """Four kinds of nine pictures are shown in five runs."""
    random = np.random.default_rng(1)
    pictures = np.arange(36)
    kind = pictures // 9
    shared = random.permutation(pictures)
    runs = []
    for _ in range(5):
        order = random.permutation(pictures)
        if design == "kinds in blocks":
            order = order[np.argsort(random.permutation(4)[kind[order]])]
        runs.append(shared if design == "the same order" else order)
    shown_pictures = np.concatenate(runs)
    if design == "pictures in a row":
        shown_pictures = np.repeat(shared, 5)
    run_of_trial = np.repeat(np.arange(5), 36)

    order = TrialOrder.from_trials(
        shown_pictures,
        kind.astype(str).tolist(),
        None,
        run_of_trial,
        np.arange(len(shown_pictures)),
    )

    assert find_confound(order) == confound
