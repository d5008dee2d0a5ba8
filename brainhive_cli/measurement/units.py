"""Items that are alike: over which units intervals are made, and which labels may be
exchanged.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import chain, compress, permutations, product
from typing import Any, Literal, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from brainhive_cli.core.arrays import Array, Bool, Float64, Int64

GroupingCriterion = Literal["concept", "neighbours"]
"""Likeness of the stimuli of a data set: by what they show, or that they follow each
other in a film.
"""
ExchangeClass = tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]
"""Units of equal composition, which may be exchanged: the numbers [g, m] of the m items
of each unit, and how many of the m items each group of subjects was shown, as only
these are exchanged in a unit.
"""
MAX_KEPT = 2**24
"""Numbers of permutations up to which these are kept for the next call, 32 MB."""
NUMBERS_AT_ONCE = 2**22
"""Numbers that are drawn at once, to bound memory."""
MIN_UNITS_FOR_POPULATION = 10
"""Units from which an inference speaks of units in general; of fewer it speaks of these
alone.
"""
MIN_UNITS_FOR_INTERVAL = 6
"""Units from which there are intervals: of five, no test by signs or ranks reaches .05,
two-sided.
"""
MOST_BLOCKS, LONG_BLOCK = 15, 60
"""Most blocks into which the clips of a split are cut, and clips of one, 120 s of
cc2017, beyond which neighbouring blocks hardly correlate. Means over 10 to 30 batches
give intervals that hold (Schmeiser 1982, Batch size effects in the analysis of
simulation output); where clips correlate by .9, six blocks are some twenty independent
clips, and of fewer no interval holds (`benchmarks/simulated_statistics`).
"""
MIN_SUBJECTS_FOR_POPULATION = 5
"""Subjects from which an inference speaks of people in general; of fewer it speaks of
these alone.
"""
FOLD_INFLATION = 1.4
"""Variance of a mean over folds, whose models share training data, over that which its
units show: about the largest of simulated designs (`benchmarks/simulated_statistics
--only pooled_folds`). There is no unbiased estimate of it (Bengio and Grandvalet 2004).
"""


def fold_null_inflation(values: Sequence[Array], pool: float = math.inf) -> float:
    """Give the variance of a mean over folds, without an effect, over that of labels
    permuted after training.

    Where trial i helps to classify trial j of another fold, j helps i by as much: of a
    linear margin, labels permuted before training give twice the variance of labels
    permuted after it. Of that increase a rank among K candidates has the share by which
    it correlates with the margin, r² = 3 / π · K / (K + 1), and a hit that of two
    candidates at most; averages over seeds, and other values, may have all of it
    (`benchmarks/simulated_statistics --only pooled_folds equal_learners`).

    Args:
        values: Ranks, hits or their differences, or other values, one array a subject.
        pool: Candidates of each item, K, of ranks; 2 of hits.

    Source: Noirhomme et al. 2014, Biased binomial assessment of cross-validated
    estimation of classification accuracies (labels permuted before training).
    """
    # ranks and hits are whole numbers; averages over seeds are not
    are_whole = all((np.asarray(each) % 1 == 0).all() for each in values)
    return 1 + 3 / math.pi / (1 + 1 / pool) if are_whole else 2.0


def widen_null_distribution(sums: Float64, middle: Any, inflation: float) -> Float64:
    """Widen a null distribution [K] around its middle, by the inflation of its
    variance.

    Sums of few hits lie a step apart, and would skip the measured one: each is spread
    over its step.
    """
    # the step is the smallest distance of two sums
    step = np.diff(np.unique(sums.round(9))).min(initial=np.ptp(sums))
    spread = sums + step * np.random.default_rng(0).uniform(-0.5, 0.5, len(sums))
    return np.asarray(middle + inflation**0.5 * (spread - middle))


@dataclass(frozen=True)
class Items:
    """The items of several subjects, and which of them are alike.

    Attributes:
        ids: Name of each item, one list a subject; an item that several subjects saw
            has one name.
        units: Name of the unit that each item belongs to, in the same order.
        kind: What the units are, in the plural.
        is_film: Whether items follow each other, in the order of `order`.
        strata: Name of the stratum of each item: the few concepts that an inference is
            about, within which units are compared. None: all are of one.
        order: Names in the order of their film; those that are absent follow as they
            first appear.
        scope: What an inference is about where the units are too few for units in
            general, as "these 2 concepts".
        inflation: By what the variance of a mean is larger than units say, as of folds
            that share training data.
        parts: Name to the part of the recording in which labels were interleaved; none:
            all are of one.
        problem: Why labels cannot be exchanged at all; empty if they can.
    """

    ids: Sequence[Sequence[Hashable]]
    units: Sequence[Sequence[Hashable]]
    kind: str = "items"
    is_film: bool = False
    strata: Sequence[Sequence[Hashable]] | None = None
    order: Sequence[Hashable] = ()
    scope: str = ""
    inflation: float = 1.0
    parts: Mapping[Hashable, Hashable] = field(default_factory=dict)
    problem: str = ""

    @classmethod
    def independent(
        cls, ids: Sequence[Sequence[Hashable]], kind: str = "items"
    ) -> Self:
        """Take each item for a unit of its own."""
        # an inference over few units is about these alone
        count = len(set(chain.from_iterable(ids)))
        scope = f"these {count} {kind}" if count > 1 else f"this one of {kind}"
        return cls(
            ids, ids, kind, scope=scope if count < MIN_UNITS_FOR_POPULATION else ""
        )

    @classmethod
    def from_sizes(cls, sizes: Sequence[int]) -> Self:
        """Number independent items: subjects with as many have the same ones, others
        have none in common.
        """
        return cls.independent([[(size, n) for n in range(size)] for size in sizes])

    @property
    def are_independent(self) -> bool:
        """Whether no two items are of one unit, but for those of several subjects."""
        return all(max(Counter(names).values()) == 1 for names in self.units)

    @property
    def shortage(self) -> str:
        """Reason why there is no interval and no test of a difference; empty where
        there are enough units.
        """
        if self.n_units == 1:
            if len(self.names) == 1:
                return "one item"
            return f"all items are of one unit ({self.kind})"
        if self.n_units < MIN_UNITS_FOR_INTERVAL:
            return f"{self.n_units} {self.kind} are too few"
        return ""

    @cached_property
    def names(self) -> list[Hashable]:
        """Names of all items, each once; those of a film in its order."""
        # names in the film's order first, then as they appear
        present = dict.fromkeys(chain.from_iterable(self.ids))
        return list(
            dict.fromkeys([*(name for name in self.order if name in present), *present])
        )

    @cached_property
    def unit_indices(self) -> list[Int64]:
        """Number of each item's unit among those of all subjects, [N] by subject."""
        return number_names(self.units)

    @cached_property
    def stratum_of_unit(self) -> Int64:
        """Number of the stratum of each unit, [U]."""
        # strata of units follow from those of their items
        stratum = np.zeros(self.n_units, np.int64)
        for unit, number in zip(
            self.unit_indices, number_names(self.strata or ()), strict=False
        ):
            stratum[unit] = number
        return stratum

    @cached_property
    def n_units(self) -> int:
        """Number of units of all subjects."""
        return 1 + max(int(number.max()) for number in self.unit_indices)

    def select(self, is_chosen: Sequence[Bool]) -> Self:
        """Choose items [N] by subject, and leave out subjects who have none; units stay
        as they are.
        """
        # a subject without chosen items is left out, columns stay aligned
        subjects = [row for row, mask in enumerate(is_chosen) if mask.any()]
        columns = [
            self.ids,
            self.units,
            *([] if self.strata is None else [self.strata]),
        ]
        chosen = [
            [list(compress(column[row], is_chosen[row])) for row in subjects]
            for column in columns
        ]
        strata = None if self.strata is None else chosen[2]
        return replace(self, ids=chosen[0], units=chosen[1], strata=strata)

    def exchange_within(
        self,
        parts: Mapping[Hashable, Hashable],
        concept_parts: Mapping[Hashable, Hashable],
        problem: str = "",
    ) -> Self:
        """Exchange labels only within the parts of a recording in which they were
        interleaved.

        Args:
            parts: Of pictures, by name, within which those of one concept were
                interleaved.
            concept_parts: The same, within which concepts were; none where these came
                in blocks: then only pictures of one concept are exchanged.
            problem: Why pictures cannot be exchanged at all; empty if they can.
        """
        # independent pictures and clips have no concepts to be exchanged within
        if self.are_independent or self.is_film:
            return replace(self, parts=parts, problem=problem)
        if concept_parts:
            return replace(self, parts=concept_parts)
        scope = f"pictures within {self.n_units} {self.kind}"
        return replace(
            self,
            units=self.ids,
            kind=scope,
            strata=self.units,
            scope=scope,
            parts=parts,
            problem=problem,
        )

    def draw_permutations(self, draws: int, seed: int) -> Array:
        """Permute the labels of items that are exchangeable, the same for all subjects.

        Pictures are exchanged with pictures that the same subjects were shown: freely
        where each is a unit of its own, else within their unit, and units of equal
        composition with each other; always within their stratum and part. Clips of a
        film are shifted along it, around its end: in another order they would have
        other neighbours, and pairs of close clips are alike whatever signals and
        embeddings have in common.

        Args:
            draws: Most permutations, K.
            seed: Of the permutations that are drawn where there are more.

        Returns:
            [K, I] number of the name in `names` whose label each name gets, without the
            identity: all where they are no more than `draws`. None where labels cannot
            be exchanged. It is read-only, and of the smallest type that holds I.
        """
        count = len(self.names)
        if self.problem:
            return np.empty((0, count), np.int64)
        orders: Array
        if self.is_film:
            orders = _shift(count, draws, seed)
        elif draws * count <= MAX_KEPT:
            orders = _permute_once(self._exchangeable, count, draws, seed)
        else:
            orders = _permute(self._exchangeable, count, draws, seed)
        orders.setflags(write=False)  # calls share it
        return orders

    def permute(self, seed: int) -> list[Int64]:
        """Permute labels once, as `permutations` does.

        Returns:
            [N] by subject: the item whose label each item gets.
        """
        drawn = self.draw_permutations(1, seed)
        return self.apply_permutation(
            drawn[0] if len(drawn) else np.arange(len(self.names))
        )

    def apply_permutation(self, order: Array) -> list[Int64]:
        """Find what a permutation of all names [I] makes of the items of each subject.

        Returns:
            [N] by subject: the item whose label each item gets.
        """
        number = {name: row for row, name in enumerate(self.names)}
        orders = []
        for ids in self.ids:
            # a subject who lacks clips is shifted by the same share of the film
            if self.is_film:
                line = np.argsort([number[name] for name in ids])
                shifted = np.empty_like(line)
                shifted[line] = np.roll(
                    line, -round(int(order[0]) / len(order) * len(line))
                )
                orders.append(shifted)
            else:
                item = {name: row for row, name in enumerate(ids)}
                orders.append(
                    np.array(
                        [item[self.names[order[number[name]]]] for name in ids],
                        np.int64,
                    )
                )
        return orders

    @cached_property
    def _exchangeable(self) -> tuple[ExchangeClass, ...]:
        """List the classes of units of equal composition, which may be exchanged; one
        may hold one unit.
        """
        # unit of each item, and to whom it was shown
        number = {name: row for row, name in enumerate(self.names)}
        # of a set of subjects, a bit each
        unit_of = [0] * len(number)
        shown_to = [0] * len(number)
        part_number = {
            part: row for row, part in enumerate(dict.fromkeys(self.parts.values()))
        }
        for subject, (ids, units) in enumerate(
            zip(self.ids, self.unit_indices, strict=True)
        ):
            for name, unit in zip(ids, units.tolist(), strict=True):
                unit_of[number[name]] = unit
                shown_to[number[name]] |= 1 << subject
        # subjects that each item was shown to, and its part
        alike = [
            (shown_to[row], part_number.get(self.parts.get(name), 0))
            for name, row in number.items()
        ]

        # items by unit, sorted by what makes them alike; then units that are equal in
        # this
        members = defaultdict[int, list[int]](list)
        for row in sorted(range(len(alike)), key=alike.__getitem__):
            members[unit_of[row]].append(row)
        classes = defaultdict[Any, list[list[int]]](list)
        for unit, rows in members.items():
            key = int(self.stratum_of_unit[unit]), tuple(alike[row] for row in rows)
            classes[key].append(rows)
        return tuple(
            (tuple(map(tuple, rows)), tuple(Counter(shown).values()))
            for (_, shown), rows in classes.items()
        )


