"""Labels of trials or pictures that may be exchanged, by their order in time.

Signals drift, so trials that are near in time are alike whatever was shown. Where equal
labels, or pictures of one kind, were shown together, they can be decoded from time
alone, and labels of trials that are far apart in time are not exchangeable.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Self

import numpy as np

from brainhive_cli.core.arrays import Array, Float64, Int64
from brainhive_cli.core.measurements import (
    NOT_INTERLEAVED,
    ORDER_UNKNOWN,
    merge_caveats,
)
from brainhive_cli.measurement.repetitions import find_shared_order
from brainhive_cli.measurement.trial_order import (
    MAX_CLUMPED_P,
    SMALLEST_P,
    TrialOrder,
    count_positions,
    list_parts,
    number_blocks,
    p_of_clumping,
    p_of_shared_order,
)
from brainhive_cli.measurement.units import number_names

INTERLEAVED = 0.2
"""p above which labels are exchanged freely. Exchanging them within a few stretches of
time costs little power, so it is done at the slightest sign that they were not.
"""
SAME_ORDER = 0.05
"""p up to which blocks count as shown in one order in all runs: of two runs of four
blocks only equal orders do, 1 in 24.
"""
SLOTS_TOGETHER = 8
"""Successive trials among which labels are exchanged where they came in one order in
all runs: drift is much slower.
"""
FEWEST_ITEMS = 4
"""Items of the smallest part within which labels are compared."""
TOGETHER = "{} were shown {}, so signal and time cannot be distinguished"
"""Reason why labels cannot be tested: what was shown, and how."""


@dataclass(frozen=True)
class Interleaving:
    """Items whose labels may be exchanged, as far as the order of trials is known.

    Attributes:
        parts: [I] part of the recording in which each item was shown; labels are
            exchanged within it.
        blocks: [I] block of each item: successive items of one label, whose labels are
            exchanged together.
        concept_parts: [I] as `parts`, for labels that several items have; None where
            these came in blocks.
        problem: Why labels of items cannot be distinguished from time, if they cannot.
        concept_problem: Why concepts of several items cannot be, if they cannot.
        follows_time: Whether time alone says something of labels.
        is_known: Whether the order of trials within runs is known.
        repeats: Whether labels follow each other in the same pairs more often than in
            random orders, so that a label tells the next one.
    """

    parts: list[Hashable]
    blocks: Sequence[Hashable]
    concept_parts: list[Hashable] | None = None
    problem: str = ""
    concept_problem: str = ""
    follows_time: bool = False
    is_known: bool = True
    repeats: bool = False

    def take(self, rows: Int64) -> Self:
        """Take some of the items."""
        # a table by item, cut alike in all columns
        chosen = rows.tolist()
        parts, blocks = (
            [listed[row] for row in chosen] for listed in (self.parts, self.blocks)
        )
        concept_parts = self.concept_parts and [
            self.concept_parts[row] for row in chosen
        ]
        return replace(self, parts=parts, blocks=blocks, concept_parts=concept_parts)

    @classmethod
    def join(cls, folds: Sequence[Self]) -> Self:
        """Put the items of folds of one subject one behind the other."""
        parts, blocks, concept_parts = (
            [*chain.from_iterable(listed or () for listed in lists)]
            for lists in zip(
                *((fold.parts, fold.blocks, fold.concept_parts) for fold in folds),
                strict=True,
            )
        )
        # folds are of one recording, whose order they have in common
        return replace(
            folds[0], parts=parts, blocks=blocks, concept_parts=concept_parts or None
        )

    @classmethod
    def from_trials(cls, order: TrialOrder, group: Int64, by: str) -> Self:
        """Find which labels of held-out trials may be exchanged.

        Args:
            order: The trials, each an item.
            group: [I] fold, run or session that each item is tested with.
            by: What is held out: `trials`, of whose run and session models have
                learned; `runs` or `sessions`.
        """
        items: list[Hashable] = [*range(len(order.label))]
        if by == "trials":
            # models have learned of the same run, and of the same time of other runs
            within = order.run
            others = "runs"
            by_label = order._replace(features=None)
            is_blocked = p_of_clumping(by_label, 0 * order.run) <= MAX_CLUMPED_P
            has_one_order = p_of_shared_order(order, within) <= SMALLEST_P
            follows_time = is_blocked or has_one_order
        else:
            within = group[order.item]
            others = by
            # groups that are equal say as much as one of them
            slots = _number_slots(order, within)
            tested = order
            if slots is not None:
                tested = order.take(within == within[0])
            by_label = tested._replace(features=None)
            is_blocked = (
                p_of_clumping(by_label, group[tested.item], group) <= MAX_CLUMPED_P
            )
            # trials of one block are alike by their label
            is_first = np.diff(number_blocks(tested), prepend=-1) > 0
            blocks_alone = tested.take(is_first).label_each_item()
            p = p_of_clumping(blocks_alone, group[blocks_alone.item], group)
            level = SAME_ORDER if is_blocked else SMALLEST_P
            has_one_order = p_of_shared_order(order, within) <= level
            follows_time = p <= MAX_CLUMPED_P or has_one_order
            if not follows_time:
                # time in other groups says nothing of the order of blocks in this one
                blocks = np.arange(len(items))
                if is_blocked:
                    blocks[order.item] = number_blocks(order)
                return cls(group.tolist(), blocks.tolist())
            if slots is not None and not is_blocked and p > MAX_CLUMPED_P:
                # what comes at one time of all groups moves together, not far in time
                nearby: list[Hashable] = (slots // SLOTS_TOGETHER).tolist()
                return cls(nearby, slots.tolist(), follows_time=True)

        parts = find_interleaved(order, group, within)
        how = f"in the same order in all {others}" if has_one_order else "in blocks"
        which = "labels" if has_one_order or is_blocked else "similar labels"
        return cls(
            parts or group.tolist(),
            items,
            problem="" if parts else TOGETHER.format(which, how),
            follows_time=follows_time,
        )

    @classmethod
    def from_pictures(cls, order: TrialOrder, fold: Int64) -> Self:
        """Find which pictures (of one concept) may be exchanged, and which concepts,
        within folds [I].
        """
        # pictures within a fold and concept; concepts only where they have several
        # pictures
        total = len(order.label)
        has_several = len({*order.label.tolist()}) < total
        pictures = order.label_each_item()
        exchanged = fold * total + (order.label if has_several else 0)
        parts = find_interleaved(pictures, exchanged)
        concept_parts = find_interleaved(order, fold) if has_several else None

        # pictures that are the only ones of their concept have no part in the first
        # test
        everything = 0 * order.run
        problem = ""
        concept_problem = ""
        stratum = _stratify(pictures.item, everything, exchanged)
        if parts is None and _can_exchange(pictures, stratum):
            problem = TOGETHER.format("similar pictures", "in blocks")
        if has_several and concept_parts is None:
            concept_problem = TOGETHER.format("concepts", "in blocks")

        # drift also tells pictures apart that came in one order, or several times in a
        # row
        follows_time = (
            p_of_clumping(order, everything) <= MAX_CLUMPED_P
            or p_of_clumping(order.label_each_trial(), order.run) <= SMALLEST_P
            or bool(find_shared_order(order))
        )
        return cls(
            parts or fold.tolist(),
            [*range(total)],
            concept_parts,
            problem,
            concept_problem,
            follows_time,
        )


def list_caveats(orders: Iterable[Interleaving], has_seen: bool) -> list[str]:
    """List the caveats of numbers by the orders in time of what they are of.

    Args:
        orders: Of each subject and model.
        has_seen: Whether models have learned of other trials of what is tested, so that
            an unknown order matters.
    """
    caveats = set()
    for order in orders:
        if order.follows_time:
            caveats.add(NOT_INTERLEAVED)
        if has_seen and not order.is_known:
            caveats.add(ORDER_UNKNOWN)
    return merge_caveats(caveats)


def _number_slots(order: TrialOrder, group: Int64) -> Int64 | None:
    """Number the time of each held-out trial in its group [n], from 0, where all groups
    have the same labels at the same times: [I]; None where they have not.
    """
    slots = np.empty(len(order.label), np.int64)
    slots[order.item] = count_positions(group)
    pairs = np.unique(np.stack([slots, order.label]), axis=1)
    return slots if len(pairs[0]) == 1 + slots.max() else None


def find_interleaved(
    order: TrialOrder, within: Int64, groups: Int64 | None = None
) -> list[Hashable] | None:
    """Find parts of a recording within which labels were interleaved.

    These are runs, else sessions, else all: the first in which half of the items could
    have another label. Where trials near in time are alike there, items are divided by
    their mean time into ever more stretches, until trials within these are not.

    Args:
        order: The trials.
        within: [I] number of the class of each item (as its fold), within which labels
            are exchanged.
        groups: [n] group of each trial, where models have learned when labels come in
            other groups: within parts, their order must differ between groups. None:
            they have learned of other pictures.

    Returns:
        [I] class and part (the set of the parts of its trials) of each item; None where
        there are no such parts.
    """
    # the finest natural parts in which labels can be exchanged
    natural = [order.run, order.session, 0 * order.run]
    strata = [_stratify(order.item, parts, within) for parts in natural]
    possible = [row for row in range(3) if _can_exchange(order, strata[row])]
    if not possible:
        return None
    parts = natural[possible[0]]
    stratum = strata[possible[0]]

    # mean time of each item in the parts
    time = count_positions(parts) / np.bincount(parts)[parts]
    mean_time = np.bincount(order.item, time) / np.bincount(order.item)

    # the whole stratum, then ever more stretches of time
    smaller = stratum
    pieces = 1
    is_clumped = False
    while _can_exchange(order, smaller):
        p = p_of_clumping(order, parts, smaller)
        is_clumped |= pieces == 1 and p <= MAX_CLUMPED_P
        has_one_order = groups is not None and (
            p_of_shared_order(order, groups, smaller[order.item]) <= SMALLEST_P
        )
        found: list[Hashable] = [*zip(within.tolist(), smaller.tolist(), strict=True)]
        if p > INTERLEAVED and not has_one_order:
            return found
        pieces *= 2
        if pieces * FEWEST_ITEMS > np.bincount(stratum).max():
            break
        smaller = _divide(order, stratum, mean_time, pieces)
    return None if is_clumped or has_one_order else found


def _divide(
    order: TrialOrder, stratum: Int64, mean_time: Float64, pieces: int
) -> Int64:
    """Divide the items of each stratum into stretches of time, where what they show
    changes most.

    Args:
        order: The trials.
        stratum: [I].
        mean_time: [I] of each item.
        pieces: Stretches of a stratum at most.

    Returns:
        [I] number of the stratum and stretch of each item.
    """
    from sklearn.tree import DecisionTreeRegressor

    tree = DecisionTreeRegressor(
        max_leaf_nodes=pieces, min_samples_leaf=FEWEST_ITEMS, random_state=0
    )
    leaf = np.zeros_like(stratum)
    for number in np.unique(stratum):
        rows = np.flatnonzero(stratum == number)
        if len(rows) < 2 * FEWEST_ITEMS:
            continue
        values: Array = order.label[rows, None] == np.unique(order.label[rows])
        if order.features is not None:
            values = order.features[rows]
        times = mean_time[rows, None]
        leaf[rows] = tree.fit(times, values).apply(times)
    return number_names([[*zip(stratum.tolist(), leaf.tolist(), strict=True)]])[0]


def _stratify(item: Int64, parts: Int64, within: Int64) -> Int64:
    """Number the class and the set of parts [n] of each item, [I]."""
    strata = zip(within.tolist(), list_parts(item, parts), strict=True)
    return number_names([[*strata]])[0]


def _can_exchange(order: TrialOrder, stratum: Int64) -> bool:
    """Return True if half of the items share their stratum with an item of another
    label.
    """
    # one label alone leaves nothing to exchange
    pairs = np.unique(np.stack([stratum, order.label]), axis=1)
    labels = np.bincount(pairs[0], minlength=1 + stratum.max(initial=0))
    return bool(2 * (labels[stratum] > 1).sum() >= len(stratum))
