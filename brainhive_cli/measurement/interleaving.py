"""Order of trials in time: labels that were shown in blocks, and parts within which
labels were interleaved.

Signals drift, so trials that are near in time are alike whatever was shown. Labels that
were shown in blocks can be decoded from time alone, and labels of trials that are far
apart in time are not exchangeable.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple, Self

import numpy as np

from brainhive_cli.core.arrays import Array, Bool, Int64
from brainhive_cli.measurement.units import number_names

Times = Array | None
"""Sessions, runs or onsets of trials; None where they are not known."""
DRAWS = 199
"""Random orders that the order of labels is compared with; the smallest p is 1 /
200.
"""
CLUMPED, CLUMPED_IN_PARTS, SAME_ORDER = 0.01, 0.2, 0.05
"""p up to which labels count as shown in blocks within natural parts (1 % of random
orders do) and in smaller ones, which are looked at only where labels came in blocks;
and up to which blocks count as shown in one order in all runs (of two runs of four
blocks only equal orders do, 1 in 24).
"""
FEWEST_TRIALS = 4
"""Trials of the shortest part of a run within which labels are compared."""
BLOCKED = "labels were shown in blocks, so signal and time cannot be distinguished"
SAME_BLOCKS = (
    "blocks came in the same order in all {}, so signal and time cannot be "
    "distinguished"
)


class TrialOrder(NamedTuple):
    """Trials of one subject, in the order of time.

    Attributes:
        item: [n] index of the item that each trial shows; of held-out trials each is an
            item.
        label: [I] number of the label of each item.
        session: [n] session of each trial.
        run: [n] run of each trial, numbered over all sessions.
    """

    item: Int64
    label: Int64
    session: Int64
    run: Int64

    @classmethod
    def of(
        cls,
        item: Int64,
        label: Sequence[Hashable],
        session: Times,
        run: Times,
        onset_s: Times,
    ) -> Self:
        """Sort trials [n] by session, run and onset; the order of what is not known is
        drawn.
        """
        # unknown sessions and runs are one; unknown onsets are in random order
        zeros = np.zeros(len(item), np.int64)
        drawn = np.random.default_rng(0).permutation(len(item))
        session, run = (zeros if known is None else known for known in (session, run))
        line = np.lexsort((drawn if onset_s is None else onset_s, run, session))
        # runs are numbered over sessions, in each of which they begin anew
        run_number = np.unique(np.stack([session, run]), axis=1, return_inverse=True)[
            1
        ].reshape(-1)
        (labels,) = number_names([label])
        return cls(item[line], labels, session[line].astype(np.int64), run_number[line])


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
        problem: Why labels, or concepts of several items, cannot be distinguished from
            time, if they cannot.
        follows_time: Whether time alone says something of labels: they differ between
            parts.
    """

    parts: list[Hashable]
    blocks: Sequence[Hashable]
    concept_parts: list[Hashable] | None = None
    problem: str = ""
    follows_time: bool = False

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
        return cls(
            parts,
            blocks,
            concept_parts or None,
            folds[0].problem,
            folds[0].follows_time,
        )


def of_trials(order: TrialOrder, group: Int64, by: str) -> Interleaving:
    """Find which labels of held-out trials may be exchanged.

    Args:
        order: The trials, each an item.
        group: [I] fold, run or session that each item is tested with.
        by: What is held out: `trials`, of whose run and session models have learned;
            `runs` or `sessions`.
    """
    # trials: models learned of the same run, so labels must be interleaved in time
    items: list[Hashable] = [*range(len(order.label))]
    if by == "trials":
        parts = find_interleaved(order, group)
        follows_time = are_clumped(order, 0 * order.run, CLUMPED)
        return Interleaving(
            parts or group.tolist(), items, None, "" if parts else BLOCKED, follows_time
        )

    # blocks are decoded from the time within a group where they have the same order in
    # all groups
    within = group[order.item]
    if not are_clumped(order, within, CLUMPED):
        return Interleaving(group.tolist(), items)
    if have_same_order(order, within):
        parts = find_interleaved(order, group)
        problem = "" if parts else SAME_BLOCKS.format(by)
        return Interleaving(parts or group.tolist(), items, None, problem, True)
    # blocks of equal labels move as one
    blocks = np.empty(len(items), np.int64)
    blocks[order.item] = number_blocks(order)
    return Interleaving(group.tolist(), blocks.tolist())


