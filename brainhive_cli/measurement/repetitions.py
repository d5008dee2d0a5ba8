"""Repetitions of a picture that are far apart in time."""

import numpy as np

from brainhive_cli.core.arrays import Bool, Int64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.measurement.trial_order import (
    MAX_CLUMPED_P,
    SMALLEST_P,
    Times,
    TrialOrder,
    number_blocks,
    p_of_clumping,
    p_of_shared_order,
)

CLUMPED_BLOCKS = 0.2
"""p up to which blocks of one picture count as near each other."""


def find_shared_order(order: TrialOrder) -> str:
    """Find whether items came in one order in all runs, or in all sessions.

    Returns:
        `runs` or `sessions`; empty where their order differs.
    """
    trials = order.label_each_trial()
    for groups, number in (("runs", order.run), ("sessions", order.session)):
        if p_of_shared_order(trials, number) <= SMALLEST_P:
            return groups
    return ""


def separate_repetitions(
    is_there: Bool,
    sessions: Times,
    runs: Times,
    onset_s: Times,
) -> Int64:
    """Find parts of a recording such that repetitions of a picture in different parts
    share no drift.

    These are single trials where pictures were repeated in random order; else blocks of
    successive trials of one picture, or runs, where these come in random order; else
    sessions.

    Args:
        is_there: [N, R] which repetitions of each picture there are.
        sessions: [N, R] session of each, as `runs` and `onset_s`; None if not known.
        runs: [N, R] run of each within its session.
        onset_s: [N, R] onset of each within its run.

    Returns:
        [N, R] number of the part of each repetition among those of its picture, from 0.

    Raises:
        BrainhiveError: if fewer than half of the repeated pictures have repetitions
            that are far apart, or pictures came in one order in all runs or sessions,
            whose drift may be the same.
    """
    # without any times, repetitions are numbered as they are stored
    picture = np.nonzero(is_there)[0]
    times = (sessions, runs, onset_s)
    parts = np.tile(np.arange(is_there.shape[1]), (len(is_there), 1))
    if all(known is None for known in times):
        return parts

    # trials in the order of time
    known = [values if values is None else values[is_there] for values in times]
    order = TrialOrder.from_trials(np.arange(len(picture)), picture.tolist(), *known)
    trial = order.item
    shown = picture[trial]
    if groups := find_shared_order(order._replace(item=shown)):
        raise BrainhiveError(
            f"pictures came in the same order in all {groups}, so their repetitions "
            "agree by drift that these share",
            f"show pictures in another order in each of the {groups}",
        )

    # from single trials to sessions, the finest level at which repetitions are apart
    repeated = (is_there.sum(1) > 1).sum()
    levels = [np.arange(len(trial)), number_blocks(order), order.run, order.session]
    for depth, level in enumerate(levels):
        pairs, first, pair_of_trial = np.unique(
            [shown, level], axis=1, return_index=True, return_inverse=True
        )
        # too few pictures have two parts at this level, and fewer at coarser ones
        if 2 * (np.bincount(pairs[0]) > 1).sum() < repeated:
            break
        # parts in the order of their first trials, each a trial of its picture
        line = np.argsort(first)
        block = np.zeros(len(line), np.int64)
        units = TrialOrder(np.arange(len(line)), pairs[0][line], block, block)
        level_of_p = CLUMPED_BLOCKS if depth else MAX_CLUMPED_P
        if depth == len(levels) - 1 or p_of_clumping(units, block) > level_of_p:
            # as pairs are sorted by picture
            starts = np.searchsorted(pairs[0], np.arange(len(is_there)))
            number = np.empty(len(trial), np.int64)
            number[trial] = pair_of_trial.reshape(-1) - starts[shown]
            parts[is_there] = number
            return parts
    raise BrainhiveError(
        "repetitions of a picture follow one another, so they agree by slow drift "
        "alone",
        "repeat pictures in other runs or sessions",
    )
