"""Repetitions of a picture that are far apart in time.

Slow drift of the recording makes neighbouring trials similar, whatever they show.
"""

import numpy as np

from brainhive_cli.core.base import BrainhiveError, Int64
from brainhive_cli.measurement.trial_order import (
    MAX_CLUMPED_P,
    SMALLEST_P,
    Times,
    TrialOrder,
    number_blocks,
    p_of_clumping,
    p_of_shared_order,
)


def find_shared_order(order: TrialOrder) -> str:
    """Find out if items came in the same order in all runs or in all sessions.

    Args:
        order: Trials in the order of time, with their item, run and session.

    Returns:
        `runs`, `sessions`, or an empty text if the orders differ in both.
    """
    trials = order.label_each_trial()
    for group_name, group in (("runs", order.run), ("sessions", order.session)):
        if p_of_shared_order(trials, group) <= SMALLEST_P:
            return group_name
    return ""


def find_confound(order: TrialOrder) -> str:
    """Find out how time alone reveals pictures or their concepts.

    Args:
        order: The trials. Items are pictures, and labels are their concepts.

    Returns:
        "in blocks", "in the same order in all runs" (or sessions), or "".
    """
    # concepts in blocks or repetitions of a picture together, even if all runs agree
    whole_recording = np.zeros_like(order.run)
    if (
        p_of_clumping(order, whole_recording) <= MAX_CLUMPED_P
        or p_of_clumping(order.label_each_trial(), order.run) <= SMALLEST_P
    ):
        return "in blocks"
    shared = find_shared_order(order)
    return f"in the same order in all {shared}" if shared else ""


def separate_repetitions(
    picture_of_trial: Int64,
    sessions: Times,
    runs: Times,
    onset_s: Times,
) -> Int64:
    """Divide a recording into parts whose repetitions are far apart in time.

    A part is the smallest of these units for which repetitions of a picture are spread
    over the recording as in a random order:

    - a trial
    - a block: successive trials of the same picture
    - a run
    - a session, without a test

    If no times are known, each repetition is a part.

    Args:
        picture_of_trial: Number [n] of the picture of each trial, from 0, ascending.
        sessions: Session [n] of each trial, or None if unknown.
        runs: Run [n] of each trial in its session, or None if unknown.
        onset_s: Onset [n] of each trial in its run, or None if unknown.

    Returns:
        Number [n] of the part of each trial, from 0 for each picture.

    Raises:
        BrainhiveError: if fewer than half of the repeated pictures have repetitions in
            two parts, or if pictures came in the same order in all runs
            or all sessions.
    """
    counts = np.bincount(picture_of_trial)
    if sessions is None and runs is None and onset_s is None:
        first_trials = np.cumsum(counts) - counts
        return np.arange(len(picture_of_trial)) - np.repeat(first_trials, counts)

    order = TrialOrder.from_trials(
        np.arange(len(picture_of_trial)),
        picture_of_trial.tolist(),
        sessions,
        runs,
        onset_s,
    )
    trials = order.item
    pictures = picture_of_trial[trials]
    shared = find_shared_order(order._replace(item=pictures))
    if shared:
        raise BrainhiveError(
            f"pictures came in the same order in all {shared}, so their repetitions "
            "agree by drift that these share",
            f"show pictures in another order in each of the {shared}",
        )

    # find the smallest kind of unit for which repetitions of a picture are far apart
    n_repeated = (counts > 1).sum()
    levels = (np.arange(len(trials)), number_blocks(order), order.run, order.session)
    for depth, level in enumerate(levels):
        # A unit holds the trials of a picture in a part. Units are sorted by picture.
        units, first_trials, unit_of_trial = np.unique(
            [pictures, level], axis=1, return_index=True, return_inverse=True
        )
        picture_of_unit = units[0]

        # stop if too few pictures have two units, as larger parts have even fewer
        n_separated = (np.bincount(picture_of_unit) > 1).sum()
        if 2 * n_separated < n_repeated:
            break

        # test if units of the same picture clump, that is, lie nearer than by chance
        sorted_units = np.argsort(first_trials)
        group = np.zeros(len(sorted_units), np.int64)
        unit_order = TrialOrder(
            item=np.arange(len(sorted_units)),
            label=picture_of_unit[sorted_units],
            session=group,
            run=group,
        )
        is_session = depth == len(levels) - 1
        # Largest p of the test of clumping for which blocks of the same picture count
        # as nearer than in a random order.
        max_clumped_p = MAX_CLUMPED_P if depth == 0 else 0.2
        if is_session or p_of_clumping(unit_order, group) > max_clumped_p:
            # number the units of each picture from 0
            first_units = np.searchsorted(picture_of_unit, np.arange(len(counts)))
            part_of_trial = np.empty(len(trials), np.int64)
            part_of_trial[trials] = unit_of_trial.reshape(-1) - first_units[pictures]
            return part_of_trial
    raise BrainhiveError(
        "repetitions of a picture follow one another, so they agree by slow drift "
        "alone",
        "repeat each picture in other runs or sessions",
    )