def of_pictures(order: TrialOrder, fold: Int64) -> Interleaving:
    """Find which pictures (of one concept) may be exchanged, and which concepts, within
    folds [I].
    """
    # pictures within a fold and concept; concepts only where they have several pictures
    several = len({*order.label.tolist()}) < len(order.label)
    each_trial = order._replace(label=np.arange(len(order.label)))
    concept = order.label if several else 0
    parts = (
        find_interleaved(each_trial, fold * len(order.label) + concept) or fold.tolist()
    )
    concept_parts = find_interleaved(order, fold) if several else None
    problem = (
        BLOCKED.replace("labels", "concepts")
        if several and concept_parts is None
        else ""
    )
    follows_time = several and are_clumped(order, 0 * order.run, CLUMPED)
    return Interleaving(
        parts, [*range(len(order.label))], concept_parts, problem, follows_time
    )


def find_interleaved(order: TrialOrder, within: Int64) -> list[Hashable] | None:
    """Find parts of a recording within which labels were interleaved.

    These are runs, else sessions, else all: the first in which half of the items could
    have another label. Where labels come in blocks there, they are the longest of
    halves, quarters, … of runs where they do not.

    Args:
        order: The trials.
        within: [I] number of the class of each item (as its fold), within which labels
            are exchanged.

    Returns:
        [I] class and part (the set of the parts of its trials) of each item; None where
        labels came in blocks.
    """
    # runs, sessions, all; and ever smaller parts of runs
    sizes = np.bincount(order.run)
    position = np.arange(len(order.run)) - (sizes.cumsum() - sizes)[order.run]
    natural = [order.run, order.session, np.zeros_like(order.run)]
    depths = range(1, int(np.log2(max(1, sizes.max() / FEWEST_TRIALS))) + 1)
    finer = [
        order.run * 2**depth + position * 2**depth // sizes[order.run]
        for depth in depths
    ]

    # from the finest natural ones that allow an exchange, to smaller ones
    first = next(
        (
            row
            for row, parts in enumerate(natural)
            if _can_exchange(order, parts, within)
        ),
        2,
    )
    levels = [CLUMPED] * (first + 1) + [CLUMPED_IN_PARTS] * len(finer)
    for parts, level in zip([*natural[first::-1], *finer], levels, strict=True):
        if _can_exchange(order, parts, within) and not are_clumped(order, parts, level):
            return [*zip(within.tolist(), _list_parts(order.item, parts), strict=True)]
    return None


