"""Exchangeability of the labels of trials or pictures, judged by their order in time.

Signals drift, so trials that are near in time are alike. If similar pictures were shown
together, time reveals their labels, which are then not exchangeable.

- Item: a tested picture or trial.
- Label: picture or concept that a trial shows.
- Part: stretch of the recording in which labels were interleaved.
- Block: a series of items with the same label.
- Stratum: items within which labels are exchanged.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
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

MIN_INTERLEAVED_P = 0.2
"""Labels are exchanged freely if the p of clumping (near trials are alike) is larger.
Exchanges within stretches of time cost little power, so weak evidence is enough.
"""
MAX_SHARED_ORDER_P = 0.05
"""Largest p for which blocks count as shown in the same order in all runs. By chance,
two runs of four blocks have the same order in 1 of 24 cases.
"""
TRIALS_PER_STRETCH = 8
"""Number of successive trials among which labels are exchanged if all runs have the
same order.
"""
MIN_ITEMS_PER_STRETCH = 4
"""Smallest number of items in a stretch of time in which labels are exchanged."""
CONFOUNDED_WITH_TIME = (
    "{} were shown {}, so a model can tell them by slow changes of the signal over time"
)
"""Reason why labels cannot be tested. The gaps are the kind of labels and their order.
"""


@dataclass(frozen=True)
class Interleaving:
    """Exchangeability of the labels of I items.

    Attributes:
        parts: Part [I] of the recording, within which labels are exchanged.
        blocks: Block [I] of each item. The labels of a block are exchanged together.
        concept_parts: Part [I] within which concepts are exchanged, or None.
        problem: Reason why labels cannot be distinguished from time, or "".
        concept_problem: Reason why concepts cannot be distinguished from time, or "".
        follows_time: True if time alone reveals something about the labels.
        is_known: True if the order of trials within runs is known.
        repeats: True if a label predicts the next label.
        has_series: True if all items of a concept in a part are exchanged together,
            because they followed one another.
    """

    parts: list[Hashable]
    blocks: Sequence[Hashable]
    concept_parts: list[Hashable] | None = None
    problem: str = ""
    concept_problem: str = ""
    follows_time: bool = False
    is_known: bool = True
    repeats: bool = False
    has_series: bool = False

    def take(self, rows: Int64) -> Self:
        """Select items by their row numbers."""
        indices = rows.tolist()
        concept_parts = self.concept_parts
        if concept_parts:
            concept_parts = [concept_parts[index] for index in indices]
        return replace(
            self,
            parts=[self.parts[index] for index in indices],
            blocks=[self.blocks[index] for index in indices],
            concept_parts=concept_parts,
        )

    @classmethod
    def join(cls, folds: Sequence[Self]) -> Self:
        """Concatenate the items of a subject's folds. Other fields are the first's."""
        parts: list[Hashable] = []
        blocks: list[Hashable] = []
        concept_parts: list[Hashable] = []
        for fold in folds:
            parts += fold.parts
            blocks += fold.blocks
            concept_parts += fold.concept_parts or []
        return replace(
            folds[0], parts=parts, blocks=blocks, concept_parts=concept_parts or None
        )

    @classmethod
    def from_trials(cls, order: TrialOrder, group: Int64, group_kind: str) -> Self:
        """Find which labels of held-out trials may be exchanged.

        Args:
            order: The trials. Each trial is an item.
            group: Fold, run or session [I] in which each item is tested.
            group_kind: Kind of the groups: "runs", "sessions", or "trials" if models
                are trained on other trials of the same run.
        """
        if group_kind == "trials":
            return cls._from_single_trials(order, group)
        return cls._from_groups(order, group, group_kind)

    @classmethod
    def _from_single_trials(cls, order: TrialOrder, fold: Int64) -> Self:
        """Find which labels may be exchanged if single trials are held out.

        Time reveals labels if they were shown in blocks, or in the same order in all
        runs. Labels are exchanged within parts in which they were interleaved, or there
        is a `problem`.

        Args:
            order: The trials. Each trial is an item.
            fold: Cross-validation fold [I] of each item.
        """
        by_label = order._replace(features=None)
        whole_recording = np.zeros_like(order.run)
        is_blocked = p_of_clumping(by_label, whole_recording) <= MAX_CLUMPED_P
        has_shared_order = p_of_shared_order(order, order.run) <= SMALLEST_P

        parts = find_interleaved(order, fold, order.run)
        problem = ""
        if parts is None:
            problem = _describe_problem(is_blocked, has_shared_order, "runs")
        return cls(
            parts=parts or fold.tolist(),
            blocks=list(range(len(order.label))),
            problem=problem,
            follows_time=is_blocked or has_shared_order,
        )

    @classmethod
    def _from_groups(cls, order: TrialOrder, group: Int64, group_kind: str) -> Self:
        """Find which labels may be exchanged if whole runs or sessions are held out.

        - Groups differ in their order, and near blocks are not alike: the labels of
          blocks are exchanged within their group.
        - All groups have the same labels at the same positions, and near trials are
          not alike: labels are exchanged within short stretches of time, in all
          groups at once.
        - Otherwise: labels are exchanged within parts in which they are interleaved, or
          there is a `problem`.

        Args:
            order: The trials. Each trial is an item.
            group: Run or session [I] of each item.
            group_kind: Kind of the groups, "runs" or "sessions".
        """
        # if all groups have the same labels at the same positions, test only the first
        trial_group = group[order.item]  # [n]
        slots = _number_slots(order, trial_group)
        tested_order = order
        if slots is not None:
            tested_order = order.take(trial_group == trial_group[0])

        by_label = tested_order._replace(features=None)
        p_by_label = p_of_clumping(by_label, group[tested_order.item], group)
        is_blocked = p_by_label <= MAX_CLUMPED_P

        # likeness of near blocks, and of the order of groups
        is_block_start = np.diff(number_blocks(tested_order), prepend=-1) > 0
        block_starts = tested_order.take(is_block_start).label_each_item()
        p_by_features = p_of_clumping(block_starts, group[block_starts.item], group)
        max_p = MAX_SHARED_ORDER_P if is_blocked else SMALLEST_P
        has_shared_order = p_of_shared_order(order, trial_group) <= max_p
        follows_time = p_by_features <= MAX_CLUMPED_P or has_shared_order

        # exchange blocks within their group
        items = np.arange(len(order.label))
        if not follows_time:
            blocks = items.copy()
            if is_blocked:
                blocks[order.item] = number_blocks(order)
            return cls(parts=group.tolist(), blocks=blocks.tolist())

        # exchange labels within short stretches, in all groups at once
        if slots is not None and not is_blocked and p_by_features > MAX_CLUMPED_P:
            stretches: list[Hashable] = (slots // TRIALS_PER_STRETCH).tolist()
            return cls(parts=stretches, blocks=slots.tolist(), follows_time=True)

        parts = find_interleaved(order, group, trial_group)
        problem = ""
        if parts is None:
            problem = _describe_problem(is_blocked, has_shared_order, group_kind)
        return cls(
            parts=parts or group.tolist(),
            blocks=items.tolist(),
            problem=problem,
            follows_time=True,
        )

    @classmethod
    def from_pictures(cls, order: TrialOrder, fold: Int64) -> Self:
        """Find which pictures may exchange their labels in a permutation test.

        Args:
            order: The trials. Items are pictures, and labels are their concepts.
            fold: Cross-validation fold [I] of each picture, within which
                labels are exchanged.

        Returns:
            The `parts` for exchanges of pictures within their concept,
            and `concept_parts` for exchanges of concepts, or else a
            `problem` or `concept_problem`.
        """
        # if a concept has several pictures, exchange pictures within it, and concepts
        n_pictures = len(order.label)
        has_several = len(np.unique(order.label)) < n_pictures
        pictures = order.label_each_item()
        classes = fold * n_pictures
        concept_parts = None
        concept_problem = ""
        has_series = False
        if has_several:
            classes = classes + order.label
            concept_problem = CONFOUNDED_WITH_TIME.format("concepts", "in blocks")
            run = _find_held_out_runs(order, fold)
            if run is None:
                # concepts in blocks have no parts, whatever their features
                by_label = order._replace(features=None)
                if find_interleaved(by_label, fold) is not None:
                    concept_parts = find_interleaved(order, fold)
            else:
                # concepts may be exchanged in series, such as five pictures in a row
                by_run = cls._from_groups(order, run, "runs")
                is_single = len(set(by_run.blocks)) == n_pictures
                has_series = not is_single and not by_run.follows_time
                if by_run.problem:
                    concept_problem = by_run.problem.replace("labels", "concepts")
                elif is_single or has_series:
                    concept_parts = by_run.parts
        parts = find_interleaved(pictures, classes)

        # report a problem only if time is the only obstacle to exchanging labels
        whole_recording = np.zeros_like(order.run)
        stratum = _stratify(pictures.item, whole_recording, classes)
        problem = ""
        if parts is None and _can_exchange(pictures, stratum):
            problem = CONFOUNDED_WITH_TIME.format("similar pictures", "in blocks")
        return cls(
            parts=parts or fold.tolist(),
            blocks=list(range(n_pictures)),
            concept_parts=concept_parts,
            problem=problem,
            concept_problem="" if concept_parts else concept_problem,
            follows_time=not has_series and bool(find_confound(order)),
            has_series=has_series,
        )


def _find_held_out_runs(order: TrialOrder, fold: Int64) -> Int64 | None:
    """Return the run [I] of each item, if folds hold out whole runs, else None.

    Args:
        order: The trials. Items that were shown several times have no single run.
        fold: Cross-validation fold [I] of each item.
    """
    n_pairs = np.unique(np.stack([order.run, fold[order.item]]), axis=1).shape[1]
    n_runs = len(np.unique(order.run))
    is_shown_once = len(order.item) == len(order.label)
    if not is_shown_once or n_pairs != n_runs or not np.ptp(fold):
        return None
    run = np.empty(len(order.label), np.int64)
    run[order.item] = order.run
    return run


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


def _describe_problem(is_blocked: bool, has_shared_order: bool, groups: str) -> str:
    """Describe why labels cannot be distinguished from time."""
    kind = "labels" if has_shared_order or is_blocked else "similar labels"
    order = f"in the same order in all {groups}" if has_shared_order else "in blocks"
    return CONFOUNDED_WITH_TIME.format(kind, order)


def list_caveats(orders: Iterable[Interleaving], has_seen: bool) -> list[str]:
    """List the caveats (warnings for readers of results) about the order of trials.

    Args:
        orders: Interleaving of the labels, for each subject and model.
        has_seen: True if models were trained on other trials of the test pictures, so
            that an unknown order is a caveat.
    """
    caveats = set()
    for order in orders:
        if order.follows_time:
            caveats.add(NOT_INTERLEAVED)
        if has_seen and not order.is_known:
            caveats.add(ORDER_UNKNOWN)
    return merge_caveats(caveats)


def _number_slots(order: TrialOrder, group: Int64) -> Int64 | None:
    """Return the position [I] of each item in its group, from 0.

    It is None if the labels at a position differ between groups.

    Args:
        order: The trials. Each trial is an item.
        group: Run or session [n] of each trial.
    """
    slots = np.empty(len(order.label), np.int64)
    slots[order.item] = count_positions(group)
    pairs = np.unique(np.stack([slots, order.label]), axis=1)
    has_equal_groups = pairs.shape[1] == 1 + slots.max()
    return slots if has_equal_groups else None


def find_interleaved(
    order: TrialOrder, classes: Int64, groups: Int64 | None = None
) -> list[Hashable] | None:
    """Find parts of a recording in which labels were interleaved.

    The parts are runs, sessions or the whole recording: the finest in which half of the
    items share their part with another label. They are divided by time into 2, 4, 8, …
    stretches while near trials are alike, or while all groups have the same order.

    Args:
        order: The trials, sorted by time.
        classes: Class [I] of each item, such as its fold, within which
            labels are exchanged.
        groups: Run or session [n] of each trial, whose order of labels must differ, or
            None if models are trained on other pictures.

    Returns:
        Part [I] of each item, as its class and the number of its stretch, or None if
        there are no such parts.
    """
    # finest parts in which labels can be exchanged
    for parts in (order.run, order.session, np.zeros_like(order.run)):
        stratum = _stratify(order.item, parts, classes)
        if _can_exchange(order, stratum):
            break
    else:
        return None

    # mean time of the trials of each item, as a share of their part
    time = count_positions(parts) / np.bincount(parts)[parts]
    mean_time = np.bincount(order.item, time) / np.bincount(order.item)

    # test whole strata, then divide them into ever more stretches of time
    stretch = stratum
    n_stretches = 1
    is_clumped = False
    while _can_exchange(order, stretch):
        p = p_of_clumping(order, parts, stretch)
        if n_stretches == 1:
            is_clumped = p <= MAX_CLUMPED_P
        has_shared_order = False
        if groups is not None:
            p_shared = p_of_shared_order(order, groups, stretch[order.item])
            has_shared_order = p_shared <= SMALLEST_P
        interleaved_parts: list[Hashable] = list(
            zip(classes.tolist(), stretch.tolist(), strict=True)
        )
        if p > MIN_INTERLEAVED_P and not has_shared_order:
            return interleaved_parts

        n_stretches *= 2
        if n_stretches * MIN_ITEMS_PER_STRETCH > np.bincount(stratum).max():
            break
        stretch = _divide(order, stratum, mean_time, n_stretches)

    # the last stretches are fine if clumping was weak from the start
    return None if is_clumped or has_shared_order else interleaved_parts


def _divide(
    order: TrialOrder, stratum: Int64, mean_time: Float64, max_stretches: int
) -> Int64:
    """Divide the items of each stratum into stretches of time.

    A regression tree over time places the borders between stretches where the features
    of items change most, or without features their labels.

    Args:
        order: The trials.
        stratum: Number [I] of the stratum of each item.
        mean_time: Mean time [I] of the trials of each item, as a share of the part.
        max_stretches: Largest number of stretches in a stratum.

    Returns:
        Number [I] of the stretch of each item, unique over all strata.
    """
    from sklearn.tree import DecisionTreeRegressor

    # each leaf of a tree is a stretch
    tree = DecisionTreeRegressor(
        max_leaf_nodes=max_stretches,
        min_samples_leaf=MIN_ITEMS_PER_STRETCH,
        random_state=0,
    )
    leaf = np.zeros_like(stratum)
    for number in np.unique(stratum):
        rows = np.flatnonzero(stratum == number)
        if len(rows) < 2 * MIN_ITEMS_PER_STRETCH:
            continue
        values: Array
        if order.features is None:
            labels = order.label[rows]
            values = labels[:, None] == np.unique(labels)
        else:
            values = order.features[rows]
        times = mean_time[rows, None]
        leaf[rows] = tree.fit(times, values).apply(times)
    return _number_pairs(stratum, leaf.tolist())


def _stratify(item: Int64, parts: Int64, classes: Int64) -> Int64:
    """Number the groups [I] of items of a class that were shown in the same parts.

    Args:
        item: Item [n] of each trial.
        parts: Part [n] of the recording of each trial.
        classes: Class [I] of each item, such as its fold.
    """
    return _number_pairs(classes, list_parts(item, parts))


def _number_pairs(numbers: Int64, names: Sequence[Hashable]) -> Int64:
    """Number the pairs [I] of a number and a name in the order of their appearance."""
    pairs = list(zip(numbers.tolist(), names, strict=True))
    return number_names([pairs])[0]


def _can_exchange(order: TrialOrder, stratum: Int64) -> bool:
    """Return True if half of the items share their stratum [I] with another label."""
    pairs = np.unique(np.stack([stratum, order.label]), axis=1)
    n_labels = np.bincount(pairs[0], minlength=1 + stratum.max(initial=0))
    has_other_label = n_labels[stratum] > 1
    return bool(2 * has_other_label.sum() >= len(stratum))
