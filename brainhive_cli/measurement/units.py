"""Units of items, over which intervals are computed and labels are exchanged.

An item is a stimulus or a trial that is tested. Items that are alike, such as the
pictures of a concept, are not independent, and form one unit. A stratum is a group of
units that are compared only with each other. A part is a stretch of the recording in
which the labels were interleaved in time.
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

from brainhive_cli.core.arrays import Array, Bool, Float64, Int64

GroupingCriterion = Literal["concept", "neighbours"]
"""Property that makes stimuli of a data set alike: they show the same concept, or they
are neighbouring clips of a film.
"""
MAX_CACHED_NUMBERS = 2**24
"""Largest number of values of permutations that are kept for the next call. They take
32 MB.
"""
NUMBERS_PER_BATCH = 2**22
"""Number of random values that are drawn in one step, which bounds the memory."""
MIN_UNITS_FOR_POPULATION = 10
"""Number of units from which results are about units in general. With fewer units they
are about these units only.
"""
MIN_UNITS_FOR_INTERVAL = 6
"""Number of units from which intervals are computed. With five units, the two-sided p
value of a sign or rank test cannot reach .05.
"""
MAX_FILM_BLOCKS = 15
"""Largest number of blocks into which the clips of a split are cut. With 10 to 30
batches, intervals of a mean have their nominal coverage (Schmeiser 1982, Batch size
effects in the analysis of simulation output).
"""
MIN_CLIPS_PER_BLOCK = 60
"""Smallest number of clips in a block, 120 s in cc2017. Neighbouring blocks of this
length hardly correlate. If neighbouring clips correlate by .9, six such blocks are
worth about twenty independent clips, and fewer blocks give intervals whose coverage is
too low (`benchmarks/simulated_statistics`).
"""
MIN_SUBJECTS_FOR_POPULATION = 5
"""Number of subjects from which results are about people in general. With fewer
subjects they are about these subjects only.
"""
FOLD_INFLATION = 1.4
"""Variance of a mean over folds, divided by its estimate from the units. It is larger
than 1 because the models of the folds share training data. 1.4 is about the largest
ratio in simulated designs (`benchmarks/simulated_statistics --only pooled_folds`). No
unbiased estimate of this ratio exists (Bengio and Grandvalet 2004).
"""


class ExchangeClass(NamedTuple):
    """Units of equal composition, whose labels may be exchanged with each other.

    Attributes:
        members: Row numbers [g, m] of the m items of each of the g units. Within a
            unit, items that the same subjects saw follow each other.
        group_sizes: Number of the m items in each such group. The labels of a group's
            items may be exchanged within the unit.
    """

    members: tuple[tuple[int, ...], ...]
    group_sizes: tuple[int, ...]


def fold_null_inflation(values: Sequence[Array], pool: float = math.inf) -> float:
    """Compute how much sharing training data widens the null distribution of a mean.

    If trial i helps to classify trial j of another fold, then j helps to classify i
    equally. For a linear margin, labels that are permuted before training therefore
    have twice the variance of labels that are permuted after training. Ranks among K
    candidates take the share r² = 3 / π · K / (K + 1) of this increase, where r is
    their correlation with the margin. Hits take at most the share of two candidates.
    Averages over seeds and other values can take all of it
    (`benchmarks/simulated_statistics --only pooled_folds equal_learners`).

    Args:
        values: Values [N] of each subject: ranks, hits, their differences, or others.
        pool: Number K of candidates of each item for ranks, 2 for hits.

    Returns:
        Variance with labels permuted before training, divided by the variance with
        labels permuted after training: 1 + r² for whole numbers, 2 for others.

    Source: Noirhomme et al. 2014, Biased binomial assessment of cross-validated
    estimation of classification accuracies (labels permuted before training).
    """
    # ranks and hits are whole numbers, averages over seeds are not
    are_whole = all((np.asarray(group) % 1 == 0).all() for group in values)
    return 1 + 3 / math.pi / (1 + 1 / pool) if are_whole else 2.0


def widen_null_distribution(sums: Float64, middle: Any, inflation: float) -> Float64:
    """Multiply the variance of a null distribution by a factor.

    Sums of a few hits take only a few values, so widening them would leave gaps. Each
    sum is first moved by a uniform random amount of at most half a step, where a step
    is the smallest distance between two sums.

    Args:
        sums: Values [K] of the null distribution.
        middle: Centre of the distribution, a number or one value [K] per sum.
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
        ids: Names [N] of the items of each subject. An item that several subjects saw
            has the same name for all of them.
        units: Name [N] of the unit of each item, by subject.
        kind: Description of the units in the plural, such as "concepts".
        is_film: True if the items are clips that follow each other in `order`.
        strata: Name [N] of the stratum of each item, by subject. Units are compared
            only within their stratum. If None, all units belong to the same stratum.
        order: Names of the clips in the order of their film. Other items follow in the
            order in which they first appear.
        scope: Description of the units that results are about, such as "these 2
            concepts". Empty if results are about units in general.
        inflation: Variance of a mean divided by its estimate from the units. It is
            larger than 1 for folds that share training data.
        parts: Part of the recording that each item belongs to, by name. Labels are
            exchanged only within parts. If empty, all items belong to the same part.
        problem: Reason why labels cannot be exchanged at all. Empty if they can.
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
        """Create items that each form a unit of their own.

        Args:
            ids: Names [N] of the items of each subject.
            kind: Description of the items in the plural.
        """
        count = len(set(chain.from_iterable(ids)))
        if count >= MIN_UNITS_FOR_POPULATION:
            scope = ""
        elif count > 1:
            scope = f"these {count} {kind}"
        else:
            scope = f"this {kind.removesuffix('s')}"
        return cls(ids, ids, kind, scope=scope)

    @classmethod
    def from_sizes(cls, sizes: Sequence[int]) -> Self:
        """Create independent items without names.

        Subjects with the same number of items share all of them. Subjects with
        different numbers share no items.

        Args:
            sizes: Number of items of each subject.
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
        """Return the reason why there is no interval and no test of a difference.

        The reason is empty if there are enough units.
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
        """Return the names [I] of all items without repeats, films in their order."""
        names = dict.fromkeys(chain.from_iterable(self.ids))
        film_names = [name for name in self.order if name in names]
        return list(dict.fromkeys(film_names + list(names)))

    @cached_property
    def unit_indices(self) -> list[Int64]:
        """Return the index [N] of each item's unit, by subject.

        Units are numbered over all subjects.
        """
        return number_names(self.units)

    @cached_property
    def stratum_of_unit(self) -> Int64:
        """Return the index [U] of each unit's stratum."""
        strata = np.zeros(self.n_units, np.int64)
        if self.strata is not None:
            stratum_indices = number_names(self.strata)
            for units, indices in zip(self.unit_indices, stratum_indices, strict=True):
                strata[units] = indices
        return strata

    @cached_property
    def n_units(self) -> int:
        """Return the number of units over all subjects."""
        return 1 + max(int(indices.max()) for indices in self.unit_indices)

    def select(self, is_selected: Sequence[Bool]) -> Self:
        """Select some items. Their units stay the same.

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
        return replace(
            self, ids=ids, units=units, strata=None if self.strata is None else strata
        )

    def exchange_within(
        self,
        parts: Mapping[Hashable, Hashable],
        concept_parts: Mapping[Hashable, Hashable],
        problem: str = "",
    ) -> Self:
        """Restrict the exchange of labels to parts of the recording.

        If concepts were shown in blocks, only pictures of the same concept are
        exchanged.

        Args:
            parts: Part, by name, in which the pictures of a concept were interleaved.
            concept_parts: Part, by name, in which the concepts were interleaved. Empty
                if concepts were shown in blocks.
            problem: Reason why pictures cannot be exchanged at all. Empty if they can.
        """
        # independent pictures and clips are not grouped by concept
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
        """Permute the labels of exchangeable items, in the same way for all subjects.

        Labels are exchanged only between items of the same stratum and part that the
        same subjects saw. If each item is a unit, these exchanges are free. Otherwise
        items are exchanged within their unit, and units of equal composition are
        exchanged as a whole.

        Clips of a film are shifted along the film, around its end. Any other order
        would give clips new neighbours, but neighbouring clips are alike in signals and
        in embeddings.

        Args:
            draws: Largest number K of permutations.
            seed: Seed of the random permutations. They are drawn only if more than K
                permutations exist.

        Returns:
            Permutations [K, I] without the identity. Row k holds for each name in
            `names` the index of the name whose label it gets. The array has no rows if
            labels cannot be exchanged. It is read-only and has the smallest integer
            type that can hold I.
        """
        count = len(self.names)
        if self.problem:
            return np.empty((0, count), np.int64)
        orders: Array
        if self.is_film:
            orders = _shift(count, draws, seed)
        elif draws * count <= MAX_CACHED_NUMBERS:
            orders = _permute_cached(self._exchange_classes, count, draws, seed)
        else:
            orders = _permute(self._exchange_classes, count, draws, seed)
        orders.setflags(write=False)  # later calls get the same array
        return orders

    def permute(self, seed: int) -> list[Int64]:
        """Draw a permutation of the labels as `draw_permutations` does.

        Returns:
            Index [N], by subject, of the item whose label each item gets.
        """
        orders = self.draw_permutations(1, seed)
        identity = np.arange(len(self.names))
        return self.apply_permutation(orders[0] if len(orders) else identity)

    def apply_permutation(self, order: Array) -> list[Int64]:
        """Apply a permutation of all names to the items of each subject.

        Args:
            order: Permutation [I] of `names`, a row of `draw_permutations`.

        Returns:
            Index [N], by subject, of the item whose label each item gets.
        """
        index_of = {name: index for index, name in enumerate(self.names)}
        orders = []
        for ids in self.ids:
            name_indices = np.array([index_of[name] for name in ids], np.int64)
            if self.is_film:
                # a subject who lacks clips is shifted by the same share of the film
                film_share = int(order[0]) / len(order)
                film_order = np.argsort(name_indices)
                shifted = np.empty_like(film_order)
                shifted[film_order] = np.roll(
                    film_order, -round(film_share * len(film_order))
                )
                orders.append(shifted)
            else:
                item_of = {name: index for index, name in enumerate(ids)}
                labels = [self.names[index] for index in order[name_indices]]
                orders.append(np.array([item_of[name] for name in labels], np.int64))
        return orders

    @cached_property
    def _exchange_classes(self) -> tuple[ExchangeClass, ...]:
        """Return the classes of units of equal composition."""
        # unit of each item, and a bit mask of the subjects who saw it
        index_of = {name: index for index, name in enumerate(self.names)}
        unit_of = [0] * len(index_of)
        subjects_of = [0] * len(index_of)
        for subject, ids in enumerate(self.ids):
            for name, unit in zip(
                ids, self.unit_indices[subject].tolist(), strict=True
            ):
                unit_of[index_of[name]] = unit
                subjects_of[index_of[name]] |= 1 << subject

        # items may be exchanged if their subjects and their part are equal
        part_names = dict.fromkeys(self.parts.values())
        part_indices = {name: index for index, name in enumerate(part_names)}
        item_keys = []
        for name, index in index_of.items():
            part_index = part_indices.get(self.parts.get(name), 0)
            item_keys.append((subjects_of[index], part_index))

        # units may be exchanged if their strata and the keys of their items are equal
        members = defaultdict[int, list[int]](list)
        for index in sorted(range(len(item_keys)), key=item_keys.__getitem__):
            members[unit_of[index]].append(index)
        classes = defaultdict[Any, list[tuple[int, ...]]](list)
        for unit, indices in members.items():
            composition = tuple(item_keys[index] for index in indices)
            stratum = int(self.stratum_of_unit[unit])
            classes[stratum, composition].append(tuple(indices))

        exchange_classes = []
        for (_, composition), unit_members in classes.items():
            group_sizes = tuple(Counter(composition).values())
            exchange_classes.append(ExchangeClass(tuple(unit_members), group_sizes))
        return tuple(exchange_classes)


def _shift(count: int, draws: int, seed: int) -> Array:
    """Shift the clips of a film around its end.

    Args:
        count: Number I of clips.
        draws: Largest number K of shifts.
        seed: Seed of the random shifts, if there are more than K.

    Returns:
        The shifted clip numbers [K, I].
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
    """Permute the items within classes of units.

    Args:
        classes: Classes of units whose labels may be exchanged.
        count: Number I of items.
        draws: Largest number K of permutations.
        seed: Seed of the random permutations, if there are more than K.

    Returns:
        Permutations [K, I]: all of them but the identity, or K random ones.
    """
    # each class has g! orders of its units, and n! orders of each group of each unit
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

    # combine the permutations of all classes, and leave out the identity
    orders = np.tile(identity, (total, 1))
    orders_of_classes = [_list_orders(exchange_class) for exchange_class in classes]
    for order, combination in zip(orders, product(*orders_of_classes), strict=True):
        for (members, _), permuted in zip(classes, combination, strict=True):
            order[np.array(members)] = permuted
    permuted_orders: Array = orders[(orders != identity).any(1)]
    return permuted_orders


