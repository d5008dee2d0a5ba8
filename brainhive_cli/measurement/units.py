"""Units of similar items, between which labels are exchanged in permutation tests.

- Item: a stimulus or trial that is tested.
- Label: picture or concept that an item is tested for.
- Unit: items that are alike and so not independent, such as pictures of a concept.
- Stratum: units that are compared only with each other.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import chain, compress, permutations, product
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from brainhive_cli.core.base import Array, Bool, Float64, Int64
from brainhive_cli.measurement.design import LabelDesign

GroupingCriterion = Literal["concept", "neighbours"]
"""Property that makes stimuli of a data set alike: they show the same concept, or they
are neighbouring clips of a film.
"""
MIN_UNITS_FOR_POPULATION = 10
"""Smallest number of units whose results hold for units in general, such as concepts
that were not tested. Results of fewer units hold for these units only.
"""
MIN_UNITS_FOR_INTERVAL = 6
"""Smallest number of units for which an interval is computed. With five units, the
two-sided p value of a sign or rank test cannot reach .05.
"""
MIN_SUBJECTS_FOR_POPULATION = 5
"""Smallest number of subjects whose results hold for people in general. Results of
fewer subjects hold for these subjects only.
"""
FOLD_INFLATION = 1.4
"""Variance of a mean over folds, divided by its estimate from the units. It exceeds 1
because the models of the folds share training data. 1.4 is about the largest ratio in
simulated designs (`benchmarks/simulated_statistics --only pooled_folds`). No unbiased
estimate of this ratio exists (Bengio and Grandvalet 2004).
"""


class ExchangeClass(NamedTuple):
    """Units of equal composition, whose labels may be exchanged with each other.

    Attributes:
        members: Indices [g, m] of the m items of each of the g units, sorted by group.
        group_sizes: Number of items in each group of a unit, which the same subjects
            saw.
    """

    members: tuple[tuple[int, ...], ...]
    group_sizes: tuple[int, ...]


def fold_null_inflation(values: Sequence[Array], pool: float = math.inf) -> float:
    """Compute the factor by which shared training data widens a null distribution.

    In cross-validation, trials of a fold train the models of other folds, so results
    correlate. Labels that are permuted after training ignore this, so the variance of
    the mean is multiplied by a factor:

    - Whole numbers: 1 + r², where r² = 3 / π · K / (K + 1). For ranks among K
      candidates, r is the correlation of a rank with a classifier's margin.
    - Other values, such as averages over seeds: 2, the factor of these margins.

    Args:
        values: Values [N] of each subject, such as ranks, hits or differences of these.
        pool: Number K of candidates of each item for ranks, and 2 for hits.

    Returns:
        Factor of the variance.

    Source: Noirhomme et al. 2014, Biased binomial assessment of cross-validated
    estimation of classification accuracies (labels permuted before training);
    `benchmarks/simulated_statistics --only pooled_folds equal_learners`.
    """
    are_whole = all((np.asarray(group) % 1 == 0).all() for group in values)
    return 1 + 3 / math.pi / (1 + 1 / pool) if are_whole else 2.0


def widen_null_distribution(sums: Float64, middle: Any, inflation: float) -> Float64:
    """Multiply the variance of a null distribution by a factor.

    Each value is first moved at random by at most half the smallest distance between
    two values, so that whole numbers do not leave gaps.

    Args:
        sums: Statistic [K] under permuted labels or flipped signs.
        middle: Centre of the distribution, a number or an array [K].
        inflation: Factor of the variance.

    Returns:
        The wider distribution [K].
    """
    step = np.diff(np.unique(sums.round(9))).min(initial=np.ptp(sums))
    rng = np.random.default_rng(0)
    smoothed = sums + step * rng.uniform(-0.5, 0.5, len(sums))
    return np.asarray(middle + inflation**0.5 * (smoothed - middle))


@dataclass(frozen=True)
class Items:
    """Items of several subjects, with the units that they belong to.

    Attributes:
        ids: Names [N] of the items of each subject. Subjects may share items.
        units: Name [N] of the unit of each item, by subject.
        kind: Description of the units in the plural, such as "concepts".
        is_film: True if the items are clips of a film.
        strata: Name [N] of the stratum of each item, by subject, or None for
            a single stratum.
        order: Names of the clips in the order of their film.
        scope: Units that results hold for, such as "these 2 concepts", or "" for all.
        inflation: Factor of the variance of a mean, such as `FOLD_INFLATION`.
        design: Odds of the labels of `names`. None if all orders are equally likely.
    """

    ids: Sequence[Sequence[Hashable]]
    units: Sequence[Sequence[Hashable]]
    kind: str = "items"
    is_film: bool = False
    strata: Sequence[Sequence[Hashable]] | None = None
    order: Sequence[Hashable] = ()
    scope: str = ""
    inflation: float = 1.0
    design: LabelDesign | None = None

    @classmethod
    def independent(
        cls, ids: Sequence[Sequence[Hashable]], kind: str = "items"
    ) -> Self:
        """Create items that each form a unit of their own.

        Args:
            ids: Names [N] of the items of each subject.
            kind: Description of the items in the plural.
        """
        count = _count_names(ids)
        is_general = count >= MIN_UNITS_FOR_POPULATION
        return cls(ids, ids, kind, scope="" if is_general else name_few(count, kind))

    @classmethod
    def from_sizes(cls, sizes: Sequence[int]) -> Self:
        """Create independent items without names.

        Args:
            sizes: Number of items of each subject. Subjects share all items if their
                numbers are equal, and otherwise none.
        """
        ids = []
        for size in sizes:
            ids.append([(size, number) for number in range(size)])
        return cls.independent(ids)

    @property
    def are_independent(self) -> bool:
        """Return True if no subject has two items of the same unit."""
        return all(max(Counter(names).values()) == 1 for names in self.units)

    @property
    def shortage(self) -> str:
        """Return why there are too few units for an interval and a test, or "".

        An example is "3 concepts are too few".
        """
        if len(self.names) == 1:
            return "one item"
        if self.n_units == 1:
            return f"all items are of one unit ({self.kind})"
        if self.n_units < MIN_UNITS_FOR_INTERVAL:
            return f"{self.n_units} {self.kind} are too few"
        return ""

    @cached_property
    def names(self) -> list[Hashable]:
        """Return the names [I] of all items without repeats, clips in film order."""
        names = dict.fromkeys(chain.from_iterable(self.ids))
        film_names = [name for name in self.order if name in names]
        return list(dict.fromkeys(film_names + list(names)))

    def name_indices(self, ids: Sequence[Hashable]) -> Int64:
        """Return the index [N] of each of N items in `names`."""
        index_of = {name: index for index, name in enumerate(self.names)}
        return np.array([index_of[name] for name in ids], np.int64)

    @cached_property
    def unit_indices(self) -> list[Int64]:
        """Return the index [N] of each item's unit, by subject."""
        return number_names(self.units)

    @cached_property
    def stratum_of_unit(self) -> Int64:
        """Return the index [U] of each unit's stratum, which is 0 without strata."""
        strata = np.zeros(self.n_units, np.int64)
        if self.strata is not None:
            stratum_indices = number_names(self.strata)
            for units, indices in zip(self.unit_indices, stratum_indices, strict=True):
                strata[units] = indices
        return strata

    @cached_property
    def n_units(self) -> int:
        """Return the number of different units, over all subjects."""
        return 1 + max(int(indices.max()) for indices in self.unit_indices)

    def select(self, is_selected: Sequence[Bool]) -> Self:
        """Select items of each subject, with their units.

        Args:
            is_selected: Mask [N] of the items of each subject. A subject without any
                selected item is left out.
        """
        ids = []
        units = []
        strata = []
        for subject, mask in enumerate(is_selected):
            if not mask.any():
                continue
            ids.append(list(compress(self.ids[subject], mask)))
            units.append(list(compress(self.units[subject], mask)))
            if self.strata is not None:
                strata.append(list(compress(self.strata[subject], mask)))
        return replace(self, ids=ids, units=units, strata=strata or None)

    @property
    def problem(self) -> str:
        """Reason why labels cannot be exchanged at all, or ""."""
        return self.design.problem if self.design else ""

    @cached_property
    def _viewers(self) -> list[int]:
        """The subjects who saw each of the I `names`, as the bits of a number."""
        viewers = Counter[Hashable]()
        for subject, ids in enumerate(self.ids):
            for name in ids:
                viewers[name] |= 1 << subject
        return [viewers[name] for name in self.names]

    @cached_property
    def exchange(self) -> LabelDesign:
        """Odds of the labels of `names`, between items that the same subjects saw."""
        (groups,) = number_names([self._viewers])
        labels = np.arange(len(self.names))
        return (self.design or LabelDesign.free(labels, 0 * labels)).within(groups)

    def draw_permutations(self, draws: int, seed: int) -> Array:
        """Permute the labels of items, in the same way for all subjects.

        - Clips of a film are shifted along the film, and from its end to its start.
        - If the design is known and tells labels, or items are independent, items
          exchange them with its odds.
        - Otherwise, whole units of a stratum are exchanged, and items within units, if
          the same subjects saw them.

        Args:
            draws: Largest number K of permutations.
            seed: Seed of the K random permutations, if more than K exist.

        Returns:
            Permutations [K, I] of the I `names`: the index of the name whose label each
            name gets. There are no rows if labels cannot be exchanged.
        """
        if self.problem:
            return np.empty((0, len(self.names)), np.int64)
        if self.is_film:
            return _shift(len(self.names), draws, seed)
        design = self.design
        if design is not None and (
            design.telling or design.whole or self.are_independent
        ):
            return self.exchange.draw_orders(draws, seed)
        orders: Array
        count = len(self.names)
        # Largest number of values in an array of permutations that is cached. As 16-bit
        # integers they take 32 MB.
        max_cached_numbers = 2**24
        if draws * count <= max_cached_numbers:
            orders = _permute_cached(self._exchange_classes, count, draws, seed)
        else:
            orders = _permute(self._exchange_classes, count, draws, seed)
        orders.setflags(write=False)  # later calls get the same array
        return orders

    def permute(self, seed: int) -> list[Int64]:
        """Draw a random permutation of the labels, if they can be exchanged.

        Returns:
            Index [N], by subject, of the item whose label each item gets.
        """
        orders = self.draw_permutations(1, seed)
        identity = np.arange(len(self.names))
        return self.apply_permutation(orders[0] if len(orders) else identity)

    def apply_permutation(self, order: Array) -> list[Int64]:
        """Apply a permutation of all names to the items of each subject.

        Args:
            order: Permutation [I] of the I `names`, a row of `draw_permutations`.

        Returns:
            Index [N], by subject, of the item whose label each item gets.
        """
        orders = []
        for ids in self.ids:
            name_indices = self.name_indices(ids)
            if self.is_film:
                # a subject who lacks clips is shifted by the same share of the film
                film_share = int(order[0]) / len(order)
                film_order = np.argsort(name_indices)
                shift = round(film_share * len(ids))
                subject_order = np.empty_like(film_order)
                subject_order[film_order] = np.roll(film_order, -shift)
            else:
                item_of_name = np.empty(len(order), np.int64)
                item_of_name[name_indices] = np.arange(len(ids))
                subject_order = item_of_name[order[name_indices]]
            orders.append(subject_order)
        return orders

    @cached_property
    def _exchange_classes(self) -> tuple[ExchangeClass, ...]:
        """Return the classes of units whose labels may be exchanged with each other.

        The units of a class have equal strata, and items with equal subjects.
        """
        unit_of: dict[Hashable, int] = {}
        for ids, units in zip(self.ids, self.unit_indices, strict=True):
            unit_of.update(zip(ids, units.tolist(), strict=True))

        # items with equal keys may be exchanged
        item_keys = self._viewers
        members = defaultdict[int, list[int]](list)
        for index in sorted(range(len(item_keys)), key=item_keys.__getitem__):
            members[unit_of[self.names[index]]].append(index)

        # group units by their stratum and the keys of their items
        classes = defaultdict[Any, list[tuple[int, ...]]](list)
        for unit, indices in members.items():
            composition = tuple(item_keys[index] for index in indices)
            stratum = int(self.stratum_of_unit[unit])
            classes[stratum, composition].append(tuple(indices))

        # items with equal keys form a group
        exchange_classes = []
        for (_, composition), unit_members in classes.items():
            group_sizes = tuple(Counter(composition).values())
            exchange_classes.append(ExchangeClass(tuple(unit_members), group_sizes))
        return tuple(exchange_classes)


