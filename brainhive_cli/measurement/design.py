"""Labels that the design of a study tells, without any signals.

A *unit* is tested: a picture, a held-out trial, or a series of trials with one label.
Decoders that know only the design predict the label of each unit: from trials that are
near in time, in the same run or session, of the same person, at the same position of
other runs, and from the stimuli before and after. Together they give an order of labels
the odds

    log q(labels) = sum over units i of predictions[i] · values[labels[i]]

Orders with these odds look as designed as the true one. A permutation test with such
orders finds out if signals tell the labels beyond the design.

Source: Berrett, Wang, Barber and Samworth 2020 (conditional permutation test, pairwise
sampler); McFadden 1974 (conditional logit).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, permutations, product
from typing import NamedTuple, Self

import numpy as np

from brainhive_cli.core.base import Array, Bool, Float64, Int64

N_FOLDS = 4
"""Number of stretches of the recording whose units predict each other."""
MAX_RESPECTED_P = 0.05
"""Largest p of an order that changes the odds. Weak evidence costs little power."""
N_COMPARED_ORDERS = 60
"""Number of orders that the true order is compared with while odds are fitted."""
N_NEW_ORDERS = 199
"""Number of random orders, in which the units exchange their labels."""
ROUNDING = 1e-9
"""Largest difference between two scores that counts as rounding error."""
RUN, SESSION, PERSON = "the run", "the list of its session", "the person"
"""Descriptions of decoders that know where a label was shown."""
SHOWINGS = "the number of showings"
"""Description of a decoder that knows no order. It changes the odds, but an order that
only it tells is sound.
"""


class Timeline(NamedTuple):
    """All n trials of a study, sorted by person, session, run and time.

    Training trials are in the same line of time as tested trials.

    Attributes:
        stimulus: Number [n] of the shown stimulus, from 0.
        unit: Number [n] of the tested unit from 0, or -1 for other trials.
        person: Number [n] of the person.
        session: Number [n] of the session, over all people.
        run: Number [n] of the run, over all sessions.
        is_ordered: True if the order of the trials of a run is known.
        features: Features [S, E] of the stimuli, or None.
        concept: Number [S] of the concept of each stimulus.
    """

    stimulus: Int64
    unit: Int64
    person: Int64
    session: Int64
    run: Int64
    is_ordered: bool
    features: Array | None
    concept: Int64


@dataclass(frozen=True)
class LabelDesign:
    """Odds of labels by the design of a study.

    Attributes:
        label: Label [I] of each unit, from 0.
        stratum: Number [I] of the stratum in which each unit exchanges its label.
        predictions: Prediction [I, E] of each unit.
        values: Value [L, E] of each label.
        telling: Descriptions of what tells labels, the strongest first.
        p: p of the order of labels, against orders drawn anew.
        is_known: True if the order of the trials of a run is known.
        whole: Odds without strata, if runs, sessions or people are strata here, else
            None.
    """

    label: Int64
    stratum: Int64
    predictions: Float64
    values: Float64
    telling: tuple[str, ...] = ()
    p: float = 1.0
    is_known: bool = True
    whole: "LabelDesign | None" = None

    @classmethod
    def free(cls, label: Int64, stratum: Int64, is_known: bool = True) -> Self:
        """Create a design that tells nothing, so that all orders have equal odds.

        Args:
            label: Label [I] of each unit.
            stratum: Number [I] of the stratum in which each unit exchanges its label.
            is_known: True if the order of the trials of a run is known.
        """
        n_labels = 1 + int(label.max(initial=-1))
        return cls(
            label,
            stratum,
            predictions=np.zeros((len(label), 1)),
            values=np.zeros((n_labels, 1)),
            is_known=is_known,
        )

    @property
    def tells(self) -> bool:
        """Return True if the design tells labels better than orders drawn anew."""
        # Largest p of an order that tells labels, against orders drawn anew.
        return self.p <= 0.02

    @property
    def problem(self) -> str:
        """Reason why signals and design cannot be separated, or ""."""
        # Smallest mean number of units whose labels change in an order, for a test.
        if not self.tells or self.n_changed >= 8:
            return ""
        return (
            f"{self.telling[0]} tells the label, so signals cannot be separated from "
            "the design"
        )

    @cached_property
    def n_changed(self) -> float:
        """Mean number of units whose label changes in an order with these odds."""
        orders = self.draw_orders(N_COMPARED_ORDERS, seed=0)
        return float((self.label[orders] != self.label).sum(1).mean())

    @cached_property
    def log_odds(self) -> Float64:
        """Log odds [I, L] of labels, up to constants of units and labels."""
        return self.predictions @ self.values.T

    def release(self, scores: Array, column: Int64) -> Self:
        """Exchange labels freely if signals do not show what the design tells.

        Signals that hold a confound rank wrong labels by it, too. Only then are its
        odds needed, unless these leave few labels that can change.

        Args:
            scores: Score [I, P] of candidates by the signals of each unit.
            column: Column [I] of the label of each unit in `scores`.
        """
        free = self.free(self.label, self.stratum, self.is_known)
        has_odds = bool(self.predictions.any())
        # Smallest number of units whose labels change, as a share of free orders, for
        # which signals may be found free of the design.
        if not has_odds or self.n_changed < 0.25 * free.n_changed:
            return self
        units = np.arange(len(self.label))
        labels, first, own = np.unique(
            self.label, return_index=True, return_inverse=True
        )
        tables = []
        for table in (scores[:, column[first]], self.log_odds[:, labels]):
            centred = table - table.mean(0)
            centred -= centred.mean(1, keepdims=True)
            centred[units, own] = 0
            tables.append(centred)
        by_signals, by_design = tables
        sums = [np.vdot(by_signals, by_design)]
        for order in free.draw_orders(N_NEW_ORDERS, seed=2):
            sums.append(np.vdot(by_signals[order], by_design))
        p_of_design = float((np.array(sums) >= sums[0]).mean())
        # Largest p of signals whose wrong labels show what the design tells.
        return self if p_of_design <= 0.1 else free

    def take(self, rows: Int64) -> Self:
        """Select units by their row numbers."""
        return replace(
            self,
            label=self.label[rows],
            stratum=self.stratum[rows],
            predictions=self.predictions[rows],
        )

    def within(self, groups: Int64) -> Self:
        """Exchange labels only within groups [I] of units."""
        pairs = np.stack([self.stratum, groups])
        stratum = np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1)
        return replace(self, stratum=stratum)

    def draw_orders(self, count: int, seed: int) -> Int64:
        """Draw orders that are exchangeable with the true one.

        Returns:
            Orders [count, I]: the unit whose label each unit gets. If nothing is known
            and fewer orders exist, all of them but the true one.
        """
        rng = np.random.default_rng(seed)
        n_units = len(self.label)
        if not self.predictions.any():
            return self._permute_freely(count, rng)

        # Number of steps of the sampler. Each step pairs all units of a stratum.
        n_steps = 25
        # steps from the true order to a hub, and the same steps backwards to each draw
        steps = [_pair_units(self.stratum, rng) for _ in range(n_steps)]
        hub = self._walk(np.arange(n_units)[:, None], steps, rng)
        return self._walk(np.repeat(hub, count, 1), steps[::-1], rng).T

    def _permute_freely(self, count: int, rng: np.random.Generator) -> Int64:
        """Draw orders within strata, or list all if there are at most `count`."""
        strata = []
        for number in np.unique(self.stratum):
            strata.append(np.flatnonzero(self.stratum == number))
        n_orders = math.prod(math.factorial(len(rows)) for rows in strata)
        are_listed = n_orders - 1 <= count
        n_drawn = n_orders - 1 if are_listed else count
        units = np.arange(len(self.label))
        units = units.astype(np.min_scalar_type(len(units)))
        orders = np.tile(units, (n_drawn, 1))
        if not are_listed:
            for rows in strata:
                orders[:, rows] = rng.permuted(orders[:, rows], axis=1)
            return orders
        others = islice(product(*map(permutations, strata)), 1, None)
        for order, members in zip(orders, others, strict=True):
            for rows, permuted in zip(strata, members, strict=True):
                order[rows] = permuted
        return orders

    def _walk(
        self, orders: Int64, steps: Sequence[Int64], rng: np.random.Generator
    ) -> Int64:
        """Swap the labels of pairs of units in orders [I, B] with their odds."""
        for first, second in steps:
            first_unit, second_unit = orders[first], orders[second]
            first_label, second_label = self.label[first_unit], self.label[second_unit]
            first_odds = self.log_odds[first]
            second_odds = self.log_odds[second]
            loss = np.take_along_axis(first_odds, first_label, 1)
            loss += np.take_along_axis(second_odds, second_label, 1)
            loss -= np.take_along_axis(first_odds, second_label, 1)
            loss -= np.take_along_axis(second_odds, first_label, 1)
            is_swapped = rng.random(loss.shape) < 1 / (1 + np.exp(loss.clip(-50, 50)))
            orders[first] = np.where(is_swapped, second_unit, first_unit)
            orders[second] = np.where(is_swapped, first_unit, second_unit)
        return orders


def _pair_units(stratum: Int64, rng: np.random.Generator) -> Int64:
    """Pair the units of each stratum at random, as rows [2, pairs] of units."""
    units = np.lexsort((rng.random(len(stratum)), stratum))
    position = count_positions(stratum[units])
    is_first = np.zeros(len(units), bool)
    is_first[:-1] = (position[:-1] % 2 == 0) & (np.diff(stratum[units]) == 0)
    rows = np.flatnonzero(is_first)
    return np.stack([units[rows], units[rows + 1]])


class Exchange(NamedTuple):
    """Units whose labels are exchanged in a test.

    Attributes:
        design: Odds of the labels of the units.
        units: Unit [N] of each item, by subject.
    """

    design: LabelDesign
    units: Sequence[Int64]


def count_positions(parts: Int64) -> Int64:
    """Count the earlier trials [n] in the same part of a recording.

    Args:
        parts: Part [n] of each trial, in the order of time.
    """
    by_part = np.argsort(parts, kind="stable")
    _, sizes = np.unique(parts, return_counts=True)
    starts = sizes.cumsum() - sizes
    position = np.empty_like(by_part)
    position[by_part] = np.arange(len(by_part)) - np.repeat(starts, sizes)
    return position


def list_parts(item: Int64, parts: Int64, count: int) -> list[tuple[int, ...]]:
    """List the parts of the recording in which each item was shown.

    Args:
        item: Item [n] of each trial.
        parts: Part [n] of each trial.
        count: Number I of items.

    Returns:
        Sorted tuple [I] of the parts of each item.
    """
    parts_of = [set[int]() for _ in range(count)]
    for index, number in zip(item.tolist(), parts.tolist(), strict=True):
        parts_of[index].add(number)
    return [tuple(sorted(numbers)) for numbers in parts_of]


def describe_design(timeline: Timeline, stratum: Int64) -> LabelDesign:
    """Find the odds of labels by the design of a study.

    Decoders are joined to the odds until orders with these odds look as designed as the
    true order, by every decoder. Orders that tell nothing keep equal odds.

    Args:
        timeline: Trials of the study. All trials of a unit show the same stimulus.
        stratum: Number [I] of the stratum in which each unit exchanges its label.
    """
    is_tested = timeline.unit >= 0
    units = timeline.unit[is_tested]
    stimulus = np.zeros(len(stratum), np.int64)
    stimulus[units] = timeline.stimulus[is_tested]
    stimuli, label = np.unique(stimulus, return_inverse=True)
    free = LabelDesign.free(label, stratum, is_known=timeline.is_ordered)
    new_orders = free.draw_orders(N_NEW_ORDERS, seed=0)
    if not (label[new_orders] != label).any():
        return free

    # p of the best decoder if units exchange their labels
    if len(units) > len(stratum):
        timeline = _draw_runs(timeline)
    decoding = _DesignDecoding(timeline, stimuli, len(stratum))
    decoders = decoding.list_decoders(label)
    if not decoders:
        return free
    scores = _compare_orders(decoders, label, new_orders)
    if _p_of_best(scores) > MAX_RESPECTED_P:
        return free
    is_of_order = [decoder.name != SHOWINGS for decoder in decoders]
    p = decoding.weigh_order(_p_of_best(scores[is_of_order]), label, new_orders)
    if p > MAX_RESPECTED_P:
        decoders = [decoder for decoder in decoders if decoder.name == SHOWINGS]

    # join decoders, the one that differs most first
    rng = np.random.default_rng(0)
    # Number of pairs of units by which the weights are fitted.
    max_pairs = 6_000
    n_pairings = 1 + 2 * max_pairs // len(label)
    pairings = [_pair_units(stratum, rng) for _ in range(n_pairings)]
    first, second = np.concatenate(pairings, 1)
    is_pair = label[first] != label[second]
    pairs = first[is_pair][:max_pairs], second[is_pair][:max_pairs]
    design = free
    chosen: list[_Decoder] = []
    orders = new_orders[:N_COMPARED_ORDERS]
    # Largest number of steps by which the odds grow.
    max_growths = 12
    # Largest number of decoders that change the odds.
    while decoders and len(chosen) < 8:
        deviation = _compare_orders(decoders, label, orders)[:, 0].round(1)
        best_index = int(deviation.argmax())
        # Smallest score of a decoder that changes the odds, in standard deviations.
        if deviation[best_index] < 1.64:
            break
        decoder = decoders.pop(best_index)
        if decoder.table is not None:
            # counts of which label follows which replace its decoders
            decoders = [other for other in decoders if other.name != decoder.name]
        chosen.append(decoder)
        predictions, values = _fit_odds(chosen, label, pairs)
        names = tuple(dict.fromkeys(member.name for member in chosen))
        design = replace(
            free, predictions=predictions, values=values, telling=names, p=p
        )

        # odds grow until the truth does not look more designed than orders with them
        for _ in range(max_growths):
            orders = design.draw_orders(N_COMPARED_ORDERS, seed=1)
            joint = _Decoder("", design.predictions, design.values)
            # Largest score of the true order by its odds, among orders with these odds.
            if _compare_orders([joint], label, orders)[0, 0] < 0.1:
                break
            # Factor by which the odds grow until orders are as designed as
            # the true one.
            design = replace(design, predictions=1.4 * design.predictions)
    return design


def describe_trials(
    timeline: Timeline,
    fold: Int64,
    *,
    is_free: bool = False,
    has_common_candidates: bool = False,
) -> tuple[LabelDesign, Int64]:
    """Find the odds of the labels of single trials, or of series of trials.

    A series of trials that follow one another with one label is a unit, if more series
    than trials can exchange their labels.

    Args:
        timeline: Trials of the study. Each tested trial is a unit.
        fold: Fold [I] of each tested trial. A series is within a fold.
        is_free: True if the order tells nothing by definition.
        has_common_candidates: True if labels may be exchanged between folds.

    Returns:
        The design, and the unit [I] of each tested trial in the design.
    """
    is_tested = timeline.unit >= 0
    unit = timeline.unit[is_tested]
    trials = np.arange(len(unit))
    groups = 0 * fold if has_common_candidates else fold
    stratum = _find_strata(timeline, groups)
    if is_free:
        return LabelDesign.free(
            timeline.stimulus[is_tested][unit.argsort()], stratum
        ), trials
    design = describe_design(timeline, stratum)
    columns = [timeline.stimulus[is_tested], timeline.run[is_tested], fold[unit]]
    is_new = (np.diff(columns, prepend=-1) != 0).any(0)
    if not design.tells or is_new.all():
        return design, trials
    series = np.empty_like(trials)
    series[unit] = is_new.cumsum() - 1
    by_series = timeline._replace(unit=np.where(is_tested, series[timeline.unit], -1))
    strata = _find_strata(by_series, groups[unit[is_new]])
    design_of_series = describe_design(by_series, strata)
    n_series = len(design_of_series.label)
    if design_of_series.n_changed / n_series > design.n_changed / len(trials):
        return design_of_series, series
    return design, trials


def describe_pictures(timeline: Timeline, fold: Int64) -> LabelDesign:
    """Find the odds of the labels of pictures.

    Labels are exchanged within the lists of pictures that sessions and people have, and
    within runs, sessions or people if these tell the labels.

    Args:
        timeline: Trials of the study. Stimuli are units.
        fold: Fold [I] of each unit, within which labels are exchanged.
    """
    design = describe_design(timeline, fold)
    groups_tell = not {RUN, SESSION, PERSON}.isdisjoint(design.telling)
    strata = _group_units(timeline.session, timeline, fold)
    # Smallest number of pictures of a list in which labels are exchanged.
    min_list = 10
    # few pictures of a list have few orders
    is_listed = np.bincount(strata)[strata] >= min_list
    # Smallest share of pictures in lists of this size.
    if is_listed.mean() < 0.9:
        strata = fold
    if design.tells and groups_tell:
        strata = _find_strata(timeline, strata)
    elif np.ptp(strata) == np.ptp(fold):
        return design
    within = describe_design(timeline, strata)
    if not design.tells:
        return replace(within, whole=design)
    names = tuple(dict.fromkeys(design.telling[:1] + within.telling))
    return replace(within, telling=names, p=design.p, whole=design)


def _find_strata(timeline: Timeline, fold: Int64) -> Int64:
    """Find runs, sessions or people [I] in which half of the units can exchange labels.

    Orders within them have the same counts of labels. The strata are within folds [I].
    """
    is_tested = timeline.unit >= 0
    units = timeline.unit[is_tested]
    label = np.zeros_like(fold)
    label[units] = timeline.stimulus[is_tested]
    for group in (timeline.run, timeline.session, timeline.person):
        stratum = _group_units(group, timeline, fold)
        n_labels = np.bincount(np.unique(np.stack([stratum, label]), axis=1)[0])
        if 2 * (n_labels[stratum] > 1).sum() >= len(label):
            return stratum
    return fold


def _group_units(group: Int64, timeline: Timeline, fold: Int64) -> Int64:
    """Number the units [I] of a fold [I] by the set of groups [n] of their trials."""
    is_tested = timeline.unit >= 0
    groups = list_parts(timeline.unit[is_tested], group[is_tested], len(fold))
    number_of: dict[tuple[int, ...], int] = {}
    numbers = []
    for fold_number, unit_groups in zip(fold.tolist(), groups, strict=True):
        key = fold_number, *unit_groups
        numbers.append(number_of.setdefault(key, len(number_of)))
    return np.array(numbers, np.int64)


def _draw_runs(timeline: Timeline) -> Timeline:
    """Draw whole runs with at most 30,000 trials, or keep a single run."""
    runs, sizes = np.unique(timeline.run, return_counts=True)
    order = np.random.default_rng(0).permutation(len(runs))
    # Largest number of trials by which pictures are described. Runs are
    # drawn from more.
    n_kept = max(1, int((sizes[order].cumsum() <= 30_000).sum()))
    is_kept = np.isin(timeline.run, runs[order[:n_kept]])
    return timeline._replace(
        stimulus=timeline.stimulus[is_kept],
        unit=timeline.unit[is_kept],
        person=timeline.person[is_kept],
        session=timeline.session[is_kept],
        run=timeline.run[is_kept],
    )


class _Decoder(NamedTuple):
    """Decoder that knows the design only.

    Attributes:
        name: What the decoder knows.
        predictions: Prediction [I, E] of each unit, centred.
        values: Value [L, E] of each label, centred.
        table: Codes [I, C] of the stimuli before or after, if there are few, from which
            the values are predicted by a table [C, E].
    """

    name: str
    predictions: Float64
    values: Float64
    table: Float64 | None = None


def _compare_orders(
    decoders: Sequence[_Decoder], label: Int64, orders: Int64
) -> Float64:
    """Score the true order of labels, and other orders.

    Args:
        decoders: K decoders.
        label: Label [I] of each unit.
        orders: Orders [B, I] of the units.

    Returns:
        Scores [K, 1 + B] in standard deviations above the mean of the other orders. The
        first is that of the true order.
    """
    labels = np.vstack([label, label[orders]])
    scores = np.empty((len(decoders), len(labels)))
    rows_of_view: dict[int, list[int]] = {}
    for row, decoder in enumerate(decoders):
        rows_of_view.setdefault(id(decoder.values), []).append(row)
    # Largest number of values that are looked up in one step, which bounds the memory.
    max_lookups = 2**22
    for rows in rows_of_view.values():
        # all decoders with the same values of labels at once, batch by batch
        values = decoders[rows[0]].values
        predictions = np.stack([decoders[row].predictions.ravel() for row in rows])
        batch_size = max(1, max_lookups // predictions.shape[1])
        for start in range(0, len(labels), batch_size):
            batch = labels[start : start + batch_size]
            shown_values = values[batch].reshape(len(batch), -1)
            scores[rows, start : start + batch_size] = predictions @ shown_values.T
    drawn = scores[:, 1:]
    above = scores - drawn.mean(1, keepdims=True)
    # orders whose scores hardly differ do not make the true order extreme
    floor = 0.1 * np.abs(above[:, :1]) + 1e-9 * np.abs(scores).max(1, keepdims=True)
    spread = np.maximum(drawn.std(1, keepdims=True), floor)
    return np.asarray(above / np.where(spread > 0, spread, 1))


def _p_of_best(scores: Float64) -> float:
    """Compute p of the best score of the first order among all [K, 1 + B]."""
    best = scores.max(0)
    return float((best >= best[0] - ROUNDING).mean())


def _fit_odds(
    decoders: Sequence[_Decoder], label: Int64, pairs: tuple[Int64, Int64]
) -> tuple[Float64, Float64]:
    """Fit the weights of decoders to the odds of true pairs against swapped pairs.

    Returns:
        Weighted predictions [I, E] and values [L, E] of all decoders.
    """
    from scipy.optimize import minimize

    # gain of each pair by each weight, which is one of a decoder or a cell of a table
    first, second = pairs
    gains = []
    bounds = []
    # Largest weight of a decoder.
    max_weight = 20.0
    for decoder in decoders:
        difference = decoder.values[label[first]] - decoder.values[label[second]]
        if decoder.table is None:
            change = decoder.predictions[first] - decoder.predictions[second]
            gains.append((change * difference).sum(1)[None])
            bounds.append((0.0, max_weight))
        else:
            change = decoder.table[first] - decoder.table[second]
            cells = change[:, :, None] * difference[:, None]
            gains.append(cells.reshape(len(first), -1).T)
            bounds += [(-max_weight, max_weight)] * gains[-1].shape[0]
    gain = np.concatenate(gains)
    scale = len(label) / 2 / gain.shape[1]

    def measure_loss(weights: Float64) -> tuple[float, Float64]:
        margin = weights @ gain
        slope = gain @ (0.5 - 0.5 * np.tanh(margin / 2))
        loss = scale * np.logaddexp(0, -margin).sum() + 0.01 * weights @ weights
        return float(loss), 0.02 * weights - scale * slope

    start = np.full(len(gain), 0.01)
    found = minimize(measure_loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    weights = found.x
    predictions = []
    for decoder in decoders:
        if decoder.table is None:
            predictions.append(weights[0] * decoder.predictions)
            weights = weights[1:]
        else:
            shape = decoder.table.shape[1], decoder.values.shape[1]
            n_cells = shape[0] * shape[1]
            predictions.append(decoder.table @ weights[:n_cells].reshape(shape))
            weights = weights[n_cells:]
    values = [decoder.values for decoder in decoders]
    return np.concatenate(predictions, 1), np.concatenate(values, 1)


def _make_codes(numbers: Int64) -> Float64:
    """Make codes [S, E] of numbers [S], whose products are 1 or about 0."""
    n_codes = 1 + int(numbers.max(initial=0))
    # Largest width of the codes of concepts. More concepts get random codes.
    max_code_width = 64
    if n_codes <= max_code_width:
        return np.eye(n_codes)[numbers]
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(n_codes, max_code_width)) / max_code_width**0.5
    return np.asarray(codes[numbers])


class _DesignDecoding:
    """Decoders that know the design, for labels in any order."""

    def __init__(self, timeline: Timeline, stimuli: Int64, n_units: int) -> None:
        """Find the trials of each unit.

        Args:
            timeline: Trials of the study.
            stimuli: Stimulus [L] of each label.
            n_units: Number of units.
        """
        from scipy.sparse import csr_array

        self.timeline = timeline
        self.stimuli = stimuli
        self.n_units = n_units
        self.rows = np.flatnonzero(timeline.unit >= 0)
        self.position = count_positions(timeline.run)
        self.run_starts = np.flatnonzero(np.diff(timeline.run, prepend=-1))
        unit = timeline.unit[self.rows]
        cells = unit, np.arange(len(unit))
        weights = 1 / np.bincount(unit)[unit]  # units without trials have no mean
        self.mean = csr_array((weights, cells), shape=(n_units, len(unit)))

        # pairs of trials of the same unit
        by_unit = np.argsort(unit, kind="stable")
        pairs = [np.empty((2, 0), np.int64)]
        for shift in range(1, int(np.bincount(unit).max(initial=0))):
            pair = np.stack([by_unit[:-shift], by_unit[shift:]])
            pairs.append(pair[:, unit[pair[0]] == unit[pair[1]]])
        first, second = np.concatenate(pairs, 1)
        self.twins = np.concatenate([first, second]), np.concatenate([second, first])

        # training stimuli have numbers below 0
        shown = np.where(timeline.unit < 0, -1 - timeline.stimulus, timeline.unit)
        _, index, counts = np.unique(shown, return_inverse=True, return_counts=True)
        self.n_showings = counts[index.reshape(-1)]
        self.neighbours = self._find_neighbours(shown)
        train_rows = np.flatnonzero(timeline.unit < 0)
        # Largest number of trials from which an order is learned.
        self.train_rows = train_rows[:: 1 + len(train_rows) // 5_000]

        # folds are stretches of the recording
        first_row = np.full(n_units, len(self.rows))
        np.minimum.at(first_row, unit, np.arange(len(self.rows)))
        self.fold = first_row.argsort().argsort() * N_FOLDS // n_units

        # stimuli are alike by their features, by their concept, and if they are equal
        self.views = []
        if timeline.features is not None:
            self.views.append(np.asarray(timeline.features, np.float64))
        concepts = timeline.concept[stimuli]
        n_concepts = len(np.unique(concepts))
        is_shared = len(np.unique(timeline.concept)) < len(timeline.concept)
        pairs_shown = np.stack([timeline.concept[timeline.stimulus], timeline.unit])
        n_pairs = np.unique(pairs_shown, axis=1).shape[1]
        is_shown_again = n_pairs > len(np.unique(pairs_shown[0]))
        if is_shared or is_shown_again or n_concepts < n_units:
            self.views.append(_make_codes(timeline.concept))
        if n_concepts < len(stimuli) < n_units:
            self.views.append(_make_codes(np.arange(len(timeline.concept))))

    def _find_neighbours(self, shown: Int64) -> dict[str, tuple[Int64, Bool]]:
        """Find the trials of other units or stimuli [n] that come before and after.

        Args:
            shown: Number [n] of the unit or training stimulus of each trial.

        Returns:
            Row [n] of the neighbour of each trial, and True where it is in the same run
            and another unit, by description.
        """
        run = self.timeline.run
        is_new = np.diff(shown, prepend=shown[0] - 1) != 0
        is_new[self.run_starts] = True
        block = is_new.cumsum() - 1
        first_trial = np.flatnonzero(is_new)
        neighbours = {}
        for direction, step in (("before", -1), ("after", 1)):
            # Number of stimuli before and after a trial that may tell its label.
            for lag in range(1, 4):
                name = f"the stimulus {direction}"
                if lag > 1:
                    name = f"the stimulus {lag} trials {direction}"
                target_block = block + step * lag
                is_there = (target_block >= 0) & (target_block < len(first_trial))
                neighbour = first_trial[np.where(is_there, target_block, 0)]
                is_there &= run[neighbour] == run
                is_there &= shown[neighbour] != shown
                neighbours[name] = neighbour, is_there
        return neighbours

    def weigh_order(self, p: float, label: Int64, new_orders: Int64) -> float:
        """Compute the p of an order by its best decoder, against orders drawn anew.

        New orders have decoders of their own, because labels with equal counts in each
        run predict each other. It stops early if the evidence is weak or clear.

        Args:
            p: p of the order if units exchange their labels.
            label: Label [I] of each unit.
            new_orders: Orders [B, I] drawn anew.
        """
        if p > MAX_RESPECTED_P:
            return p
        best = self._score_best(label, new_orders)
        redrawn: list[float] = []
        n_better = 0
        # Number of random orders with decoders of their own, after which weak evidence
        # is not weighed further.
        n_first_redrawn = 19
        # Margin of the true order, in standard deviations, that needs
        # no further orders.
        clear_margin_sd = 6.0
        # Largest number of random orders whose own decoders are fitted.
        for order in new_orders[:49]:
            if p > MAX_RESPECTED_P:
                break
            redrawn.append(self._score_best(label[order], new_orders))
            n_better += int(redrawn[-1] >= best)
            if n_better:
                p = max(p, (1 + n_better) / (1 + max(len(redrawn), n_first_redrawn)))
            margin = (best - np.mean(redrawn)) / max(0.5, float(np.std(redrawn)))
            # Smallest number of these orders after which clear evidence is enough.
            is_clear = len(redrawn) >= 9 and margin > clear_margin_sd
            if is_clear or (n_better and len(redrawn) >= n_first_redrawn):
                break
        return p

    def _score_best(self, label: Int64, new_orders: Int64) -> float:
        """Return the score of labels [I] by the best decoder that knows the order."""
        decoders = [
            decoder for decoder in self.list_decoders(label) if decoder.name != SHOWINGS
        ]
        scores = _compare_orders(decoders, label, new_orders[-N_COMPARED_ORDERS:])
        return float(scores[:, 0].max().round(1))

    def list_decoders(self, label: Int64) -> list[_Decoder]:
        """List the decoders of units with the given labels [I]."""
        stimulus = self.timeline.stimulus.copy()
        stimulus[self.rows] = self.stimuli[label[self.timeline.unit[self.rows]]]
        decoders = []
        for view in self.views:
            values = view[stimulus] - view[stimulus].mean(0)
            label_values = view[self.stimuli] - view[self.stimuli].mean(0)
            has_table = 4 * view.shape[1] ** 2 <= self.n_units
            for name, raw_predictions, table in self._predict(
                values, label_values[label]
            ):
                predictions = raw_predictions - raw_predictions.mean(0)
                # the scores of all units and labels have a variance of 1
                squares = (predictions.T @ predictions) * (
                    label_values.T @ label_values
                )
                variance = squares.sum() / (self.n_units * len(self.stimuli))
                if variance > ROUNDING**2:
                    predictions /= variance**0.5
                decoders.append(
                    _Decoder(
                        name, predictions, label_values, table if has_table else None
                    )
                )
        return decoders

    def _predict(
        self, values: Float64, targets: Float64
    ) -> Iterator[tuple[str, Float64, Float64 | None]]:
        """Yield what is known, the predictions [I, E] and codes for a table.

        Args:
            values: Value [n, E] of the stimulus of each trial.
            targets: Value [I, E] of the label of each unit.
        """
        timeline = self.timeline
        for name, group in (
            (RUN, timeline.run),
            (SESSION, timeline.session),
            (PERSON, timeline.person),
            (SHOWINGS, self.n_showings),
        ):
            yield name, self._predict_by_group(values, group), None
        if not timeline.is_ordered:
            return
        # Widths of windows of time in a run, in trials.
        for width in (0.5, 2.0, 8.0, 32.0):
            yield "time in the run", self._predict_by_time(values, width), None
        if len(self.run_starts) > 1:
            # Widths of windows of the position in other runs, in trials.
            for width in (0.1, 4.0):
                by_position = self._predict_by_position(values, width)
                yield "the position in the run", by_position, None
        yield from self._predict_by_neighbours(values, targets)

    def _average(self, sums: Float64, weights: Float64) -> Float64:
        """Average over the other trials, then over the trials of each unit."""
        means = np.where(
            weights[:, None] > 1e-6, sums / np.maximum(weights, 1e-6)[:, None], 0
        )
        return np.asarray(self.mean @ means)

    def _predict_by_group(self, values: Float64, group: Int64) -> Float64:
        """Average the other units of the same group [n]."""
        _, number = np.unique(group, return_inverse=True)
        number = number.reshape(-1)
        sums = np.zeros((1 + number.max(), values.shape[1]))
        np.add.at(sums, number, values)
        counts = np.bincount(number)
        own = number[self.rows]
        first, second = self.twins
        is_shared = own[first] == own[second]
        n_own = 1 + np.bincount(first[is_shared], minlength=len(own))
        others = sums[own] - n_own[:, None] * values[self.rows]
        return self._average(others, (counts[own] - n_own).astype(np.float64))

    def _smooth(self, values: Float64, starts: Sequence[int], decay: float) -> Float64:
        """Sum values [n, E] with weights decay ** distance, within stretches."""
        from scipy.signal import lfilter

        smooth = np.empty_like(values)
        for start, stop in zip(starts, [*starts[1:], len(values)], strict=True):
            part = values[start:stop]
            before = lfilter([1.0], [1.0, -decay], part, axis=0)
            after = lfilter([1.0], [1.0, -decay], part[::-1], axis=0)[::-1]
            smooth[start:stop] = before + after - part
        return smooth

    def _sum_twins(self, decay: float, in_same_run: bool) -> Float64:
        """Sum the weights [m] of the other trials of the same unit."""
        first, second = self.twins
        run = self.timeline.run[self.rows]
        position = self.position[self.rows]
        weights = decay ** np.abs(position[first] - position[second]).astype(float)
        weights *= (run[first] == run[second]) == in_same_run
        return np.bincount(first, weights, minlength=len(run)).astype(np.float64)

    def _predict_by_time(self, values: Float64, width: float) -> Float64:
        """Average the other units that are near in time in the run."""
        decay = np.exp(-1 / width)
        ones = np.ones((len(values), 1))
        starts = self.run_starts.tolist()
        joined = self._smooth(np.hstack([values, ones]), starts, decay)[self.rows]
        own = 1 + self._sum_twins(decay, in_same_run=True)
        sums = joined[:, :-1] - own[:, None] * values[self.rows]
        return self._average(sums, joined[:, -1] - own)

    def _predict_by_position(self, values: Float64, width: float) -> Float64:
        """Average the other units that are near in position in other runs."""
        decay = np.exp(-1 / width)
        joined = np.hstack([values, np.ones((len(values), 1))])
        by_position = np.zeros((1 + self.position.max(), joined.shape[1]))
        np.add.at(by_position, self.position, joined)
        all_runs = self._smooth(by_position, [0], decay)[self.position[self.rows]]
        own_run = self._smooth(joined, self.run_starts.tolist(), decay)[self.rows]
        own = self._sum_twins(decay, in_same_run=False)
        others = all_runs - own_run
        sums = others[:, :-1] - own[:, None] * values[self.rows]
        return self._average(sums, others[:, -1] - own)

    def _predict_by_neighbours(
        self, values: Float64, targets: Float64
    ) -> Iterator[tuple[str, Float64, Float64 | None]]:
        """Predict from the stimuli before and after by ridge regressions.

        They are fitted to training trials, and to the units of other stretches of the
        recording.
        """
        train_rows = self.train_rows
        for name, (neighbour, is_there) in self.neighbours.items():
            context = np.where(is_there[:, None], values[neighbour], 0)
            tested = context[self.rows]
            # Smallest number of training trials from which an order is learned.
            if len(train_rows) > 20:
                fitted = _fit_ridge(context[train_rows], values[train_rows], tested)
                yield name, np.asarray(self.mean @ fitted), None
            features = np.asarray(self.mean @ tested)
            # labels that are like their neighbours, or unlike
            yield name, features, None
            yield name, -features, None
            predictions = np.empty_like(targets)
            for number in range(N_FOLDS):
                is_own = self.fold == number
                predictions[is_own] = _fit_ridge(
                    features[~is_own], targets[~is_own], features[is_own]
                )
            yield name, predictions, features


def _fit_ridge(x: Float64, y: Float64, new_x: Float64) -> Float64:
    """Predict y at new x by a ridge regression.

    Leave-one-out errors choose the penalty.
    """
    mean_x = x.mean(0)
    mean_y = y.mean(0)
    left, size, right = np.linalg.svd(x - mean_x, full_matrices=False)
    projected = left.T @ (y - mean_y)
    best_error = np.inf
    coefficients = np.zeros((x.shape[1], y.shape[1]))
    for penalty in size.max(initial=0) ** 2 * 10.0 ** np.arange(-3, 2) + 1e-12:
        shrinkage = size**2 / (size**2 + penalty)
        leverage = (left**2 * shrinkage).sum(1) + 1 / len(x)
        residual = y - mean_y - left @ (shrinkage[:, None] * projected)
        error = ((residual / (1 - leverage + 1e-9)[:, None]) ** 2).sum()
        if error < best_error:
            best_error = error
            scaled = (size / (size**2 + penalty))[:, None] * projected
            coefficients = right.T @ scaled
    return np.asarray(mean_y + (new_x - mean_x) @ coefficients)
