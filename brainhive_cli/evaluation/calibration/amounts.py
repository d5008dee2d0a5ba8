"""Amounts of recordings of a new person, from which a model learns."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from brainhive_cli.core.base import Bool, BrainhiveError, Float64, Line
from brainhive_cli.data.signals import Trials

Unit = Literal["pictures", "trials", "minutes"]
UNITS = get_args(Unit)
Order = Literal["draws", "recording"]
UNLIMITED = float("inf")
"""Amount of all recordings of a person."""
EVERYTHING = "everything"
"""Name of this amount."""


def measure_timeline(trials: Trials) -> tuple[Float64, float]:
    """Measure the minutes of recording before each trial.

    Runs are joined without the time between them, which is unknown. Breaks within a run
    count.

    Returns:
        Minutes [n] before each trial, and the minutes of the whole recording. All are
        NaN if onsets are unknown.
    """
    onset_s = trials.onset_s
    runs = trials.runs
    sessions = trials.sessions
    elapsed_s = np.full(len(trials.signal), np.nan)
    if onset_s is None:
        return elapsed_s, np.nan

    # number [n] of each run of each session, in order
    zeros = np.zeros(len(elapsed_s), np.int64)
    run_numbers = (zeros if sessions is None else sessions.astype(np.int64)) * 10**6
    run_numbers = run_numbers + (zeros if runs is None else runs)
    total_s = 0.0
    for number in np.unique(run_numbers):
        # a run ends a typical trial length after its last onset
        is_of_run = run_numbers == number
        times_s = np.sort(onset_s[is_of_run])
        elapsed_s[is_of_run] = total_s + onset_s[is_of_run] - times_s[0]
        step_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
        total_s += times_s[-1] - times_s[0] + step_s
    return elapsed_s / 60, total_s / 60


def measure_amounts(trials: Trials, is_selected: Bool) -> Float64:
    """Count the pictures, trials and minutes [3] of selected trials.

    Args:
        trials: All trials of the person.
        is_selected: True [n] for selected trials.

    Returns:
        The counts. Minutes are in proportion to the trials, or NaN if onsets are
        unknown.
    """
    n_pictures = len(np.unique(trials.picture_of_trial[is_selected]))
    n_trials = is_selected.sum()
    _, total_min = measure_timeline(trials)
    minutes = total_min * n_trials / max(1, len(is_selected))
    return np.array([n_pictures, n_trials, minutes])


def select_trials(
    trials: Trials,
    unit: Unit,
    amounts: Sequence[float],
    order: Order,
    rng: np.random.Generator,
) -> list[Bool]:
    """Select the trials of each amount. A smaller amount is part of a larger one.

    - `draws` of pictures or trials: pictures in random order, each with all its trials.
    - `draws` of minutes: the recording from a random trial on. After its end, it
      continues at the beginning.
    - `recording`: the first pictures, trials or minutes of the recording.

    Args:
        trials: Trials that may be used for training.
        unit: Unit of the amounts.
        amounts: Amounts, ascending. `UNLIMITED` selects all trials.
        order: Random or recorded order.
        rng: Generator of the random order.

    Returns:
        True [n] for selected trials, for each amount.

    Raises:
        BrainhiveError: if onsets are needed and unknown.
    """
    _require_onsets(trials, unit, order)

    # position [n] of each trial in a queue, by picture or by time
    if order == "draws" and unit != "minutes":
        # the integer part orders the pictures, the fraction their trials
        picture_positions = np.argsort(rng.permutation(len(trials.counts)))
        first_positions = np.repeat(picture_positions, trials.counts)
        queue = first_positions + trials.repetition / trials.max_repetitions
    else:
        queue, total_min = measure_timeline(trials)
        if order == "draws":
            start_min = float(rng.choice(queue))
            queue = (queue - start_min) % (total_min or 1.0)

    picture_queue = np.minimum.reduceat(queue, trials.first_trials)
    selections = []
    for amount in amounts:
        if amount == UNLIMITED:
            selections.append(np.ones(len(queue), bool))
        elif unit == "minutes":
            selections.append(queue < amount)
        elif unit == "trials":
            last_position = np.sort(queue)[: int(amount)][-1]
            selections.append(queue <= last_position)
        else:
            # all trials before the first trial of another picture
            other_positions = np.sort(picture_queue)[int(amount) :]
            end = other_positions.min(initial=np.inf)
            selections.append(queue < end)
    return selections


def _require_onsets(trials: Trials, unit: Unit, order: Order) -> None:
    """Check that onsets are known, if minutes or the recorded order need them.

    Raises:
        BrainhiveError: if they are unknown.
    """
    if trials.onset_s is None and (unit == "minutes" or order == "recording"):
        raise BrainhiveError(
            f"the onsets of the trials of subject {trials.subject} are unknown",
            f"prepare the signals again, with onsets ({Line('prepare')}), "
            "or count pictures or trials, in draws",
        )


def limit_amounts(
    people: Sequence[Trials],
    unit: Unit,
    amounts: Sequence[float],
    order: Order = "draws",
) -> dict[str, float]:
    """List the requested amounts that are less than every person's recordings.

    Args:
        people: Trials of each person.
        unit: Unit of the amounts.
        amounts: Amounts that the recipe requests.
        order: Random or recorded order.

    Returns:
        Amounts by name, such as `50 pictures`, ascending. The last is `everything`.

    Raises:
        BrainhiveError: if onsets are needed and unknown.
    """
    totals = []
    for trials in people:
        _require_onsets(trials, unit, order)
        counts = measure_amounts(trials, np.ones(len(trials.signal), bool))
        totals.append(counts[UNITS.index(unit)])
    amount_of_name = {}
    for amount in sorted(amounts):
        if amount < min(totals):
            noun = unit.removesuffix("s") if amount == 1 else unit
            amount_of_name[f"{amount:g} {noun}"] = amount
    amount_of_name[EVERYTHING] = UNLIMITED
    return amount_of_name
