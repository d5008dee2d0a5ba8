"""Permutation tests of the order of trials in time.

A trial shows an item: a picture, or the trial itself if single trials are tested. Each
item has a label, such as its concept. Random orders exchange items within a stratum. An
order is clumped if trials that are near in time are alike.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Self

import numpy as np

from brainhive_cli.core.base import Array, BrainhiveError, Int64
from brainhive_cli.measurement.design import count_positions, list_parts
from brainhive_cli.measurement.units import number_names

Times = Array | None
"""Sessions, runs or onsets of trials, or None if they are unknown."""
RANDOM_ORDERS = 199
"""Number of random orders that the measured order is compared with."""
SMALLEST_P = 1 / (1 + RANDOM_ORDERS)
"""Value of p for an order that is more extreme than all random orders."""
MAX_CLUMPED_P = 0.01
"""Largest p of an order that counts as clumped. 1 % of random orders count too."""


class TrialOrder(NamedTuple):
    """Trials of a subject, sorted by time.

    Attributes:
        item: Index [n] of the item that each trial shows.
        label: Number [I] of the label of each item.
        session: Session [n] of each trial.
        run: Run [n] of each trial, numbered over all sessions.
    """

    item: Int64
    label: Int64
    session: Int64
    run: Int64

    @classmethod
    def from_trials(
        cls,
        item: Int64,
        label: Sequence[Hashable],
        session: Times,
        run: Times,
        onset_s: Times,
    ) -> Self:
        """Sort trials by session, run and onset.

        Args:
            item: Index [n] of the item that each trial shows.
            label: Label [I] of each item.
            session: Session [n] of each trial, or None for a single session.
            run: Run [n] of each trial within its session, or None for a single run.
            onset_s: Onset [n] of each trial in seconds, or None for a random order.
        """
        zeros = np.zeros(len(item), np.int64)
        session = zeros if session is None else session
        run = zeros if run is None else run
        if onset_s is None:
            onset_s = np.random.default_rng(0).permutation(len(item))
        time_order = np.lexsort((onset_s, run, session))

        # run numbers begin anew in each session
        pairs = np.stack([session, run])
        _, run_numbers = np.unique(pairs, axis=1, return_inverse=True)
        (label_numbers,) = number_names([label])
        return cls(
            item=item[time_order],
            label=label_numbers,
            session=session[time_order].astype(np.int64),
            run=run_numbers.reshape(-1)[time_order],
        )

    def label_each_trial(self) -> Self:
        """Turn each trial into an item, whose label is the item that it showed."""
        trials = np.arange(len(self.item))
        return self._replace(item=trials, label=self.item)


def number_blocks(order: TrialOrder) -> Int64:
    """Number the blocks [n] of trials, from 0.

    A block is a series of trials with equal labels within a run.
    """
    label = order.label[order.item]
    is_new_label = label[1:] != label[:-1]
    is_new_run = order.run[1:] != order.run[:-1]
    return np.concatenate([[0], (is_new_label | is_new_run).cumsum()])


def p_of_clumping(
    order: TrialOrder, parts: Int64, strata: Int64 | None = None
) -> float:
    """Test if trials that are near in time are more alike than in random orders.

    Trials of a stratum are near if they share a window of a part.

    Args:
        order: The trials, sorted by time.
        parts: Part [n] of the recording that each trial belongs to, such as its run.
        strata: Stratum [I] of each item, within which random orders exchange items. If
            None, items that were shown in the same set of parts form a stratum.

    Returns:
        The p value. It is 1 if all labels are different.
    """
    if len(np.unique(order.label)) == len(order.label):
        return 1.0
    if strata is None:
        (strata,) = number_names([list_parts(order.item, parts, 1 + order.item.max())])

    stratum = strata[order.item]  # [n]
    part = parts * (1 + strata.max(initial=0)) + stratum
    windows = _number_windows(part, count_positions(parts))

    def measure(item: Int64) -> list[float]:
        return _count_pairs(windows, order.label[item])

    return _test_order(measure, _exchange_items(order.item, strata))


def p_of_shared_order(
    order: TrialOrder, group: Int64, strata: Int64 | None = None
) -> float:
    """Test if different runs (or sessions) show similar trials at the same time.

    Two trials are similar if they have the same label.

    Args:
        order: The trials, sorted by time.
        group: Run or session [n] of each trial.
        strata: Stratum [n] of each trial, or None for a single stratum. Random orders
            exchange blocks of trials within a stratum of a group.

    Returns:
        The p value. It is 1 if there is only one group.
    """
    _, group_index = np.unique(group, return_inverse=True)
    n_groups = 1 + group_index.max(initial=0)
    if n_groups == 1:
        return 1.0

    # windows of the time since the start of a group, over all groups and within each
    stratum = group_index if strata is None else strata * n_groups + group_index
    block = number_blocks(order)
    position = count_positions(group_index)
    all_windows = _number_windows(np.zeros_like(group_index), position)
    group_windows = _number_windows(group_index, position)

    def measure(item: Int64) -> list[float]:
        # pairs from different groups are all pairs minus pairs within a group
        label = order.label[item]
        total = _count_pairs(all_windows, label)
        return np.subtract(total, _count_pairs(group_windows, label)).tolist()

    return _test_order(measure, _exchange_blocks(order.item, block, stratum))


def _exchange_items(item: Int64, strata: Int64) -> Iterator[Int64]:
    """Yield the measured order of trials, then random orders without end.

    Args:
        item: Item [n] of each trial.
        strata: Stratum [I] of each item, within which items are exchanged.
    """
    rng = np.random.default_rng(0)
    rows = np.argsort(strata, kind="stable")
    exchanged = np.arange(len(strata))
    while True:
        yield exchanged[item]
        # sort the items of each stratum by a random key
        exchanged[rows] = np.lexsort((rng.random(len(strata)), strata))


def _exchange_blocks(item: Int64, block: Int64, stratum: Int64) -> Iterator[Int64]:
    """Yield the measured order of trials, then random orders without end.

    Args:
        item: Item [n] of each trial.
        block: Block [n] of each trial, in ascending order.
        stratum: Stratum [n] of each trial, within which blocks are exchanged.
    """
    rng = np.random.default_rng(0)
    positions = np.argsort(stratum, kind="stable")
    yield item
    while True:
        # sort the blocks of each stratum by a random key
        block_keys = rng.random(block[-1] + 1)[block]
        exchanged = item.copy()
        exchanged[positions] = item[np.lexsort((block, block_keys, stratum))]
        yield exchanged


def _test_order(
    measure: Callable[[Int64], list[float]], orders: Iterator[Int64]
) -> float:
    """Compute the p value of the measured order of trials against random orders.

    After 40 orders, the test stops if p is above 0.4.

    Args:
        measure: Function that computes J statistics from the items [n] of the trials.
        orders: Items [n] of the trials, first in the measured order.
    """
    statistics: list[list[float]] = []
    for item in islice(orders, 1 + RANDOM_ORDERS):
        statistics.append(measure(item))
        # Number of orders after which a test may stop early, the
        # measured order included.
        if len(statistics) == 40:
            p = _p_of_first(statistics)
            # A test stops early if its p is larger than this limit.
            if p > 0.4:
                return p
    return _p_of_first(statistics)


def _number_windows(parts: Int64, position: Int64) -> list[Int64]:
    """Number windows of 1, 2, 4, 8, … successive trials, up to the longest part.

    Args:
        parts: Part [n] of each trial. A window lies within a part.
        position: Number [n] of earlier trials in the same part or group.

    Returns:
        Window number [n] of each trial, for each length.
    """
    n_positions = 1 + int(position.max(initial=0))
    windows = []
    length = 1
    while length <= n_positions:
        keys = parts * (1 + n_positions) + position // length
        windows.append(np.unique(keys, return_inverse=True)[1])
        length *= 2
    return windows


def _count_pairs(windows: Sequence[Int64], label: Int64) -> list[float]:
    """Count ordered pairs of trials that share a window and a label [n], by length."""
    pairs = []
    for window in windows:
        keys = window * (1 + int(label.max(initial=0))) + label
        _, counts = np.unique(keys, return_counts=True)
        pairs.append(float((counts**2).sum()))
    return pairs


def _p_of_first(statistics: Sequence[Sequence[float]]) -> float:
    """Compute the p value of the first order, which is the measured order.

    It is the share of orders whose largest standardised statistic is at least the
    largest of the first order.

    Args:
        statistics: J statistics [1 + K, J] of the measured order and K random orders.
    """
    # scores are 0 if the statistic only varies by rounding
    values = np.array(statistics, np.float64)
    spread = values.std(0)
    varies = spread > 1e-6 * np.abs(values).max(0)
    scores = np.divide(
        values - values.mean(0), spread, out=np.zeros_like(values), where=varies
    )
    largest = scores.max(1, initial=0)
    return float((largest >= largest[0] - 1e-9).mean())


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