def _shift(count: int, draws: int, seed: int) -> Array:
    """Shift the clips of a film, and move clips beyond the end to the start.

    Returns:
        Clip numbers [K, count] of all shifts, or of `draws` random shifts if there are
        more. The original order is left out.
    """
    clips = np.arange(count, dtype=np.min_scalar_type(count))
    shifts = np.arange(1, count)
    if len(shifts) > draws:
        shifts = np.random.default_rng(seed).choice(shifts, draws, replace=False)
    shifted: Array = sliding_window_view(np.tile(clips, 2), count)[shifts]
    return shifted


def _permute(
    classes: Sequence[ExchangeClass], count: int, draws: int, seed: int
) -> Array:
    """Permute the labels of items, by exchanging units and the items inside units.

    Args:
        classes: Classes of units that may be exchanged with each other.
        count: Number of items.
        draws: Largest number of permutations.
        seed: Seed of random permutations.

    Returns:
        Permutations [K, count] of the item indices: all possible permutations except
        the identity, or `draws` random permutations if this number exceeds `draws`.
    """
    identity = np.arange(count, dtype=np.min_scalar_type(count))
    total = 1
    for members, group_sizes in classes:
        unit_orders = math.factorial(len(members))
        orders_within_unit = math.prod(map(math.factorial, group_sizes))
        total *= unit_orders * orders_within_unit ** len(members)

    if total - 1 > draws:
        rng = np.random.default_rng(seed)
        orders = np.tile(identity, (draws, 1))
        for members, group_sizes in classes:
            _draw_orders(orders, identity[np.array(members)], group_sizes, rng)
        return orders

    orders = np.tile(identity, (total, 1))
    orders_of_classes = [_list_orders(exchange_class) for exchange_class in classes]
    for order, combination in zip(orders, product(*orders_of_classes), strict=True):
        for (members, _), permuted in zip(classes, combination, strict=True):
            order[np.array(members)] = permuted
    permuted_orders: Array = orders[(orders != identity).any(1)]
    return permuted_orders


