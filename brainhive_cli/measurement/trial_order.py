"""Order of trials in time, tested against random orders."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Self

import numpy as np

from brainhive_cli.core.arrays import Array, Bool, Float32, Int64
from brainhive_cli.measurement.units import number_names

Times = Array | None
"""Sessions, runs or onsets of trials; None where they are not known."""
RANDOM_ORDERS = 199
"""Random orders that the measured order is compared with."""
FEW_DRAWS, CLEAR = 40, 0.4
"""Orders, the measured one among them, after which a test ends if its p is larger."""
SMALLEST_P = 1 / (1 + RANDOM_ORDERS)
"""p of an order that is further out than all random ones."""
MAX_CLUMPED_P = 0.01
"""p up to which trials near in time count as alike; it is so in 1 % of random
orders.
"""


class TrialOrder(NamedTuple):
    """Trials of one subject, in the order of time.

    Attributes:
        item: [n] index of the item that each trial shows; of held-out trials each is an
            item.
        label: [I] number of the label of each item.
        session: [n] session of each trial.
        run: [n] run of each trial, numbered over all sessions.
        features: [I, K] what items show, of which products are similarities; None where
            only equal labels are alike.
    """

    item: Int64
    label: Int64
    session: Int64
    run: Int64
    features: Float32 | None = None

    @classmethod
    def from_trials(
        cls,
        item: Int64,
        label: Sequence[Hashable],
        session: Times,
        run: Times,
        onset_s: Times,
        features: Float32 | None = None,
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
        sorted_session = session[line].astype(np.int64)
        return cls(item[line], labels, sorted_session, run_number[line], features)

    def label_each_item(self) -> Self:
        """Give each item a label of its own, so that items are alike by features
        alone.
        """
        return self._replace(label=np.arange(len(self.label)))

    def label_each_trial(self) -> Self:
        """Make each trial an item, whose label is the item that it showed."""
        trials = np.arange(len(self.item))
        return self._replace(item=trials, label=self.item, features=None)

    def take(self, is_taken: Bool) -> Self:
        """Take some of the trials [n]; items stay as they are."""
        return self._replace(
            item=self.item[is_taken],
            session=self.session[is_taken],
            run=self.run[is_taken],
        )


def number_blocks(order: TrialOrder) -> Int64:
    """Number the blocks of trials [n]: successive ones of one label in a run."""
    # a change of label or run begins a block
    label = order.label[order.item]
    is_first = (label[1:] != label[:-1]) | (order.run[1:] != order.run[:-1])
    return np.concatenate([[0], is_first.cumsum()])


def p_of_clumping(
    order: TrialOrder, parts: Int64, strata: Int64 | None = None
) -> float:
    """Test whether trials near in time are more alike than in random orders.

    Trials of a stratum are near where they share a window of a part of the recording,
    or a window of time of different parts, as drift may be the same in all runs.

    Args:
        order: The trials.
        parts: [n] number of the part of each trial.
        strata: [I] stratum of each item, within which random orders exchange items;
            None: the set of the parts of its trials.

    Returns:
        p.
    """
    has_labels = len(np.unique(order.label)) < len(order.label)
    if order.features is None and not has_labels:
        return 1.0
    if strata is None:
        (strata,) = number_names([list_parts(order.item, parts)])
    # only items of one stratum are exchanged, so others need not be compared
    stratum = strata[order.item]
    position = count_positions(parts)
    near = _Windows(parts * (1 + strata.max(initial=0)) + stratum, position)
    across = _Windows(stratum, position) if np.ptp(parts) else None

    def measure(shown: Int64) -> list[float]:
        likeness = near.add_features(order.features, shown)
        if across is not None:
            likeness += across.add_features(order.features, shown)
        if has_labels:
            likeness += near.count_labels(order.label[shown])
        return likeness

    return _compare(measure, _exchange_items(order.item, strata))


def p_of_shared_order(
    order: TrialOrder, group: Int64, strata: Int64 | None = None
) -> float:
    """Test whether trials at the same time of different groups are more alike than in
    random orders of whole blocks.

    Args:
        order: The trials.
        group: [n] number of the run or session of each trial.
        strata: [n] number of the stratum of each trial, within which random orders
            exchange blocks; None: its group.

    Returns:
        p.
    """
    group = np.unique(group, return_inverse=True)[1]
    if not group.max(initial=0):
        return 1.0
    key = group if strata is None else strata * (1 + group.max()) + group
    block = number_blocks(order)
    position = count_positions(group)
    across = _Windows(0 * group, position)
    inside = _Windows(group, position)

    def measure(shown: Int64) -> list[float]:
        # likeness across groups is that of all less that inside each
        total, within = (
            windows.count_labels(order.label[shown])
            + windows.add_features(order.features, shown)
            for windows in (across, inside)
        )
        return np.subtract(total, within).tolist()

    return _compare(measure, _exchange_blocks(order.item, block, key))


def p_of_transitions(order: TrialOrder) -> float:
    """Test whether labels follow each other in the same pairs, of different ones, more
    often than in random orders of the trials of each run.

    Returns:
        p.
    """
    is_next = order.run[1:] == order.run[:-1]

    def measure(shown: Int64) -> list[float]:
        label = order.label[shown]
        is_pair = is_next & (label[1:] != label[:-1])
        return [_count_pairs(label[:-1][is_pair], label[1:][is_pair])]

    trials = np.arange(len(order.item))
    return _compare(measure, _exchange_blocks(order.item, trials, order.run))


def _exchange_items(item: Int64, strata: Int64) -> Iterator[Int64]:
    """Give the items of trials [n], then in random orders of the items of a stratum."""
    random = np.random.default_rng(0)
    rows = np.argsort(strata, kind="stable")
    exchanged = np.arange(len(strata))
    while True:
        yield exchanged[item]
        exchanged[rows] = np.lexsort((random.random(len(strata)), strata))


def _exchange_blocks(item: Int64, block: Int64, key: Int64) -> Iterator[Int64]:
    """Give the items of trials [n], then in random orders of blocks of equal keys."""
    random = np.random.default_rng(0)
    places = np.argsort(key, kind="stable")
    shown = item
    while True:
        yield shown
        drawn = random.random(block[-1] + 1)[block]
        shown = item.copy()
        shown[places] = item[np.lexsort((block, drawn, key))]


def _compare(measure: Callable[[Int64], list[float]], orders: Iterator[Int64]) -> float:
    """Compare what is measured of an order, the first, with that of random ones.

    Returns:
        p of the largest standard score; by fewer random orders if it is far from all
        levels.
    """
    rows = []
    for shown in islice(orders, 1 + RANDOM_ORDERS):
        rows.append(measure(shown))
        if len(rows) == FEW_DRAWS and (p := _p_of_first(rows)) > CLEAR:
            return p
    return _p_of_first(rows)


def list_parts(item: Int64, parts: Int64) -> list[Hashable]:
    """List the parts in which each item was shown, [I]."""
    # parts of an item's trials as a set, since repetitions may be in several
    shown_in: dict[int, set[int]] = {}
    for index, part in zip(item.tolist(), parts.tolist(), strict=True):
        shown_in.setdefault(index, set()).add(part)
    return [tuple(sorted(shown_in[index])) for index in range(len(shown_in))]


def count_positions(parts: Int64) -> Int64:
    """Count the trials [n] of each part of a recording, from 0."""
    line = np.argsort(parts, kind="stable")
    sizes = np.unique(parts, return_counts=True)[1]
    position = np.empty_like(line)
    position[line] = np.arange(len(line)) - np.repeat(sizes.cumsum() - sizes, sizes)
    return position


class _Windows:
    """Windows of 1, 2, 4, 8, … trials up to the longest part, and the same shifted by
    half of their length.

    Attributes:
        numbers: [n] window of each trial, for each length.
        sums: For each length, sums of the rows of windows of half the length, which
            are those of the windows, [W, V]; the first are of trials. The second of two
            is of shifted windows.
    """

    def __init__(self, parts: Int64, position: Int64) -> None:
        """Number the windows.

        Args:
            parts: [n] number of the part of each trial; windows lie in one part.
            position: [n] of each trial in time, from 0.
        """
        from scipy.sparse import csr_array

        longest = 1 + int(position.max(initial=0))
        self.numbers: list[Int64] = []
        self.sums: list[tuple[csr_array, csr_array]] = []
        before = np.arange(len(parts))
        length = 1
        while length <= longest:
            _, first = np.unique(before, return_index=True)
            sums = []
            for shift in (0, length // 2):
                window = (position + shift) // length
                number = np.unique(parts * (1 + longest) + window, return_inverse=True)[
                    1
                ]
                ones = np.ones(len(first), np.float32)
                sums.append(csr_array((ones, (number[first], np.arange(len(first))))))
                if not shift:
                    self.numbers.append(number)
            before = self.numbers[-1]
            self.sums.append((sums[0], sums[1]))
            length *= 2

    def count_labels(self, label: Int64) -> list[float]:
        """Count the pairs of trials [n] of one label in a window, by its length."""
        return [_count_pairs(number, label) for number in self.numbers]

    def add_features(self, features: Float32 | None, shown: Int64) -> list[float]:
        """Add the similarities of all pairs of trials in a window, by its length and
        shift.

        Args:
            features: [I, K] of items; None adds nothing.
            shown: [n] item of each trial.
        """
        added = list[float]()
        if features is None:
            return added
        # the squared length of the sum of all features is the sum over all pairs
        values = features[shown]
        for sums, shifted in self.sums:
            added.append(float(np.square(shifted @ values, dtype=np.float64).sum()))
            values = sums @ values
            added.append(float(np.square(values, dtype=np.float64).sum()))
        return added


def _count_pairs(window: Int64, label: Int64) -> float:
    """Count ordered pairs of trials [n] that share window and label."""
    # equal keys are neighbours after sorting, and run lengths are the counts
    pairs = np.sort(window * (int(label.max(initial=0)) + 1) + label)
    counts = np.diff(
        np.flatnonzero(np.concatenate([[True], pairs[1:] != pairs[:-1], [True]]))
    )
    return float((counts**2).sum())


def _p_of_first(likeness: Sequence[Sequence[float]]) -> float:
    """Compare the first row of values [1 + K, J] with all by the largest standard score
    of the J.
    """
    # standard scores make windows of different lengths comparable; rounding is no
    # spread
    values = np.array(likeness, np.float64)
    spread = values.std(0)
    varies = spread > 1e-6 * np.abs(values).max(0)
    scores = np.divide(
        values - values.mean(0), spread, out=np.zeros_like(values), where=varies
    )
    largest = scores.max(1, initial=0)
    return float((largest >= largest[0] - 1e-9).mean())