def are_clumped(order: TrialOrder, parts: Int64, level: float) -> bool:
    """Whether trials near in time have one label more often than in random orders
    within parts [n].
    """
    if len({*order.label.tolist()}) == len(order.label):
        return False

    # windows of 2, 4, 8, … trials of a part
    line = np.argsort(parts, kind="stable")
    part = np.unique(parts[line], return_inverse=True)[1]
    sizes = np.bincount(part)
    position = np.arange(len(part)) - (sizes.cumsum() - sizes)[part]
    lengths = [2**power for power in range(1, int(np.log2(sizes.max())) + 1)]
    # windows [n] of each length, numbered apart by part
    item = order.item[line]
    windows = [part * len(part) + position // length for length in lengths]

    # pairs of one label in a window; a random order exchanges labels of items of the
    # same parts
    (stratum,) = number_names([_list_parts(order.item, parts)])
    random = np.random.default_rng(0)
    sorted_rows = np.argsort(stratum, kind="stable")
    counts = []
    for draw in range(1 + DRAWS):
        # the first row is as measured, further ones are random orders
        label = order.label.copy()
        if draw:
            label[sorted_rows] = order.label[
                np.lexsort((random.random(len(stratum)), stratum))
            ]
        counts.append([_count_pairs(window, label[item]) for window in windows])
    return _p_of_first(counts) <= level


def separate_repetitions(
    is_there: Bool,
    sessions: Times,
    runs: Times,
    onset_s: Times,
) -> Int64 | None:
    """Find parts of a recording such that repetitions of a picture in different parts
    are far apart in time.

    These are single trials where pictures were repeated in random order; else blocks of
    successive trials of one picture, or runs, where these come in random order; else
    sessions.

    Args:
        is_there: [N, R] which repetitions of each picture there are.
        sessions: [N, R] session of each, as `runs` and `onset_s`; None if not known.
        runs: [N, R] run of each within its session.
        onset_s: [N, R] onset of each within its run.

    Returns:
        [N, R] number of the part of each repetition among those of its picture, from 0;
        None where fewer than half of the repeated pictures have repetitions that are
        far apart.
    """
    picture = np.nonzero(is_there)[0]
    times = (sessions, runs, onset_s)
    repeated = (is_there.sum(1) > 1).sum()
    # without any times, repetitions are numbered as they are stored
    parts = np.tile(np.arange(is_there.shape[1]), (len(is_there), 1))
    if all(known is None for known in times):
        return parts

    # parts of each trial in time, whose order is that of their first trials
    known = [values if values is None else values[is_there] for values in times]
    order = TrialOrder.of(np.arange(len(picture)), picture.tolist(), *known)
    trial = order.item
    shown = picture[order.item]
    levels = [np.arange(len(trial)), number_blocks(order), order.run, order.session]
    # from single trials to sessions, the finest level at which repetitions are apart
    for depth, level in enumerate(levels):
        pairs, first, pair_of_trial = np.unique(
            [shown, level], axis=1, return_index=True, return_inverse=True
        )
        # too few pictures have two parts at this level, and fewer at coarser ones
        if 2 * (np.bincount(pairs[0]) > 1).sum() < repeated:
            return None
        # parts in the order of their first trials, each a trial of its picture
        line = np.argsort(first)
        block = np.zeros(len(line), np.int64)
        units = TrialOrder(np.arange(len(line)), pairs[0][line], block, block)
        p = CLUMPED if depth == 0 else CLUMPED_IN_PARTS
        if depth == len(levels) - 1 or not are_clumped(units, block, p):
            # as pairs are sorted by picture
            starts = np.searchsorted(pairs[0], np.arange(len(is_there)))
            number = np.empty(len(trial), np.int64)
            number[trial] = pair_of_trial.reshape(-1) - starts[shown]
            parts[is_there] = number
            return parts
    return None


def number_blocks(order: TrialOrder) -> Int64:
    """Number the blocks of trials [n]: successive ones of one label in a run."""
    # a change of label or run begins a block
    label = order.label[order.item]
    is_first = (label[1:] != label[:-1]) | (order.run[1:] != order.run[:-1])
    return np.concatenate([[0], is_first.cumsum()])


def have_same_order(order: TrialOrder, group: Int64) -> bool:
    """Whether blocks came in one order in all groups [n], more than random orders of
    whole blocks would.
    """
    label = order.label[order.item]
    block = number_blocks(order)
    random = np.random.default_rng(0)
    sizes = np.unique(group, return_counts=True)[1]
    # time within the group, from 0
    position = np.arange(len(group)) - np.repeat(sizes.cumsum() - sizes, sizes)

    # pairs of one label at the same time of different groups
    windows = [position // 2**power for power in range(int(np.log2(sizes.max())) + 1)]
    counts = []
    for draw in range(1 + DRAWS):
        drawn = (
            label[np.lexsort((block, random.random(block[-1] + 1)[block], group))]
            if draw
            else label
        )
        counts_of_all = [_count_pairs(window, drawn) for window in windows]
        # pairs within a group do not count
        counts_of_group = [
            _count_pairs(window + len(group) * (1 + group), drawn) for window in windows
        ]
        counts.append(np.subtract(counts_of_all, counts_of_group).tolist())
    return _p_of_first(counts) <= SAME_ORDER


def _list_parts(item: Int64, parts: Int64) -> list[Hashable]:
    """List the parts in which each item was shown, [I]."""
    # parts of an item's trials as a set, since repetitions may be in several
    shown_in: dict[int, set[int]] = {}
    for index, part in zip(item.tolist(), parts.tolist(), strict=True):
        shown_in.setdefault(index, set()).add(part)
    return [tuple(sorted(shown_in[index])) for index in range(len(shown_in))]


def _can_exchange(order: TrialOrder, parts: Int64, within: Int64) -> bool:
    """Whether half of the items share part and class with an item of another label."""
    # labels of each stratum; one label alone leaves nothing to exchange
    strata = [*zip(within.tolist(), _list_parts(order.item, parts), strict=True)]
    labels: dict[Hashable, set[int]] = {}
    for stratum, label in zip(strata, order.label.tolist(), strict=True):
        labels.setdefault(stratum, set()).add(label)
    return 2 * sum(len(labels[stratum]) > 1 for stratum in strata) >= len(strata)


def _count_pairs(window: Int64, label: Int64) -> int:
    """Count ordered pairs of trials [n] that share window and label."""
    # equal keys are neighbours after sorting, and run lengths are the counts
    pairs = np.sort(window * (int(label.max()) + 1) + label)
    counts = np.diff(
        np.flatnonzero(np.concatenate([[True], pairs[1:] != pairs[:-1], [True]]))
    )
    return int((counts**2).sum())


def _p_of_first(counts: Sequence[Sequence[int]]) -> float:
    """Compare the first row of counts [1 + K, J] with all by the largest standard score
    of the J.
    """
    # standard scores make windows of different lengths comparable
    values = np.array(counts, np.float64)
    spread = values.std(0)
    scores = np.divide(
        values - values.mean(0), spread, out=np.zeros_like(values), where=spread > 0
    )
    largest = scores.max(1, initial=0)
    return float((largest >= largest[0] - 1e-9).mean())
