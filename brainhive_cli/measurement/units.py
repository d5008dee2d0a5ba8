"""Items that are alike: intervals resample them together, and permutations move them together."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, compress
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

AlikeBy = Literal["concept", "neighbours"]
"""What the stimuli of a data set are alike by: what they show, or that they follow each other in a film."""
BLOCKS = 10, 20
"""Fewest and most blocks into which the clips of a split are cut: 60 clips of cc2017, two minutes, are one.
Means over 10 to 30 batches of a series give intervals that hold (Schmeiser 1982, Batch size effects in the
analysis of simulation output, Operations Research 30)."""
LONG_BLOCK = 24
"""Clips of a block, 48 s of cc2017, that are worth having fewer blocks for."""


@dataclass(frozen=True)
class Items:
    """The items of several subjects, and which of them are alike.

    Attributes:
        ids: Name of each item, one list a subject; an item that several subjects saw has one name.
        units: Name of the unit that each item belongs to, in the same order.
        kind: What the units are, in the plural.
        is_film: Whether items follow each other, in the order in which their names first appear.
    """

    ids: Sequence[Sequence[Hashable]]
    units: Sequence[Sequence[Hashable]]
    kind: str = "items"
    is_film: bool = False

    @classmethod
    def independent(cls, ids: Sequence[Sequence[Hashable]], kind: str = "items") -> Self:
        """Take each item for a unit of its own."""
        return cls(ids, ids, kind)

    @classmethod
    def unnamed(cls, sizes: Sequence[int]) -> Self:
        """Number independent items: subjects with as many have the same ones, others have none in common."""
        return cls.independent([[(size, n) for n in range(size)] for size in sizes])

    @property
    def are_independent(self) -> bool:
        """Whether no two items are of one unit, but for those of several subjects."""
        return all(max(Counter(names).values()) == 1 for names in self.units)

    @property
    def size(self) -> int:
        """Count the items of all subjects."""
        return len(set(chain.from_iterable(self.ids)))

    @cached_property
    def numbers(self) -> list[NDArray[np.int64]]:
        """Number of each item's unit among those of all subjects, [N] by subject."""
        return _numbered(self.units)

    @cached_property
    def _places(self) -> list[NDArray[np.int64]]:
        return _numbered(self.ids)

    @property
    def count(self) -> int:
        """Count the units of all subjects."""
        return 1 + max(int(number.max()) for number in self.numbers)

    def means(self, groups: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Average values [N] by subject over the items and subjects of each unit: [units]."""
        number, values = np.concatenate(self.numbers), np.concatenate(groups)
        means: NDArray[np.float64] = np.bincount(number, values) / np.bincount(number)
        return means

    def where(self, is_chosen: Sequence[NDArray[np.bool_]]) -> Self:
        """Choose items [N] by subject, and leave out subjects who have none; units stay as they are."""
        listed = zip(self.ids, self.units, is_chosen, strict=True)
        some = [(ids, units, chosen) for ids, units, chosen in listed if chosen.any()]
        ids = [list(compress(names, chosen)) for names, _, chosen in some]
        units = [list(compress(names, chosen)) for _, names, chosen in some]
        return replace(self, ids=ids, units=units)

    def permute(self, random: np.random.Generator) -> list[NDArray[np.int64]]:
        """Permute the units, alike for all subjects, and with each the items in it.

        Units of other sizes than those whose place they take leave neighbours together: items are lined up
        unit by unit, before and after. Clips of a film are shifted along it instead, around its end: blocks
        in another order would have other neighbours, and pairs of close clips are alike in signals and
        embeddings whatever these have to do with each other.

        Args:
            random: Draws the permutation.

        Returns:
            [N] by subject: the item whose label each item gets.
        """
        key, orders = random.permutation(self.count), []
        shift = random.integers(1, max(2, self.size)) / self.size
        for number, place in zip(self.numbers, self._places, strict=True):
            if self.is_film:
                before = np.argsort(place, kind="stable")
                after = np.roll(before, -round(shift * len(place)))
            else:
                before, after = np.lexsort((place, number)), np.lexsort((place, key[number]))
            order = np.empty(len(number), np.int64)
            order[before] = after
            orders.append(order)
        return orders


def _numbered(names: Sequence[Sequence[Hashable]]) -> list[NDArray[np.int64]]:
    """Number names in the order in which they first appear, over all subjects."""
    number = {name: place for place, name in enumerate(dict.fromkeys(chain.from_iterable(names)))}
    return [np.array([number[name] for name in some], np.int64) for some in names]


@dataclass(frozen=True)
class Alike:
    """What the stimuli of a data set are alike by.

    Attributes:
        by: Why some are of one unit.
        concept_of: Name to what a stimulus shows; one that is not there is a concept of its own.
        medium: What they are, in the singular.
    """

    by: AlikeBy = "concept"
    concept_of: Mapping[Any, str] = field(default_factory=dict)
    medium: str = "picture"

    def items(self, ids: Sequence[Sequence[Hashable]]) -> Items:
        """Group stimuli, one list of names a subject; clips in the order of their film."""
        names = list(dict.fromkeys(chain.from_iterable(ids)))
        concepts = [[self.concept_of.get(name, name) for name in some] for some in ids]
        if self.by == "concept" and len(set(chain.from_iterable(concepts))) < len(names):
            return Items(ids, concepts, "concepts")
        if self.by == "neighbours" and len(names) >= 2 * BLOCKS[0]:
            count = min(BLOCKS[1], max(BLOCKS[0], len(names) // LONG_BLOCK))
            block = {name: place * count // len(names) for place, name in enumerate(names)}
            units = [[block[name] for name in some] for some in ids]
            kind = f"blocks of {len(names) // count} neighbouring {self.medium}s"
            return Items(ids, units, kind, is_film=True)
        return Items(ids, ids, f"{self.medium}s", is_film=self.by == "neighbours")