_permute_cached = lru_cache(maxsize=4)(_permute)


def _list_orders(exchange_class: ExchangeClass) -> list[Int64]:
    """List all permutations [g, m] of whole units, and of items within groups."""
    members, group_sizes = exchange_class
    ends = np.cumsum(group_sizes)
    orders = []
    for permuted_units in permutations(members):
        group_orders = []
        for unit in permuted_units:
            for size, end in zip(group_sizes, ends, strict=True):
                group_orders.append(permutations(unit[end - size : end]))
        for order in product(*group_orders):
            orders.append(np.concatenate(order).reshape(len(members), -1))
    return orders


def _draw_orders(
    orders: Array, members: Array, group_sizes: Sequence[int], rng: np.random.Generator
) -> None:
    """Draw random permutations of the members of a class of units, in place.

    Args:
        orders: Permutations [K, I] of all items. The columns of the members change.
        members: Indices [g, m] of the m items of each of the g units.
        group_sizes: Number of items in each group of a unit.
    """
    # Number of random values that are drawn in one step, which bounds the memory.
    numbers_per_batch = 2**22
    batch_size = max(1, numbers_per_batch // members.size)
    units = np.arange(len(members), dtype=members.dtype)
    for start in range(0, len(orders), batch_size):
        batch = orders[start : start + batch_size]
        unit_orders = rng.permuted(np.tile(units, (len(batch), 1)), axis=1)
        batch[:, members] = members[unit_orders]

    # exchange items within their group
    start = 0
    for size in group_sizes:
        if size > 1:
            group = members[:, start : start + size]
            orders[:, group] = rng.permuted(orders[:, group], axis=2)
        start += size


def number_names(names: Sequence[Sequence[Hashable]]) -> list[Int64]:
    """Number names from 0, in the order in which they first appear in any of the lists.

    Args:
        names: Lists [N] of names.

    Returns:
        Numbers [N] of the names of each list.
    """
    unique_names = dict.fromkeys(chain.from_iterable(names))
    number_of = {name: number for number, name in enumerate(unique_names)}
    return [np.array([number_of[name] for name in group], np.int64) for group in names]


def _count_names(names: Sequence[Sequence[Hashable]]) -> int:
    """Count the different names in several lists."""
    return len(set(chain.from_iterable(names)))


def look_up_names(
    table: Mapping[Any, Hashable], ids: Sequence[Sequence[Hashable]]
) -> list[list[Hashable]]:
    """Look up the names [N] of the items of each subject in a table.

    Args:
        table: Values by name, such as the concept of each picture.
        ids: Names [N] of the items of each subject.

    Returns:
        The value [N] of each item, by subject, or its name if the table lacks it.
    """
    values = []
    for names in ids:
        values.append([table.get(name, name) for name in names])
    return values


def list_strata(
    ids: Sequence[Sequence[Hashable]], units: Sequence[Sequence[Hashable]]
) -> list[list[Hashable]]:
    """List the strata of items: a unit of several items, or all units of a single item.

    Args:
        ids: Names [N] of the items of each subject.
        units: Name [N] of the unit of each item, by subject.

    Returns:
        Name [N] of the stratum of each item, by subject: the name of its unit, or None.
    """
    unit_of: dict[Hashable, Hashable] = {}
    for subject_ids, subject_units in zip(ids, units, strict=True):
        unit_of.update(zip(subject_ids, subject_units, strict=True))
    stratum_of: dict[Hashable, Hashable] = {}
    for unit, size in Counter(unit_of.values()).items():
        stratum_of[unit] = unit if size > 1 else None
    return look_up_names(stratum_of, units)


def name_few(count: int, kind: str) -> str:
    """Name a few units that results hold for: "these 2 concepts" or "this concept".

    Args:
        count: Number of units.
        kind: Description of the units in the plural.
    """
    return f"these {count} {kind}" if count > 1 else f"this {kind.removesuffix('s')}"


def count_few(scope: str) -> str:
    """Turn a text of `name_few` into a count, such as "2 concepts" or "1 concept"."""
    return scope.removeprefix("these ").replace("this ", "1 ")


@dataclass(frozen=True)
class StimulusGrouping:
    """Rules that group the stimuli or trials of a data set into units.

    Attributes:
        criterion: Property that makes stimuli alike.
        concept_of: Concept, or film, of each stimulus by name, in the order of the
            film. A stimulus without an entry is a concept of its own.
        medium: Description of the stimuli in the singular, such as "picture".
        group_of: Run or session of each held-out trial by name. Empty if whole pictures
            are held out.
        group_kind: "runs", "sessions" or "trials", if they are held out, else "".
        block_of: Block of successive trials with equal labels, by name of the trial.
        has_folds: True if models of several folds tested the items.
    """

    criterion: GroupingCriterion = "concept"
    concept_of: Mapping[Any, str] = field(default_factory=dict)
    medium: str = "picture"
    group_of: Mapping[Any, Hashable] = field(default_factory=dict)
    group_kind: str = ""
    block_of: Mapping[Any, Hashable] = field(default_factory=dict)
    has_folds: bool = False

    def make_items(self, ids: Sequence[Sequence[Hashable]]) -> Items:
        """Group the stimuli or trials that are tested into units.

        Args:
            ids: Names [N] of the stimuli or trials of each subject.
        """
        if self.group_of:
            items = self._group_trials(ids)
        elif self.criterion == "neighbours":
            items = self._group_clips(ids)
        else:
            items = self._group_pictures(ids)
        return replace(items, inflation=FOLD_INFLATION) if self.has_folds else items

    def _group_pictures(self, ids: Sequence[Sequence[Hashable]]) -> Items:
        """Group pictures by the concept that they show.

        - Each picture shows another concept: the pictures are the units.
        - `MIN_UNITS_FOR_POPULATION` concepts or more: the concepts are the units.
        - Fewer concepts: the pictures are the units, and the concepts the strata.
        """
        concepts = look_up_names(self.concept_of, ids)
        n_concepts = _count_names(concepts)
        if n_concepts == _count_names(ids):
            return Items.independent(ids, f"{self.medium}s")
        if n_concepts >= MIN_UNITS_FOR_POPULATION:
            return Items(ids, concepts, "concepts")

        scope = name_few(n_concepts, "concepts")
        kind = f"{self.medium}s within {count_few(scope)}"
        return Items(ids, ids, kind, strata=list_strata(ids, concepts), scope=scope)

    def _group_trials(self, ids: Sequence[Sequence[Hashable]]) -> Items:
        """Group held-out trials by run or session.

        - Single trials are held out: each trial is a unit.
        - `MIN_UNITS_FOR_POPULATION` runs or sessions or more: these are the units.
        - Fewer runs or sessions: these are the strata, and blocks of trials the units.
        """
        if self.group_kind == "trials":
            return Items.independent(ids, "trials")
        groups = []
        for names in ids:
            groups.append([self.group_of[name] for name in names])
        n_groups = _count_names(groups)
        if n_groups >= MIN_UNITS_FOR_POPULATION:
            return Items(ids, groups, self.group_kind)

        blocks = look_up_names(self.block_of, ids)
        block_kind = "blocks of trials"
        if _count_names(blocks) == sum(map(len, ids)):
            block_kind = "trials"
        scope = name_few(n_groups, self.group_kind)
        kind = f"{block_kind} within {count_few(scope)}"
        return Items(ids, blocks, kind, strata=groups, scope=scope)

    def _group_clips(self, ids: Sequence[Sequence[Hashable]]) -> Items:
        """Group clips by film, or into blocks of neighbouring clips.

        - Clips share `MIN_UNITS_FOR_POPULATION` films or more: the films are the units.
        - Too few clips for `MIN_UNITS_FOR_INTERVAL` blocks of 60:
          all clips form one unit.
        - Otherwise: at most 15 blocks are the units.
        """
        n_clips = _count_names(ids)
        films = look_up_names(self.concept_of, ids)
        n_films = _count_names(films)
        order = list(self.concept_of)
        has_shared_films = n_films < n_clips
        if has_shared_films and n_films >= MIN_UNITS_FOR_POPULATION:
            return Items(ids, films, "films", is_film=True, order=order)
        scope = name_few(n_films, "films") if has_shared_films else "these films"
        clips = Items(ids, ids, is_film=True, order=order, scope=scope)

        # Largest number of blocks into which the clips of a split are cut. With 10 to
        # 30 blocks, intervals of a mean have their nominal coverage (Schmeiser 1982,
        # Batch size effects in the analysis of simulation output, where blocks are
        # called batches).
        max_film_blocks = 15
        # Smallest number of clips in a block. In the data set cc2017
        # they last 120 s, and neighbouring blocks of this length
        # hardly correlate (`benchmarks/simulated_statistics`).
        min_clips_per_block = 60
        # cut the sequence of clips into blocks of about equal size
        n_blocks = min(max_film_blocks, n_clips // min_clips_per_block)
        if n_blocks < MIN_UNITS_FOR_INTERVAL:
            n_blocks = 1
            min_clips = MIN_UNITS_FOR_INTERVAL * min_clips_per_block
            kind = f"a block of fewer than {min_clips} neighbouring {self.medium}s"
        else:
            kind = f"blocks of {n_clips // n_blocks} neighbouring {self.medium}s"
        block_of = {
            name: position * n_blocks // n_clips
            for position, name in enumerate(clips.names)
        }
        return replace(clips, units=look_up_names(block_of, ids), kind=kind)


def describe_claims(items: Items, subjects: int, scope: str = "") -> str:
    """Describe a design, and the stimuli and people that its results hold for.

    An example is "40 pictures, 2 subjects: results will generalise to other pictures,
    but only to these 2 people".

    Args:
        items: Items that will be tested, with their units.
        subjects: Number of subjects, or 0 if nobody was recorded yet.
        scope: Concepts or people to which a test limited the result, or "".
    """
    design = count_few(items.scope) if items.scope else f"{items.n_units} {items.kind}"
    if subjects:
        design += f", {subjects} subject{'' if subjects == 1 else 's'}"

    # few stimuli or people say nothing about others
    others = []
    limits = []
    if items.scope:
        limits.append(items.scope)
    elif "concepts" in scope:
        limits.append(scope.partition(" in ")[0])
    else:
        # results of "blocks of trials" generalise to "other trials"
        others.append(f"other {items.kind.rpartition(' of ')[2]}")
    if subjects >= MIN_SUBJECTS_FOR_POPULATION and "people" not in scope:
        others.append("other people")
    elif subjects:
        limits.append(f"these {subjects} people" if subjects > 1 else "this person")

    if not others:
        return f"{design}: results will hold only for {' and '.join(limits)}"
    claims = f"{design}: results will generalise to {' and '.join(others)}"
    return f"{claims}, but only to {' and '.join(limits)}" if limits else claims