def _shift(count: int, draws: int, seed: int) -> Array:
    """Shift the clips of a film around its end, see `Items.permutations`."""
    clips = np.arange(count, dtype=np.min_scalar_type(count))
    shifts = np.arange(1, count)
    if len(shifts) > draws:
        shifts = np.random.default_rng(seed).choice(shifts, draws, replace=False)
    shifted: Array = sliding_window_view(np.tile(clips, 2), count)[shifts]
    return shifted


def _permute(
    classes: Sequence[ExchangeClass], count: int, draws: int, seed: int
) -> Array:
    """Permute items within their classes, see `Items.permutations`."""
    # random permutations where there are more than are drawn
    identity = np.arange(count, dtype=np.min_scalar_type(count))
    total = 1
    for members, sizes in classes:
        orders_within = math.prod(map(math.factorial, sizes))
        total *= math.factorial(len(members)) * orders_within ** len(members)
    if total - 1 > draws:
        random = np.random.default_rng(seed)
        orders = np.tile(identity, (draws, 1))
        for members, sizes in classes:
            _draw_orders(orders, identity[np.array(members)], sizes, random)
        return orders

    # all others but the identity
    orders = np.tile(identity, (total, 1))
    permuted = product(
        *(_list_orders(np.array(members), sizes) for members, sizes in classes)
    )
    for order, parts in zip(orders, permuted, strict=True):
        for (members, _), part in zip(classes, parts, strict=True):
            order[np.array(members)] = part
    moves: Array = orders[(orders != identity).any(1)]
    return moves


