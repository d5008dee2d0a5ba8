"""Resamples of items that several subjects share: crossed, one for all subjects that have them."""

from collections.abc import Callable, Hashable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating[Any]]
Statistic = Callable[..., Any]
"""Reduces values along `axis`, as numpy's mean and median do."""

BLOCK = 2**22
"""Values that are resampled at once, to bound memory."""


def by_item(
    groups: Sequence[Values], ids: Sequence[Sequence[Hashable]] | None
) -> tuple[list[Values], list[NDArray[np.int64]]]:
    """Average what a subject has of an item; give each item's place among those of all subjects."""
    named = [[(len(group), n) for n in range(len(group))] for group in groups] if ids is None else ids
    number = {name: place for place, name in enumerate(dict.fromkeys(chain.from_iterable(named)))}
    averages: list[Values] = []
    places: list[NDArray[np.int64]] = []
    for group, names in zip(groups, named, strict=True):
        place, which, counts = np.unique(
            [number[name] for name in names], return_inverse=True, return_counts=True
        )
        averages.append(np.bincount(which, group) / counts)
        places.append(place)
    return averages, places


def resampled_statistics(
    groups: Sequence[Values],
    places: Sequence[NDArray[np.int64]],
    statistic: Statistic,
    draws: int,
    random: np.random.Generator,
    filling: np.random.Generator,
) -> Values:
    """Resample the items of all subjects together.

    A draw is a sequence of all subjects' items; a subject takes those of them that it has, in order, and as
    many as it has. Those that are still missing are drawn for it alone.

    Args:
        groups: Values of the items [N], one array a subject.
        places: [N] place of each item among those of all subjects, one array a subject.
        statistic: How a group's values become one.
        draws: Number of resamples.
        random: Draws the items.
        filling: Draws what a subject lacks.

    Returns:
        Statistics [draws, subjects].
    """
    items = max(int(place.max()) for place in places) + 1
    rows, blocks = max(1, BLOCK // items), []
    for start in range(0, draws, rows):
        drawn = random.integers(items, size=(min(rows, draws - start), items))
        if statistic is np.mean and all(len(place) == items for place in places):
            blocks.append(_means(np.stack(groups, 1), drawn))  # four times as fast
            continue
        found = []
        for values, place in zip(groups, places, strict=True):
            index = drawn if len(place) == items else _own_items(drawn, place, items, filling)
            found.append(statistic(values[index], axis=-1))
        blocks.append(np.stack(found, 1))
    return np.concatenate(blocks)


def resampled_means(values: Values, draws: int, random: np.random.Generator) -> Values:
    """Resample the items of many places alike, as `resampled_statistics` does those of one.

    Args:
        values: [subjects, P, N]; all subjects have the same items.
        draws: Number of resamples.
        random: Draws the items.

    Returns:
        Means [P, draws, subjects].
    """
    subjects, places, items = values.shape
    flat, rows, blocks = values.reshape(-1, items).T, max(1, BLOCK // items), []
    for start in range(0, draws, rows):
        drawn = random.integers(items, size=(min(rows, draws - start), items))
        blocks.append(_means(flat, drawn))
    found = np.concatenate(blocks).reshape(draws, subjects, places)
    return np.moveaxis(found, 2, 0)


def _means(values: Values, drawn: NDArray[np.int64]) -> Values:
    """Average values [N, subjects] over the items drawn [draws, N]: [draws, subjects]."""
    count, items = drawn.shape
    times = np.bincount((drawn + items * np.arange(count)[:, None]).ravel(), minlength=count * items)
    return (times.reshape(count, items) @ values) / items  # type: ignore[no-any-return]


def _own_items(
    drawn: NDArray[np.int64], place: NDArray[np.int64], items: int, filling: np.random.Generator
) -> NDArray[np.int64]:
    """Take the items [draws, N] that a subject has out of those drawn for all."""
    local = np.full(items, -1)
    local[place] = np.arange(len(place))
    own = local[drawn]
    index = filling.integers(len(place), size=(len(drawn), len(place)))
    order = (own >= 0).cumsum(1) - 1
    row, column = np.nonzero((own >= 0) & (order < len(place)))
    index[row, order[row, column]] = own[row, column]
    return index
