"""Amounts of recordings of a new person, from which a model learns."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from brainhive_cli.core.arrays import Bool, Float64
from brainhive_cli.core.errors import BrainhiveError, Line
from brainhive_cli.data.signals.trials import Trials

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
        Minutes [N, R] before each trial, NaN if it does not exist, and the minutes of
        the whole recording. All are NaN if onsets are unknown.
    """
    is_there = trials.is_there
    onset_s = trials.onset_s
    runs = trials.runs
    sessions = trials.sessions
    elapsed_s = np.full(is_there.shape, np.nan)
    if onset_s is None:
        return elapsed_s, np.nan

    # number [N, R] of each run of each session, in order
    zeros = np.zeros(is_there.shape, np.int64)
    run_numbers = (zeros if sessions is None else sessions.astype(np.int64)) * 10**6
    run_numbers = run_numbers + (zeros if runs is None else runs)
    total_s = 0.0
    for number in np.unique(run_numbers[is_there]):
        # a run ends a typical trial length after its last onset
        is_of_run = is_there & (run_numbers == number)
        times_s = np.sort(onset_s[is_of_run])
        elapsed_s[is_of_run] = total_s + onset_s[is_of_run] - times_s[0]
        step_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
        total_s += times_s[-1] - times_s[0] + step_s
    return elapsed_s / 60, total_s / 60


def measure_amounts(trials: Trials, is_selected: Bool) -> Float64:
    """Count the pictures, trials and minutes [3] of selected trials.

    Args:
        trials: All trials of the person.
        is_selected: True [N, R] for selected trials.

    Returns:
        The counts. Minutes are in proportion to the trials, or NaN if onsets are
        unknown.
    """
    n_pictures = is_selected.any(1).sum()
    n_trials = is_selected.sum()
    _, total_min = measure_timeline(trials)
    minutes = total_min * n_trials / max(1, trials.is_there.sum())
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
        True [N, R] for selected trials, for each amount.

    Raises:
        BrainhiveError: if onsets are needed and unknown.
    """
    is_there = trials.is_there
    _require_onsets(trials, unit, order)

    # position [N, R] of each trial in a queue, by picture or by time
    if order == "draws" and unit != "minutes":
        # the integer part orders the pictures, the fraction their trials
        n_repetitions = is_there.shape[1]
        picture_positions = np.argsort(rng.permutation(len(is_there)))[:, None]
        positions = picture_positions + np.arange(n_repetitions) / n_repetitions
        queue = np.where(is_there, positions, np.inf)
    else:
        elapsed_min, total_min = measure_timeline(trials)
        queue = np.where(is_there, elapsed_min, np.inf)
        if order == "draws":
            start_min = float(rng.choice(elapsed_min[is_there]))
            shifted_min = (elapsed_min - start_min) % (total_min or 1.0)
            queue = np.where(is_there, shifted_min, np.inf)

    first_positions = queue.min(1)
    selections = []
    for amount in amounts:
        if amount == UNLIMITED:
            selections.append(is_there)
        elif unit == "minutes":
            selections.append(queue < amount)
        elif unit == "trials":
            last_position = np.sort(queue, axis=None)[: int(amount)][-1]
            selections.append(is_there & (queue <= last_position))
        else:
            # all trials before the first trial of another picture
            other_positions = np.sort(first_positions)[int(amount) :]
            end = other_positions.min(initial=np.inf)
            selections.append(is_there & (queue < end))
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
        counts = measure_amounts(trials, trials.is_there)
        totals.append(counts[UNITS.index(unit)])
    amount_of_name = {}
    for amount in sorted(amounts):
        if amount < min(totals):
            noun = unit.removesuffix("s") if amount == 1 else unit
            amount_of_name[f"{amount:g} {noun}"] = amount
    amount_of_name[EVERYTHING] = UNLIMITED
    return amount_of_name
