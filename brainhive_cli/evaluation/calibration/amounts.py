"""Amounts of calibration: which trials of a new person are learned from, drawn at
random or as recorded.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from brainhive_cli.core.arrays import Bool, Float64
from brainhive_cli.core.errors import BrainhiveError, Line
from brainhive_cli.data.signals.trials import Trials

Unit = Literal["pictures", "trials", "minutes"]
UNITS = get_args(Unit)
Order = Literal["draws", "recording"]
ALL = float("inf")
"""Amount of everything that a person has."""
EVERYTHING = "everything"
"""Its name."""


def measure_timeline(trials: Trials) -> tuple[Float64, float]:
    """Measure [N, R] minutes of recording before each trial, NaN where there is none,
    and minutes in all.

    Runs lie one after another. Breaks within a run are counted; time between runs is
    not, as nothing says how long it was. All are NaN where onsets are not known.
    """
    is_there = trials.is_there
    onset_s = trials.onset_s
    runs = trials.runs
    sessions = trials.sessions
    elapsed_s = np.full(is_there.shape, np.nan)
    before_s = 0.0
    if onset_s is None:
        return elapsed_s, np.nan

    # one number for each run of each session, in order
    zeros = np.zeros(is_there.shape, np.int64)
    blocks = (zeros if sessions is None else sessions.astype(np.int64)) * 10**6
    blocks = blocks + (zeros if runs is None else runs)
    for block in np.unique(blocks[is_there]):
        # a run lasts from its first trial to its last, and as long as one trial takes
        is_of_block = is_there & (blocks == block)
        times_s = np.sort(onset_s[is_of_block])
        elapsed_s[is_of_block] = before_s + onset_s[is_of_block] - times_s[0]
        step_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
        before_s += times_s[-1] - times_s[0] + step_s
    return elapsed_s / 60, before_s / 60


def measure_amounts(trials: Trials, is_chosen: Bool) -> Float64:
    """Count pictures, trials and minutes, [3], of chosen trials [N, R].

    Minutes are at the pace of all trials with its breaks; they are NaN where onsets are
    not known.
    """
    pictures = is_chosen.any(1).sum()
    count = is_chosen.sum()
    # minutes of a part are in proportion to its trials
    total_min = measure_timeline(trials)[1]
    return np.array(
        [pictures, count, total_min * count / max(1, trials.is_there.sum())]
    )


def choose_trials(
    trials: Trials,
    unit: Unit,
    amounts: Sequence[float],
    order: Order,
    random: np.random.Generator,
) -> list[Bool]:
    """Choose the trials of each amount; a smaller amount is part of a larger one.

    Drawn at random, a picture brings all its trials, and minutes are recording from a
    random moment on (from the end it goes on at the beginning). As recorded, amounts
    are the first ones.

    Args:
        trials: All that may be learned from.
        unit: Of the amounts.
        amounts: Ascending; `ALL` is everything.
        order: At random or as recorded.
        random: Draws the order.

    Returns:
        [N, R] which trials, for each amount.

    Raises:
        BrainhiveError: if minutes or the order of recording are asked for and onsets
            are not known.
    """
    is_there = trials.is_there
    _require_onsets(trials, unit, order)

    # the position of each trial in a queue: by picture, or by time
    if order == "draws" and unit != "minutes":
        # the integer part orders pictures, the fraction their trials
        # [N, 1] position of each picture
        picture = np.argsort(random.permutation(len(is_there)))[:, None]
        queue = np.where(
            is_there, picture + np.arange(is_there.shape[1]) / is_there.shape[1], np.inf
        )
    else:
        elapsed, total_min = measure_timeline(trials)
        queue = np.where(is_there, elapsed, np.inf)
        if order == "draws":
            start = float(random.choice(elapsed[is_there]))
            queue = np.where(is_there, (elapsed - start) % (total_min or 1.0), np.inf)

    # what comes first: minutes, trials, or trials until another picture would begin
    first_shown = queue.min(1)
    chosen = []
    for amount in amounts:
        if amount == ALL:
            chosen.append(is_there)
        elif unit == "minutes":
            chosen.append(queue < amount)
        elif unit == "trials":
            limit = np.sort(queue, axis=None)[: int(amount)][-1]
            chosen.append(is_there & (queue <= limit))
        else:
            later = np.sort(first_shown)[int(amount) :]
            chosen.append(is_there & (queue < later.min(initial=np.inf)))
    return chosen


def _require_onsets(trials: Trials, unit: Unit, order: Order) -> None:
    """Refuse minutes and the order of recording of trials whose onsets are not
    known.
    """
    # minutes and order both rest on onsets
    if trials.onset_s is None and (unit == "minutes" or order == "recording"):
        raise BrainhiveError(
            f"subject {trials.subject}: signals do not say when trials began",
            f"prepare the signals again, with onsets ({Line('prepare')}), "
            "or count pictures or trials, in draws",
        )


def limit_amounts(
    people: Sequence[Trials],
    unit: Unit,
    amounts: Sequence[float],
    order: Order = "draws",
) -> dict[str, float]:
    """List the amounts that every person has by their names, as `50 pictures`:
    ascending, then everything.

    Raises:
        BrainhiveError: if minutes or the order of recording are asked for and onsets
            are not known.
    """
    # what each person has
    most = []
    for trials in people:
        _require_onsets(trials, unit, order)
        # in the unit of the amounts
        most.append(measure_amounts(trials, trials.is_there)[UNITS.index(unit)])
    limited = sorted(amount for amount in amounts if amount < min(most))
    amount_of_name = {
        f"{amount:g} {unit.removesuffix('s') if amount == 1 else unit}": amount
        for amount in limited
    }
    return {**amount_of_name, EVERYTHING: ALL}