_permute_once = lru_cache(maxsize=4)(_permute)


def _list_orders(members: Int64, sizes: Sequence[int]) -> list[Int64]:
    """List all permutations of a class of units, [g, m] each; see
    `ExchangeClass`.
    """
    # units are exchanged, and items within each unit: the product of both
    listed = []
    ends = np.cumsum(sizes)[:-1]
    for units in permutations(members):
        parts = [part for unit in units for part in np.split(unit, ends)]
        for orders in product(*(permutations(part) for part in parts)):
            listed.append(np.concatenate(orders).reshape(members.shape))
    return listed


def _draw_orders(
    orders: Array, members: Array, sizes: Sequence[int], random: np.random.Generator
) -> None:
    """Draw permutations of a class of units, the members [g, m] of orders [K, I]; see
    `ExchangeClass`.
    """
    # units, as they are, for as many permutations at once as memory is meant to hold
    at_once = max(1, NUMBERS_AT_ONCE // members.size)
    units = np.arange(len(members), dtype=members.dtype)
    for start in range(0, len(orders), at_once):
        part = orders[start : start + at_once]
        moved = random.permuted(np.tile(units, (len(part), 1)), axis=1)
        part[:, members] = members[moved]

    # items within their unit, among those shown to the same subjects
    start = 0
    for size in sizes:
        if size > 1:
            alike = members[:, start : start + size]
            orders[:, alike] = random.permuted(orders[:, alike], axis=2)
        start += size


def number_names(names: Sequence[Sequence[Hashable]]) -> list[Int64]:
    """Number names in the order in which they first appear, over all subjects."""
    number = {
        name: row for row, name in enumerate(dict.fromkeys(chain.from_iterable(names)))
    }
    return [np.array([number[name] for name in listed], np.int64) for listed in names]


@dataclass(frozen=True)
class StimulusGrouping:
    """Likeness of the stimuli of a data set.

    Attributes:
        by: Why stimuli are of one unit.
        concept_of: Name to what a stimulus shows, in the order of the data set, which
            is that of a film; a name that is absent is a concept of its own.
        medium: What they are, in the singular.
        group_of: Name of a held-out trial to its run or session; empty where pictures
            are held out.
        groups: What these are, in the plural.
        block_of: Name of a held-out trial to the block of successive trials of one
            label that it is in.
        has_folds: Whether items were tested by models of several folds, which share
            training data.
    """

    criterion: GroupingCriterion = "concept"
    concept_of: Mapping[Any, str] = field(default_factory=dict)
    medium: str = "picture"
    group_of: Mapping[Any, Hashable] = field(default_factory=dict)
    group_kind: str = ""
    block_of: Mapping[Any, Hashable] = field(default_factory=dict)
    has_folds: bool = False

    def make_items(self, ids: Sequence[Sequence[Hashable]]) -> Items:
        """Group stimuli, one list of names a subject, into the units of an inference.

        From ten concepts of which any has several stimuli, the concepts are the units.
        Fewer are what the inference is about: each stimulus is a unit, compared within
        its concept, and concepts with one stimulus together. Clips are units by film
        from ten films on, else they are cut into blocks.
        """
        items = self._group_trials(ids) if self.group_of else self._group_stimuli(ids)
        return replace(items, inflation=FOLD_INFLATION) if self.has_folds else items

    def _group_stimuli(self, ids: Sequence[Sequence[Hashable]]) -> Items:
        """Group stimuli by what they show."""
        # clips, and pictures of which each shows a concept of its own
        names = list(dict.fromkeys(chain.from_iterable(ids)))
        concept = {name: self.concept_of.get(name, name) for name in names}
        shown = Counter(concept.values())
        if self.criterion == "neighbours":
            return self._cut_films(ids, len(shown) if len(shown) < len(names) else 0)
        if len(shown) == len(names):
            return Items.independent(ids, f"{self.medium}s")

        # many concepts are units, few are strata
        if len(shown) >= MIN_UNITS_FOR_POPULATION:
            return Items(
                ids, [[concept[name] for name in listed] for listed in ids], "concepts"
            )
        strata = [
            [concept[name] if shown[concept[name]] > 1 else None for name in listed]
            for listed in ids
        ]
        which = f"{len(shown)} concept{'s' if len(shown) > 1 else ''}"
        scope = f"these {which}" if len(shown) > 1 else "this concept"
        return Items(
            ids, ids, f"{self.medium}s within {which}", strata=strata, scope=scope
        )

    def _group_trials(self, ids: Sequence[Sequence[Hashable]]) -> Items:
        """Group trials by run or session; of fewer than ten, statements are about
        these.
        """
        # trials of few runs: strata are these runs, units their blocks
        groups = [[self.group_of[name] for name in listed] for listed in ids]
        count = len({*chain.from_iterable(groups)})
        if self.group_kind == "trials":
            return Items.independent(ids, "trials")
        if count >= MIN_UNITS_FOR_POPULATION:
            return Items(ids, groups, self.group_kind)
        name = self.group_kind if count > 1 else self.group_kind[:-1]
        scope = f"these {count} {name}" if count > 1 else f"this {name}"
        units = [[self.block_of.get(name, name) for name in listed] for listed in ids]
        kind = (
            "trials"
            if len({*chain.from_iterable(units)}) == sum(map(len, ids))
            else "blocks of trials"
        )
        return Items(
            ids, units, f"{kind} within {count} {name}", strata=groups, scope=scope
        )

    def _cut_films(self, ids: Sequence[Sequence[Hashable]], films: int) -> Items:
        """Cut clips into blocks, in the order of their film; `films` is 0 where nothing
        says how many.
        """
        # films in general; clips of few films follow each other
        if films >= MIN_UNITS_FOR_POPULATION:
            units = [
                [self.concept_of.get(name, name) for name in listed] for listed in ids
            ]
            return Items(ids, units, "films", is_film=True, order=[*self.concept_of])
        scope = {0: "these films", 1: "this film"}.get(films, f"these {films} films")
        film = Items(ids, ids, is_film=True, order=[*self.concept_of], scope=scope)

        # blocks of neighbours; too few clips for them are one unit, of which nothing
        # shows how it varies
        size = len(film.names)
        count = min(MOST_BLOCKS, size // LONG_BLOCK)
        kind = f"blocks of {size // max(1, count)} neighbouring {self.medium}s"
        if count < MIN_UNITS_FOR_INTERVAL:
            count = 1
            clips = MIN_UNITS_FOR_INTERVAL * LONG_BLOCK
            kind = f"a block of fewer than {clips} neighbouring {self.medium}s"
        block = {name: row * count // size for row, name in enumerate(film.names)}
        return replace(
            film, units=[[block[name] for name in listed] for listed in ids], kind=kind
        )


def describe_claims(items: Items, subjects: int) -> str:
    """Say which statements a design allows.

    Args:
        items: What will be tested.
        subjects: How many people; 0 where nobody was recorded yet.

    Returns:
        As "2 concepts, 1 subject: statements about these 2 concepts and this subject".
    """
    # the scope in numbers, else the units
    counted = (
        items.scope.removeprefix("these ").replace("this ", "1 ")
        or f"{items.n_units} {items.kind}"
    )
    about = items.scope or f"{items.kind.rpartition(' of ')[2]} in general"
    people = "this subject" if subjects == 1 else f"these {subjects} subjects"
    people = people if subjects < MIN_SUBJECTS_FOR_POPULATION else "people in general"
    if not subjects:
        return f"{counted}: statements about {about}"
    return (
        f"{counted}, {subjects} subject{'' if subjects == 1 else 's'}: statements "
        f"about {about} and {people}"
    )
