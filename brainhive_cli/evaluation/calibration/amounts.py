"""Amounts of calibration: which trials of a new person are learned from, drawn at random or as recorded."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from brainhive_cli.core.arrays import Bool, Float64
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.lines import Line
from brainhive_cli.data.trials import Trials

Unit = Literal["pictures", "trials", "minutes"]
UNITS = get_args(Unit)
Order = Literal["draws", "recording"]
ALL = float("inf")
"""Amount of everything that a person has."""
NO_TIMES = "signals do not say when trials began"


@dataclass(frozen=True)
class Pool:
    """Trials of a new person that may be learned from.

    Attributes:
        trials: Of training pictures that are not tested.
        dropped: Pictures that were left out because they, or copies of them, are tested.
    """

    trials: Trials
    dropped: int = 0

    @cached_property
    def timeline(self) -> tuple[Float64, float] | None:
        """[N, R] minutes of recording before each trial, NaN where there is none, and minutes in all.

        Runs lie one after another. Breaks within a run are counted; time between runs is not, as nothing says
        how long it was. None where onsets are not known.
        """
        onset_s, runs, sessions = self.trials.onset_s, self.trials.runs, self.trials.sessions
        if onset_s is None:
            return None

        # one number for each run of each session, in order
        zeros = np.zeros_like(onset_s, np.int64)
        blocks = (zeros if sessions is None else sessions.astype(np.int64)) * 10**6
        blocks = blocks + (zeros if runs is None else runs)
        elapsed_s, before_s = np.full(blocks.shape, np.nan), 0.0
        for block in np.unique(blocks[self.trials.is_there]):
            # a run lasts from its first trial to its last, and as long as one trial takes
            is_of_block = self.trials.is_there & (blocks == block)
            times_s = np.sort(onset_s[is_of_block])
            elapsed_s[is_of_block] = before_s + onset_s[is_of_block] - times_s[0]
            step_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
            before_s += times_s[-1] - times_s[0] + step_s
        return elapsed_s / 60, before_s / 60

    def count(self, is_chosen: Bool) -> tuple[int, int, float]:
        """Count pictures, trials and minutes of some trials [N, R], at the pace of all with its breaks.

        Minutes are NaN where onsets are not known.
        """
        trials, total_min = int(is_chosen.sum()), self.timeline[1] if self.timeline else np.nan
        minutes = total_min * trials / max(1, int(self.trials.is_there.sum()))
        return int(is_chosen.any(1).sum()), trials, minutes

    def without(self, is_tested: Bool) -> "Pool":
        """Leave out pictures [N] that are tested."""
        return Pool(self.trials.take(~is_tested), int(is_tested.sum()))


def choose_trials(
    pool: Pool, unit: Unit, amounts: Sequence[float], order: Order, random: np.random.Generator
) -> list[Bool]:
    """Choose the trials of each amount; a smaller amount is part of a larger one.

    Drawn at random, a picture brings all its trials, and minutes are recording from a random moment on (from
    the end it goes on at the beginning). As recorded, amounts are the first ones.

    Args:
        pool: The trials.
        unit: Of the amounts.
        amounts: Ascending; `ALL` is everything.
        order: At random or as recorded.
        random: Draws the order.

    Returns:
        [N, R] which trials, for each amount.

    Raises:
        BrainhiveError: if minutes or the order of recording are asked for and onsets are not known.
    """
    is_there = pool.trials.is_there
    _require_onsets(pool, unit, order)

    # the position of each trial in a queue: by picture, or by time
    if order == "draws" and unit != "minutes":
        picture = np.argsort(random.permutation(len(is_there)))[:, None]  # [N, 1] place of each picture
        queue = np.where(is_there, picture + np.arange(is_there.shape[1]) / is_there.shape[1], np.inf)
    else:
        assert pool.timeline is not None
        elapsed, total_min = pool.timeline
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
            chosen.append(is_there & (queue < (later[0] if len(later) else np.inf)))
    return chosen


def _require_onsets(pool: Pool, unit: Unit, order: Order) -> None:
    """Refuse minutes and the order of recording of trials whose onsets are not known."""
    if pool.timeline is None and (unit == "minutes" or order == "recording"):
        raise BrainhiveError(
            f"subject {pool.trials.subject}: {NO_TIMES}",
            f"prepare the signals again, with onsets ({Line('prepare')}), "
            "or count pictures or trials, in draws",
        )


def limit_amounts(
    pools: Sequence[Pool], unit: Unit, amounts: Sequence[float], order: Order = "draws"
) -> list[float]:
    """List the amounts that every person has, in order, and everything.

    Raises:
        BrainhiveError: if minutes or the order of recording are asked for and onsets are not known.
    """
    # what each person has
    most = []
    for pool in pools:
        _require_onsets(pool, unit, order)
        totals = dict(zip(UNITS, pool.count(pool.trials.is_there), strict=True))
        most.append(totals[unit])
    return [*sorted(amount for amount in amounts if amount < min(most)), ALL]