_permute_cached = lru_cache(maxsize=4)(_permute)


def _list_orders(exchange_class: ExchangeClass) -> list[Int64]:
    """List all permutations [g, m] of the members of a class of units."""
    members, group_sizes = exchange_class
    shape = np.shape(members)
    ends = np.cumsum(group_sizes)
    orders = []
    for permuted_units in permutations(members):
        # groups of all units, in whose orders the items of each group are permuted
        groups = []
        for unit in permuted_units:
            for size, end in zip(group_sizes, ends, strict=True):
                groups.append(unit[end - size : end])
        group_orders = [permutations(group) for group in groups]
        for order in product(*group_orders):
            orders.append(np.concatenate(order).reshape(shape))
    return orders


def _draw_orders(
    orders: Array, members: Array, group_sizes: Sequence[int], rng: np.random.Generator
) -> None:
    """Draw random permutations of the members of a class of units, in place.

    Args:
        orders: Permutations [K, I] of all items. The columns of the members change.
        members: Indices [g, m] of the items of each unit.
        group_sizes: Sizes of the groups of a unit's items, as in `ExchangeClass`.
        rng: Random generator.
    """
    # exchange whole units, for a limited number of permutations at a time
    batch_size = max(1, NUMBERS_PER_BATCH // members.size)
    units = np.arange(len(members), dtype=members.dtype)
    for start in range(0, len(orders), batch_size):
        batch = orders[start : start + batch_size]
        unit_orders = rng.permuted(np.tile(units, (len(batch), 1)), axis=1)
        batch[:, members] = members[unit_orders]

    # exchange items within a unit that the same subjects saw in the same part
    start = 0
    for size in group_sizes:
        if size > 1:
            group = members[:, start : start + size]
            orders[:, group] = rng.permuted(orders[:, group], axis=2)
        start += size


def number_names(names: Sequence[Sequence[Hashable]]) -> list[Int64]:
    """Number names in the order in which they first appear in any of the lists.

    Args:
        names: Lists [N] of names, which may repeat.

    Returns:
        Numbers [N] of the names of each list. Equal names have equal numbers.
    """
    unique_names = dict.fromkeys(chain.from_iterable(names))
    number_of = {name: number for number, name in enumerate(unique_names)}
    return [np.array([number_of[name] for name in group], np.int64) for group in names]


@dataclass(frozen=True)
class StimulusGrouping:
    """Rules by which the stimuli or trials of a data set are grouped into units.

    Attributes:
        criterion: Property that makes stimuli alike.
        concept_of: Concept, or film, of each stimulus by name. The keys are in the
            order of the data set, which is the order of a film. A stimulus without an
            entry is a concept of its own.
        medium: Description of the stimuli in the singular, such as "picture".
        group_of: Run or session of each held-out trial by name. Empty if whole pictures
            are held out.
        group_kind: Description of these groups in the plural: "runs", "sessions" or
            "trials".
        block_of: Block of each held-out trial by name. A block is a series of trials
            with the same label.
        has_folds: True if the items were tested by models of several folds, which share
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
        """Group stimuli or trials into units.

        - Pictures of ten concepts or more: the concepts are the units.
        - Pictures of fewer concepts: each picture is a unit and each concept a stratum.
          Concepts with a single picture form one stratum together. Results are about
          these concepts only.
        - Clips of ten films or more: the films are the units.
        - Clips of fewer films: blocks of neighbouring clips are the units.
        - Held-out trials: see `_group_trials`.

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

    def _name_concepts(self, ids: Sequence[Sequence[Hashable]]) -> list[list[Hashable]]:
        """Return the concept or film [N] of each item, by subject."""
        concepts = []
        for names in ids:
            concepts.append([self.concept_of.get(name, name) for name in names])
        return concepts

    def _group_pictures(self, ids: Sequence[Sequence[Hashable]]) -> Items:
        """Group pictures by the concept that they show."""
        names = list(dict.fromkeys(chain.from_iterable(ids)))
        concepts = self._name_concepts(ids)
        (concepts_of_names,) = self._name_concepts([names])
        n_pictures = Counter(concepts_of_names)
        if len(n_pictures) == len(names):
            return Items.independent(ids, f"{self.medium}s")
        if len(n_pictures) >= MIN_UNITS_FOR_POPULATION:
            return Items(ids, concepts, "concepts")

        # few concepts are strata, and concepts with a single picture share a stratum
        strata: list[list[Hashable]] = []
        for subject_concepts in concepts:
            subject_strata: list[Hashable] = []
            for concept in subject_concepts:
                subject_strata.append(concept if n_pictures[concept] > 1 else None)
            strata.append(subject_strata)
        if len(n_pictures) == 1:
            kind = f"{self.medium}s within 1 concept"
            scope = "this concept"
        else:
            kind = f"{self.medium}s within {len(n_pictures)} concepts"
            scope = f"these {len(n_pictures)} concepts"
        return Items(ids, ids, kind, strata=strata, scope=scope)

    def _group_trials(self, ids: Sequence[Sequence[Hashable]]) -> Items:
        """Group held-out trials by run or session.

        With ten runs or sessions or more, these are the units. With fewer, they are
        strata, their blocks of trials are the units, and results are about these runs
        or sessions only. If single trials are held out, each trial is a unit.
        """
        if self.group_kind == "trials":
            return Items.independent(ids, "trials")
        groups = []
        blocks = []
        for names in ids:
            groups.append([self.group_of[name] for name in names])
            blocks.append([self.block_of.get(name, name) for name in names])
        n_groups = len(set(chain.from_iterable(groups)))
        if n_groups >= MIN_UNITS_FOR_POPULATION:
            return Items(ids, groups, self.group_kind)

        # blocks of a single trial are called trials
        n_blocks = len(set(chain.from_iterable(blocks)))
        n_trials = sum(len(names) for names in ids)
        block_kind = "trials" if n_blocks == n_trials else "blocks of trials"
        if n_groups == 1:
            group_kind = self.group_kind.removesuffix("s")
            scope = f"this {group_kind}"
        else:
            group_kind = self.group_kind
            scope = f"these {n_groups} {group_kind}"
        kind = f"{block_kind} within {n_groups} {group_kind}"
        return Items(ids, blocks, kind, strata=groups, scope=scope)

    def _group_clips(self, ids: Sequence[Sequence[Hashable]]) -> Items:
        """Group clips by film, or into blocks of neighbouring clips.

        Films are unknown if each clip has a film of its own. With too few clips for
        `MIN_UNITS_FOR_INTERVAL` blocks, all clips form one block.
        """
        n_clips = len(set(chain.from_iterable(ids)))
        films = self._name_concepts(ids)
        n_films = len(set(chain.from_iterable(films)))
        order = list(self.concept_of)
        if n_films == n_clips:
            scope = "these films"
        elif n_films >= MIN_UNITS_FOR_POPULATION:
            return Items(ids, films, "films", is_film=True, order=order)
        else:
            scope = "this film" if n_films == 1 else f"these {n_films} films"
        clips = Items(ids, ids, is_film=True, order=order, scope=scope)

        # cut the film into blocks of about equal size
        n_blocks = min(MAX_FILM_BLOCKS, n_clips // MIN_CLIPS_PER_BLOCK)
        if n_blocks < MIN_UNITS_FOR_INTERVAL:
            n_blocks = 1
            min_clips = MIN_UNITS_FOR_INTERVAL * MIN_CLIPS_PER_BLOCK
            kind = f"a block of fewer than {min_clips} neighbouring {self.medium}s"
        else:
            kind = f"blocks of {n_clips // n_blocks} neighbouring {self.medium}s"
        block_of = {}
        for position, name in enumerate(clips.names):
            block_of[name] = position * n_blocks // n_clips
        blocks = []
        for names in ids:
            blocks.append([block_of[name] for name in names])
        return replace(clips, units=blocks, kind=kind)


def describe_claims(items: Items, subjects: int) -> str:
    """Describe the population that results of a design are about.

    Args:
        items: Items that will be tested.
        subjects: Number of subjects. 0 if nobody was recorded yet.

    Returns:
        A description, such as "2 concepts, 1 subject: results hold for these 2 concepts
        and this subject".
    """
    if items.scope:
        design = items.scope.removeprefix("these ").replace("this ", "1 ")
        population = items.scope
    else:
        design = f"{items.n_units} {items.kind}"
        # for blocks of trials: "trials in general"
        population = f"{items.kind.rpartition(' of ')[2]} in general"
    if not subjects:
        return f"{design}: results hold for {population}"

    if subjects >= MIN_SUBJECTS_FOR_POPULATION:
        people = "people in general"
    else:
        people = "this subject" if subjects == 1 else f"these {subjects} subjects"
    plural = "" if subjects == 1 else "s"
    return (
        f"{design}, {subjects} subject{plural}: results hold for {population} and "
        f"{people}"
    )
